from typing import Any

import pytest
from crd_schema import status_errors
from objects import (
    ALL_STORED,
    make_pod,
    runner_says,
    stamp,
    terminated,
)
from run_world import JOB, OUTPUTS, RunWorld, outputs, runs, started
from world import (
    now_of,
    pod_cannot_pull,
    pod_evicted,
    pod_fails,
    pod_pending,
    pod_runs,
    pod_succeeds,
)

from labfunctions_operator.reconcile.run import reconcile_run
from labfunctions_operator.reconcile.run_observed import RunObserved


def cancelled(world: RunWorld) -> None:
    assert world.status["phase"] == "Cancelled"
    assert world.condition[:2] == ("False", "Cancelled")
    assert world.condition[2].startswith("cancelled by spec.cancel")
    assert world.status["failure"]["reason"] == "Cancelled"
    assert status_errors("Run", world.status) == []
    assert world.settle() == []


def test_cancel_before_anything_starts_nothing() -> None:
    world = RunWorld(workflowRef={"name": "report"}, cancel=True)
    assert world.settle() == ["status"]
    cancelled(world)


def test_cancel_at_a_closed_gate_ends_the_run() -> None:
    world = RunWorld()
    world.project = None
    world.settle()
    world.edit(cancel=True)
    assert world.settle() == ["status"]
    cancelled(world)


@pytest.mark.parametrize("before", [None, pod_pending, pod_cannot_pull])
def test_cancel_before_the_notebook_runs_deletes_the_job(before: Any) -> None:
    world = started()
    if before:
        before(world, JOB)
    world.edit(cancel=True)
    assert f"delete Job {JOB}" in world.settle()
    world.pods.clear()
    world.settle()
    cancelled(world)
    assert "outputs" not in world.status
    assert all("notebook" not in attempt for attempt in world.status.get("attempts", []))


def test_cancel_of_a_running_notebook_waits_for_what_it_stores() -> None:
    world = runs()
    world.edit(cancel=True)
    assert world.settle() == [f"delete Job {JOB}", "status"]
    assert world.condition == (
        "Unknown",
        "Cancelling",
        "stopping the notebook and storing it as it is",
    )
    world.seconds = 20
    assert world.settle() == []
    world.pods[JOB] = make_pod(
        None,
        phase="Failed",
        notebook=terminated(143, runner_says("Cancelled", message="stopped")),
        courier=terminated(0, ALL_STORED),
    )
    world.pods[JOB]["metadata"]["labels"] = {"labfunctions.io/attempt": "1"}
    world.settle()
    cancelled(world)
    assert world.status["outputs"] == OUTPUTS


def test_cancel_of_a_notebook_whose_pod_is_gone_ends_the_run() -> None:
    world = runs()
    world.edit(cancel=True)
    world.settle()
    world.pods.clear()
    world.settle()
    cancelled(world)
    assert world.status["outputs"] == {"notebook": "s3://b/notebook.ipynb"}


def test_cancel_comes_too_late_for_a_notebook_that_has_ended() -> None:
    world = runs()
    pod_succeeds(world, JOB)
    world.edit(cancel=True)
    world.settle()
    assert world.status["phase"] == "Succeeded"
    world.edit(cancel=True)
    assert world.settle() == []


def test_cancel_of_an_evicted_run_is_not_retried() -> None:
    world = runs()
    pod_evicted(world, JOB)
    world.edit(cancel=True)
    world.settle()
    world.pods.clear()
    world.settle()
    cancelled(world)


def test_cancel_between_two_attempts_starts_no_other() -> None:
    world = runs(workflowRef={"name": "report"}, retries={"limit": 2})
    world.seconds = 20
    pod_fails(world, JOB)
    world.settle()
    assert world.condition[1] == "Retrying"
    before = world.status["attempts"]
    world.edit(cancel=True)
    world.seconds = 60
    assert world.settle() == ["status"]
    assert list(world.jobs) == [JOB]
    cancelled(world)
    assert world.status["attempts"] == before, "it did fail"
    assert world.status["outputs"] == outputs("notebook")
    assert world.status["completionTime"] == stamp(60)


@pytest.mark.parametrize(("limit", "phase"), [(0, "Failed"), (1, "Cancelled")])
def test_cancel_of_an_attempt_that_failed_takes_away_those_to_come(limit: int, phase: str) -> None:
    """Whether the end of the attempt was on record already makes no difference."""
    world = runs(workflowRef={"name": "report"}, retries={"limit": limit})
    pod_fails(world, JOB)
    world.edit(cancel=True)
    world.settle()
    assert world.status["phase"] == phase
    assert [a["reason"] for a in world.status["attempts"]] == ["NotebookError"]


@pytest.mark.parametrize(("limit", "phase"), [(0, "Failed"), (1, "Cancelled")])
def test_cancel_while_the_operator_stops_an_attempt_hides_nothing(limit: int, phase: str) -> None:
    world = runs(workflowRef={"name": "report"}, timeoutSeconds=100, retries={"limit": limit})
    world.seconds = 162
    world.step()
    assert world.condition == ("Unknown", "Stopping", "still running after 100 s")
    world.edit(cancel=True)
    assert world.settle() == [f"delete Job {JOB}"]
    world.pods.clear()
    world.seconds = 170
    world.settle()
    assert world.status["phase"] == phase
    [attempt] = world.status["attempts"]
    assert (attempt["reason"], attempt["finishTime"]) == ("TimedOut", stamp(170))
    if phase == "Failed":
        assert world.condition == ("False", "TimedOut", "still running after 100 s")


def test_cancel_of_what_was_to_be_given_up_deletes_the_job_first() -> None:
    """The pod would go on trying, and might run for a Run that has ended."""
    world = started()
    pod_cannot_pull(world, JOB)
    world.settle()
    world.seconds = 400
    world.edit(cancel=True)
    world.pods[JOB]["status"]["phase"] = "Running"  # as its courier runs, it is given time to end
    assert world.settle() == [f"delete Job {JOB}", "status"]
    assert world.condition[1] == "Cancelling"
    world.pods[JOB]["metadata"]["deletionTimestamp"] = stamp(400)
    assert world.settle() == []
    world.pods.clear()
    world.settle()
    cancelled(world)


def test_cancel_of_a_new_run_says_nothing_of_an_older_one_of_its_name() -> None:
    world = RunWorld(workflowRef={"name": "report"}, cancel=True)
    world.pods[JOB] = make_pod(
        None,
        phase="Succeeded",
        notebook=terminated(0, runner_says()),
        courier=terminated(0, ALL_STORED),
    )
    world.pods[JOB]["metadata"]["labels"] = {"labfunctions.io/attempt": "1"}
    world.settle()
    assert world.status["phase"] == "Cancelled"


def test_an_attempt_is_on_record_before_its_job_is_deleted() -> None:
    """Whoever dies in between leaves a sign of it."""
    world = started()
    pod_runs(world, JOB)
    world.edit(cancel=True)
    assert world.settle() == ["status", f"delete Job {JOB}"]
    assert [attempt["number"] for attempt in world.status["attempts"]] == [1]


def test_a_job_that_comes_after_the_end_is_deleted() -> None:
    """An operator that did not know of the end has made it."""
    late = started()
    world = RunWorld(workflowRef={"name": "report"}, cancel=True)
    world.settle()
    job = late.jobs[JOB]
    plan = reconcile_run(world.run, RunObserved(jobs=[job]), world.settings, now_of(world))
    assert [(ref.kind, ref.name) for ref in plan.delete] == [("Job", JOB)]


def test_the_job_of_the_last_attempt_stays() -> None:
    world = runs()
    pod_succeeds(world, JOB)
    world.settle()
    jobs = list(world.jobs.values())
    plan = reconcile_run(world.run, RunObserved(jobs=jobs), world.settings, now_of(world))
    assert plan.delete == ()
