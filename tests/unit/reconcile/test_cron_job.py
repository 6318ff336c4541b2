"""Schedules that a native CronJob keeps: who has which tick, and what becomes of its Jobs."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from cron_world import CronWorld, snapshot_of
from hypothesis import given
from hypothesis import strategies as st
from objects import NOW, make_project, make_run, make_workflow, stamp
from run_world import ready_project
from workflow_world import Died, minute

from labfunctions_operator.api.run import Outputs
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.adoption import as_attempt, ticking_workflow
from labfunctions_operator.reconcile.attempt import find_current

FIRST = minute(NOW)


def run_of(minutes: int) -> str:
    return minute(NOW + timedelta(minutes=minutes))


def hook(name: str) -> dict[str, Any]:
    return {"webhook": {"url": f"https://example.com/{name}", "format": "Json"}}


def handed_over(seconds: float = 30, **spec: Any) -> CronWorld:
    """A Workflow whose CronJob was created half a minute before 12:00."""
    world = CronWorld(NOW - timedelta(seconds=seconds), **spec)
    assert world.settle() == ["apply CronJob", "status"]
    return world


def test_a_tick_costs_the_same_writes_as_one_of_the_operator() -> None:
    world = handed_over()
    assert world.condition("Scheduled") == ("True", "Scheduled", f"next at {stamp()}")
    world.pass_time(30)
    assert world.settle() == [], "the operator leaves the tick to the CronJob"
    assert world.fire() == FIRST
    world.writes.clear()
    assert world.settle() == [f"create {FIRST}", "status"]
    assert world.status["lastScheduleTime"] == stamp()
    assert world.status["nextScheduleTime"] == stamp(60)
    assert world.status["active"] == [{"name": FIRST}]
    world.end(FIRST)
    assert world.settle() == ["status"]
    assert (world.status["succeeded"], world.status["missed"]) == (1, 0)


def test_its_run_is_the_one_that_the_operator_would_have_made() -> None:
    theirs, ours = handed_over(), CronWorld(NOW - timedelta(seconds=30), scheduler="Operator")
    ours.settle()
    for world in (theirs, ours):
        world.pass_time(30)
        world.fire()
        world.settle()
    assert theirs.runs == ours.runs


def test_ticks_are_the_operators_until_the_cron_job_is_there() -> None:
    world = CronWorld(NOW - timedelta(seconds=30))
    world.project = make_project()
    assert world.settle() == ["status"]
    assert world.cron_job is None
    world.pass_time(60)
    assert f"create {FIRST}" in world.settle()
    world.project = ready_project()
    world.settle()
    assert world.cron_job
    world.pass_time(60)
    assert world.settle() == []
    assert world.fire() == run_of(1)


def test_a_run_that_forbid_waits_for_ends_before_the_cron_job_begins() -> None:
    world = CronWorld(NOW - timedelta(seconds=30), scheduler="Operator", concurrencyPolicy="Forbid")
    world.settle()
    world.pass_time(30)
    world.settle()
    world.edit(scheduler="CronJob")
    world.settle()
    assert world.cron_job is None
    world.pass_time(60)
    world.settle()
    assert world.live == [FIRST]
    assert world.condition("Scheduled")[1] == "RunAlreadyActive"
    world.end(FIRST)
    assert "apply CronJob" in world.settle()


def test_a_new_image_updates_it_and_a_missing_one_leaves_it_alone() -> None:
    world = handed_over()
    world.project = ready_project(runtime={"image": "localhost:30500/team/demo@sha256:0b"})
    assert world.settle() == ["apply CronJob"]
    assert world.cron_job
    assert world.cron_job["metadata"]["creationTimestamp"] == stamp(-30)
    world.project = make_project()
    world.settle()
    assert world.cron_job


@pytest.mark.parametrize("spec", [{"scheduler": None}, {"suspend": True}, {"schedule": None}])
def test_without_its_reason_it_goes_and_leaves_its_jobs(spec: dict[str, Any]) -> None:
    world = handed_over()
    world.pass_time(30)
    world.fire()
    world.settle()
    world.edit(**spec)
    assert world.settle()[0] == "delete CronJob report"
    assert world.cron_job is None
    assert set(world.jobs) == set(world.runs) == {FIRST}
    assert ticking_workflow(world.jobs[FIRST]) == "report"


@pytest.mark.parametrize("before", [{"suspend": True}, {"schedule": "0 0 1 1 *"}])
def test_a_resumed_or_edited_schedule_runs_no_past_tick(before: dict[str, Any]) -> None:
    world = handed_over(**before) if "schedule" in before else CronWorld(NOW, **before)
    world.settle()
    world.pass_time(600)
    world.edit(suspend=None, schedule="* * * * *")
    world.settle()
    assert world.cron_job
    assert world.fire() is None
    world.settle()
    assert world.runs == {}


def test_a_run_deleted_in_flight_takes_its_job_along_and_stays_away() -> None:
    world = handed_over()
    world.pass_time(30)
    world.fire()
    world.settle()
    del world.runs[FIRST]
    assert world.settle()[0] == f"delete Job {FIRST}"
    assert world.runs == world.jobs == {}


def test_a_run_deleted_after_its_end_takes_its_job_along() -> None:
    world = handed_over()
    world.pass_time(30)
    world.fire()
    world.settle()
    world.end(FIRST)
    world.end_job(FIRST)
    world.settle()
    assert world.forget(FIRST)
    assert world.settle() == [f"delete Job {FIRST}"]
    assert world.settle() == []


def test_jobs_of_an_outage_become_runs_also_when_they_have_ended_and_the_schedule_changed() -> None:
    world = handed_over()
    for _ in range(3):
        world.pass_time(60)
        name = world.fire()
        assert name
        world.end_job(name)
    world.edit(schedule="0 0 1 1 *")
    world.settle()
    assert set(world.runs) == {run_of(n) for n in (0, 1, 2)}
    assert world.status["missed"] == 0


def edited_cron_job(**spec: Any) -> CronWorld:
    """A CronJob that somebody has just changed."""
    world = handed_over()
    world.patch_cron_job(**spec)
    return world


@pytest.mark.parametrize(
    "change", [{"suspend": True}, {"concurrencyPolicy": "Replace"}, {"jobTemplate": {"spec": {}}}]
)
def test_what_somebody_changed_is_put_back_once(change: dict[str, Any]) -> None:
    world = edited_cron_job(**change)
    wanted = handed_over().cron_job
    assert world.settle() == ["apply CronJob"]
    assert world.cron_job
    assert wanted
    assert world.cron_job["spec"] == wanted["spec"]
    world.pass_time(29)
    assert world.settle() == []


def test_what_the_api_server_adds_is_no_change() -> None:
    world = edited_cron_job(suspend=False, completions=1)
    assert world.settle() == []


def test_a_webhook_that_will_have_it_otherwise_is_left_alone() -> None:
    world = handed_over()
    world.webhook = {"suspend": True}
    world.patch_cron_job()
    assert world.settle() == ["apply CronJob"]
    for _ in range(30):
        world.pass_time(60)
        assert "apply CronJob" not in world.settle()


def test_a_controller_that_will_have_it_otherwise_is_fought_seldom() -> None:
    world = handed_over()
    applied = 0
    for _ in range(60):
        world.pass_time(60)
        world.patch_cron_job(suspend=True)
        applied += world.settle().count("apply CronJob")
    assert applied == 6


def test_an_edit_of_the_workflow_is_no_repair() -> None:
    world = handed_over()
    world.edit(concurrencyPolicy="Replace")
    assert world.settle() == ["apply CronJob", "status"]
    world.patch_cron_job(suspend=True)
    assert world.settle() == ["apply CronJob"], "at once, as it is the first"


def test_one_that_makes_no_jobs_is_said_to_after_some_ticks() -> None:
    world = handed_over(notifications={"onMissed": [hook("a")]})
    world.pass_time(30 + 60 + 1)
    world.settle()
    assert world.condition("Scheduled")[:2] == ("True", "Late")
    assert world.step().requeue_after == 119
    world.pass_time(119)
    world.settle()
    text = f"CronJob report has made no Job for {stamp()} and the ticks after it"
    message = f"{text}; next at {stamp()}"
    assert world.condition("Scheduled") == ("False", "CronJobStalled", message)
    for _ in range(5):
        world.pass_time(60)
        assert world.settle() == []
    [event] = world.events
    assert (event.reason, event.message) == ("CronJobStalled", text)
    world.fire()
    world.settle()
    assert world.condition("Scheduled")[:2] == ("True", "Scheduled")


def test_one_that_waits_for_a_live_run_has_not_stalled() -> None:
    world = handed_over(concurrencyPolicy="Forbid")
    world.pass_time(30)
    world.fire()
    world.settle()
    world.pass_time(600)
    world.settle()
    assert world.condition("Scheduled")[:2] == ("True", "Scheduled")


def test_ticks_that_the_controller_left_out_are_missed_and_a_late_one_is_shown() -> None:
    world = handed_over()
    assert world.step().requeue_after == 90
    world.pass_time(91)
    world.settle()
    message = f"CronJob report has made no Job for {stamp()} yet; next at {stamp()}"
    assert world.condition("Scheduled") == ("True", "Late", message)
    assert world.settle() == []
    world.pass_time(120)
    world.fire()
    world.settle()
    assert world.status["missed"] == 3
    assert world.condition("Scheduled")[1] == "Scheduled"


def test_another_ones_cron_job_of_the_name_is_none_of_ours() -> None:
    world = CronWorld(NOW, scheduler="Operator")
    world.cron_job = {"metadata": {"name": "report", "namespace": "team", "uid": "x"}, "spec": {}}
    world.settle()
    assert world.cron_job


def test_a_clock_behind_the_one_of_the_api_server_keeps_its_own_ticks() -> None:
    world = handed_over(seconds=1)
    assert world.cron_job
    world.cron_job["metadata"]["creationTimestamp"] = stamp(2)
    assert world.step().requeue_after == 1
    world.pass_time(1)
    assert f"create {FIRST}" in world.settle()
    world.pass_time(60)
    assert f"create {run_of(1)}" not in world.settle()


@pytest.mark.parametrize("field", ["jitterSeconds", "repeat"])
def test_what_a_cron_job_cannot_do_is_said_by_its_field(field: str) -> None:
    with pytest.raises(InvalidSpec, match=f"{field}: a CronJob has no such thing"):
        make_workflow(schedule="* * * * *", scheduler="CronJob", **{field: 3})


@pytest.mark.parametrize("after", [0, 1, 2])
def test_death_between_any_two_writes_of_an_adoption_changes_nothing(after: int) -> None:
    world = handed_over()
    world.pass_time(30)
    world.fire()
    world.lives = after
    with suppress(Died):
        world.settle()
    world.lives = None
    world.settle()
    assert world.made[FIRST] == 1
    assert world.status["active"] == [{"name": FIRST}]


ACTS = st.lists(st.sampled_from(["flip", "operator", "controller", "minute", "half"]), max_size=40)


@given(ACTS)
def test_switching_to_and_fro_doubles_nothing_and_loses_nothing(acts: list[str]) -> None:
    """Both are awake at least once before each next tick; in between, anything happens."""
    world = CronWorld(NOW - timedelta(seconds=30), scheduler="Operator")
    world.settle()

    def both() -> None:
        world.settle()
        world.start_runs()
        world.fire()
        world.settle()

    for act in acts:
        if act == "flip":
            other = {"Operator": "CronJob", "CronJob": "Operator"}[world.spec["scheduler"]]
            world.edit(scheduler=other)
        elif act == "operator":
            world.settle()
            world.start_runs()
        elif act == "controller":
            world.fire()
        else:
            world.pass_time({"minute": 60, "half": 30}[act])
            if act == "minute" or world.now.second == 0:
                world.fire()
            both()
    both()
    world.start_runs()
    assert set(world.executed.values()) <= {1}
    ticks = int((world.now - NOW).total_seconds() // 60)
    assert set(world.runs) == {run_of(n) for n in range(ticks + 1)}
    assert set(world.executed) == set(world.runs)


def test_an_adopted_job_is_the_first_attempt_of_its_run() -> None:
    world = handed_over()
    world.pass_time(30)
    world.fire()
    job = world.jobs[FIRST]
    assert "scheduledAt" not in snapshot_of(job)
    run = make_run(FIRST, workflowRef={"name": "report"})
    outputs = Outputs(notebook="s3://b/notebook.ipynb")
    current = find_current(run, [as_attempt(job, run, outputs)], [])
    assert current.snapshot
    assert current.snapshot.scheduled_at == stamp()
    assert current.outputs == outputs
    [row] = current.rows
    assert (row.number, row.job) == (1, FIRST)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"labfunctions.io/run": FIRST}},
        {"labels": {"app.kubernetes.io/component": "build"}},
        {"labels": {"labfunctions.io/project": None}},
        {"name": "report-by-hand"},
        {"name": minute(NOW, "other")},
        {"ownerReferences": [{"kind": "CronJob", "name": "other", "controller": True}]},
        {"ownerReferences": [{"kind": "Run", "name": "report", "controller": True}]},
    ],
)
def test_any_other_job_is_not_adopted(change: dict[str, Any]) -> None:
    world = handed_over()
    world.pass_time(30)
    world.fire()
    meta = world.jobs[FIRST]["metadata"]
    assert ticking_workflow({"metadata": meta}) == "report"
    if "labels" in change:
        names = {**meta["labels"], **change["labels"]}
        change = {"labels": {k: v for k, v in names.items() if v is not None}}
    assert ticking_workflow({"metadata": {**meta, **change}}) is None
