"""What a schedule does: case by case."""

import hashlib
import json
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from objects import NOW, stamp
from workflow_world import MINUTELY, Died, WorkflowWorld, minute, scheduled

from labfunctions_operator.api.schedule import MAX_ACTIVE
from labfunctions_operator.reconcile.schedule import LOOK_BACK

FIRST = minute(NOW)


def run_of(minutes: int) -> str:
    return minute(NOW + timedelta(minutes=minutes))


def test_a_tick_costs_a_run_and_one_status_and_its_end_one_status() -> None:
    world = scheduled()
    assert world.writes == ["status"]
    assert world.condition("Scheduled") == ("True", "Scheduled", f"next at {stamp()}")
    assert world.condition("LastRunSucceeded")[:2] == ("Unknown", "NeverRan")
    world.writes.clear()
    assert world.step().requeue_after == 30
    world.pass_time(30)
    assert world.settle() == [f"create {FIRST}", "status"]
    assert world.status["lastScheduleTime"] == stamp()
    assert world.status["nextScheduleTime"] == stamp(60)
    assert world.status["active"] == [{"name": FIRST}]
    run = world.runs[FIRST]
    assert run["metadata"]["annotations"]["labfunctions.io/scheduled-at"] == stamp()
    [owner] = run["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Workflow", "uid-1")
    assert run["spec"] == {"workflowRef": {"name": "report"}}
    world.pass_time(20)
    world.end(FIRST)
    assert world.settle() == ["status"]
    assert world.status["active"] == []
    assert (world.status["succeeded"], world.status["failed"]) == (1, 0)
    assert world.status["lastSuccessfulTime"] == stamp(20)
    assert world.status["lastRun"] == {"name": FIRST, "phase": "Succeeded"}
    assert world.condition("LastRunSucceeded")[0] == "True"
    assert world.step().requeue_after == 40


def test_a_failure_is_shown_and_that_it_never_succeeded() -> None:
    world = scheduled()
    world.pass_time(30)
    world.settle()
    world.end(FIRST, "Failed")
    world.settle()
    status, reason, message = world.condition("LastRunSucceeded")
    assert (status, reason) == ("False", "NotebookError")
    assert message == f"Run {FIRST}: it is Failed; no Run of the schedule has ever succeeded"
    assert world.status["failed"] == 1
    assert world.status["lastFailedTime"] == stamp()


def test_when_a_run_failed_is_known_although_later_ones_were_cancelled() -> None:
    world = scheduled(failedRunsHistoryLimit=0)
    for number, phase in enumerate(("Failed", "Cancelled")):
        world.pass_time(30 + 60 * number)
        world.settle()
        world.end(run_of(number), phase)
        world.settle()
    assert world.status["lastFailedTime"] == stamp()
    assert world.condition("LastRunSucceeded")[1] == "Cancelled"


def test_a_later_tick_decides_about_the_last_run_whenever_it_ends() -> None:
    world = scheduled()
    for _ in range(2):
        world.pass_time(60)
        world.settle()
    world.end(run_of(1))
    world.settle()
    world.end(FIRST, "Failed")
    world.settle()
    assert world.status["lastRun"] == {"name": run_of(1), "phase": "Succeeded"}
    assert (world.status["succeeded"], world.status["failed"]) == (1, 1)


def away(minutes: int, **spec: Any) -> WorkflowWorld:
    """A Workflow whose operator was away for some ticks; the first one was run."""
    world = scheduled(**spec)
    world.pass_time(30)
    world.settle()
    world.end(FIRST)
    world.settle()
    world.pass_time(minutes * 60 + 30)
    world.settle()
    return world


@pytest.mark.parametrize(
    ("catch_up", "made", "missed"),
    [
        ({}, [5], 4),
        ({"catchUp": {"policy": "Latest"}}, [5], 4),
        ({"catchUp": {"policy": "None"}}, [5], 4),
        ({"catchUp": {"policy": "None"}, "startingDeadlineSeconds": 20}, [], 5),
        ({"catchUp": {"policy": "Latest"}, "startingDeadlineSeconds": 20}, [], 5),
        ({"catchUp": {"policy": "All"}}, [1, 2, 3, 4, 5], 0),
        ({"catchUp": {"policy": "All", "max": 2}}, [4, 5], 3),
        ({"catchUp": {"policy": "All"}, "startingDeadlineSeconds": 120}, [4, 5], 3),
        ({"catchUp": {"policy": "All"}, "concurrencyPolicy": "Queue"}, [1, 2, 3, 4, 5], 0),
        ({"catchUp": {"policy": "All"}, "concurrencyPolicy": "Forbid"}, [5], 4),
        ({"catchUp": {"policy": "All"}, "concurrencyPolicy": "Replace"}, [5], 4),
    ],
)
def test_after_downtime(catch_up: dict[str, Any], made: list[int], missed: int) -> None:
    world = away(5, **catch_up)
    assert list(world.made) == [FIRST, *map(run_of, made)]
    assert world.status["missed"] == missed
    assert len(world.events) == (1 if missed else 0)
    if missed:
        [event] = world.events
        assert (event.type, event.reason) == ("Warning", "MissedSchedule")
    state = ("True", "Scheduled") if made else ("False", "MissedSchedule")
    assert world.condition("Scheduled")[:2] == state
    if made and missed:
        ticks = f"{missed} ticks before {stamp(300)} got no Run"
        message = f"{ticks}; next at {stamp(360)}"
        assert world.condition("Scheduled")[2] == message
        world.end(run_of(5))
        world.settle()
        assert world.condition("Scheduled")[2] == message, "until the next tick"
        world.pass_time(60)
        world.settle()
        assert world.condition("Scheduled")[2] == f"next at {stamp(420)}"


def test_after_downtime_an_old_tick_is_not_run_without_catching_up() -> None:
    world = scheduled(schedule="0 * * * *", catchUp={"policy": "None"})
    world.pass_time(30 + 3600 + 61)
    world.settle()
    assert (list(world.made), world.status["missed"]) == ([], 2)
    assert world.condition("Scheduled") == (
        "False",
        "MissedSchedule",
        f"2 ticks up to {stamp(3600)} got no Run: the scheduler was away or late; "
        f"next at {stamp(7200)}",
    )
    world.pass_time(3600 - 55)
    world.settle()
    assert world.condition("Scheduled")[:2] == ("True", "Scheduled")


def test_a_late_start_is_shown() -> None:
    world = scheduled(schedule="0 * * * *")
    world.pass_time(30 + 600)
    world.settle()
    assert list(world.made) == [FIRST]
    assert world.condition("Scheduled") == (
        "True",
        "Late",
        f"the tick of {stamp()} started late; next at {stamp(3600)}",
    )
    world.end(FIRST)
    world.settle()
    assert world.condition("Scheduled")[1] == "Late", "until the next tick"


def test_ten_years_of_downtime_cost_a_thousand_ticks() -> None:
    world = scheduled()
    world.pass_time(10 * 365 * 86400)
    plan = world.step()
    assert len(plan.apply) == 1
    assert world.status["missed"] == LOOK_BACK - 1
    assert world.events[0].message.startswith("more than 1000 ticks up to ")


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "*/1 * * * *"},
        {"timeZone": "Asia/Kolkata"},
        {"schedule": None, "interval": "1m"},
        {"startAt": "2020-01-01T00:00:00Z"},
    ],
)
def test_an_edit_runs_no_tick_of_before(change: dict[str, Any]) -> None:
    world = scheduled()
    world.pass_time(30 + 5 * 60)
    world.edit(**change)
    world.settle()
    assert world.made == {}
    assert world.status["missed"] == 0
    world.pass_time(60)
    world.settle()
    assert len(world.made) == 1


@pytest.mark.parametrize("is_known", [True, False])
def test_an_edit_that_is_seen_late_counts_from_when_it_was_made(is_known: bool) -> None:
    world = scheduled(schedule="0 * * * *")
    world.pass_time(30 + 60)
    world.edit(schedule="5 * * * *")
    if not is_known:
        world.edited = None
    world.pass_time(10 * 60)
    world.settle()
    assert list(world.made) == ([run_of(5)] if is_known else [])
    assert world.status["missed"] == 0


def test_an_edit_that_is_seen_late_judges_what_came_after_it_by_its_own_words() -> None:
    world = scheduled(schedule="0 * * * *")
    world.pass_time(30 + 60)
    world.edit(schedule="*/5 * * * *", catchUp={"policy": "None"})
    world.pass_time(20 * 60 + 30)
    world.settle()
    assert (world.made, world.status["missed"]) == ({}, 4)


@pytest.mark.parametrize("edited", [-90000, 90000])
def test_an_edit_is_neither_before_what_is_settled_nor_ahead(edited: int) -> None:
    world = scheduled()
    world.pass_time(30)
    world.settle()
    world.edit(schedule="*/1 * * * *")
    world.edited = NOW + timedelta(seconds=edited)
    world.settle()
    assert world.status["schedule"]["since"] == stamp()
    world.pass_time(60)
    world.settle()
    assert world.made == {FIRST: 1, run_of(1): 1}


@pytest.mark.parametrize(
    "change", [{"endAt": "2030-01-01T00:00:00Z"}, {"repeat": 50}, {"endAt": None}]
)
def test_an_edit_of_how_long_it_goes_on_forgets_no_tick(change: dict[str, Any]) -> None:
    world = scheduled(schedule="0 * * * *", endAt="2029-01-01T00:00:00Z")
    world.pass_time(30.05)
    world.edit(**change)
    world.settle()
    assert list(world.made) == [FIRST]


def test_a_schedule_that_was_over_and_is_to_go_on_runs_no_tick_of_between() -> None:
    world = scheduled(endAt=stamp(60))
    for _ in range(4):
        world.pass_time(60)
        world.settle()
    world.edit(endAt=stamp(900))
    world.settle()
    assert list(world.made) == [FIRST, run_of(1)]
    world.pass_time(60)
    world.settle()
    assert list(world.made) == [FIRST, run_of(1), run_of(4)]
    assert world.status["missed"] == 0


@pytest.mark.parametrize("bounds", [{}, {"endAt": "2029-01-01T00:00:00Z", "repeat": 9}])
def test_what_an_earlier_version_wrote_of_a_schedule_is_no_edit(bounds: dict[str, Any]) -> None:
    world = scheduled(schedule="0 * * * *", **bounds)
    values = ["0 * * * *", None, None, None, bounds.get("endAt"), bounds.get("repeat"), False]
    text = json.dumps(values, separators=(",", ":"))
    world.status["schedule"]["hash"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    world.pass_time(60)
    assert world.settle() == [f"create {FIRST}", "status"]


def test_an_edit_of_anything_else_keeps_a_tick_that_is_due() -> None:
    world = scheduled()
    world.pass_time(31)
    world.edit(parameters={"day": "x"}, concurrencyPolicy="Forbid")
    world.settle()
    assert list(world.made) == [FIRST]


def test_a_suspended_schedule_makes_no_runs_and_makes_up_for_none() -> None:
    world = scheduled(catchUp={"policy": "All"})
    world.edit(suspend=True)
    world.settle()
    assert world.condition("Scheduled") == ("False", "Suspended", "suspended by spec.suspend")
    assert "nextScheduleTime" not in world.status
    world.pass_time(30 + 300)
    assert world.settle() == []
    world.edit(suspend=False)
    world.settle()
    assert (world.made, world.status["missed"]) == ({}, 0)
    world.pass_time(60)
    world.settle()
    assert list(world.made) == [run_of(6)]


def test_deleted_and_created_again_within_a_minute_it_runs_no_tick_twice() -> None:
    world = scheduled()
    world.pass_time(40)
    world.settle()
    world.pass_time(10)
    world.recreate()
    world.settle()
    assert world.made == {FIRST: 1}
    world.pass_time(40)
    world.settle()
    assert world.made == {FIRST: 1, run_of(1): 1}


@pytest.mark.parametrize("policy", ["Forbid", "Replace"])
def test_a_live_run_of_an_earlier_workflow_of_the_name_is_none_of_its_own(policy: str) -> None:
    """As CronJob has it: what its owner left live, or is being deleted, is somebody else's."""
    world = scheduled(concurrencyPolicy=policy)
    world.pass_time(30)
    world.settle()
    left = dict(world.runs)
    world.pass_time(10)
    world.recreate()
    world.runs |= left
    world.pass_time(50)
    assert world.settle() == ["status", f"create {run_of(1)}", "status"]
    assert world.status["active"] == [{"name": run_of(1)}]


def test_a_typo_is_named_and_recovers_at_once() -> None:
    world = scheduled(schedule="0 25 * * *")
    for type in ("Scheduled", "Ready"):
        status, reason, message = world.condition(type)
        assert (status, reason) == ("False", "InvalidSpec")
        assert message.startswith("spec.schedule: hour '25' is not a cron field")
    world.edit(schedule="0 * * * *", timeZone="Europe/Pairs")
    world.settle()
    assert (
        world.condition("Ready")[2] == "spec.timeZone: the tz database has no zone 'Europe/Pairs'"
    )
    world.edit(timeZone="Europe/Paris")
    world.settle()
    assert world.condition("Ready")[0] == world.condition("Scheduled")[0] == "True"
    world.pass_time(30)
    world.settle()
    assert list(world.made) == [FIRST]


def test_forbid_skips_ticks_counts_them_and_tells_once() -> None:
    world = scheduled(concurrencyPolicy="Forbid")
    for _ in range(4):
        world.pass_time(60)
        world.settle()
    assert world.made == {FIRST: 1}
    assert world.status["missed"] == 3
    [event] = world.events
    assert event.reason == "RunAlreadyActive"
    assert world.condition("Scheduled") == (
        "False",
        "RunAlreadyActive",
        f"the tick of {stamp(180)} got no Run: Run {FIRST} is live and spec.concurrencyPolicy is "
        f"Forbid; next at {stamp(240)}",
    )
    world.end(FIRST)
    world.settle()
    world.pass_time(60)
    world.settle()
    assert list(world.made) == [FIRST, run_of(4)]
    assert world.condition("Scheduled")[:2] == ("True", "Scheduled")


def test_replace_cancels_what_is_live_and_starts_the_new_one() -> None:
    world = scheduled(concurrencyPolicy="Replace")
    world.pass_time(30)
    world.settle()
    world.pass_time(60)
    assert world.settle() == [f"create {run_of(1)}", f"cancel {FIRST}", "status"]
    world.end(FIRST, "Cancelled")
    world.settle()
    assert world.status["active"] == [{"name": run_of(1)}]
    assert (world.status["succeeded"], world.status["failed"]) == (0, 0)
    assert world.status["lastRun"] == {"name": FIRST, "phase": "Cancelled"}


@pytest.mark.parametrize("policy", ["Allow", "Queue"])
def test_live_runs_are_bounded(policy: str) -> None:
    world = scheduled(concurrencyPolicy=policy)
    for _ in range(MAX_ACTIVE + 3):
        world.pass_time(60)
        world.settle()
    assert len(world.made) == len(world.status["active"]) == MAX_ACTIVE
    assert world.status["missed"] == 3
    assert world.condition("Scheduled")[1] == "TooManyActive"
    [event] = world.events
    assert event.reason == "TooManyActive"
    world.end(FIRST)
    world.settle()
    world.pass_time(60)
    world.settle()
    assert len(world.made) == MAX_ACTIVE + 1


def test_of_more_ticks_than_may_be_live_the_latest_run() -> None:
    world = scheduled(concurrencyPolicy="Queue", catchUp={"policy": "All", "max": 100})
    for _ in range(MAX_ACTIVE - 2):
        world.pass_time(60)
        world.settle()
    world.pass_time(600)
    world.settle()
    last = MAX_ACTIVE - 2 + 9
    assert list(world.made)[-3:] == [run_of(MAX_ACTIVE - 3), run_of(last - 1), run_of(last)]
    assert world.status["missed"] == 8
    [event] = world.events
    assert (event.reason, event.message) == (
        "TooManyActive",
        f"8 ticks up to {stamp((last - 2) * 60)} got no Run: "
        "100 Runs of the schedule are live, which is the limit",
    )
    status, reason, message = world.condition("Scheduled")
    assert (status, reason) == ("True", "Scheduled")
    assert message.startswith(f"8 ticks before {stamp(last * 60)} got no Run; next at ")


def test_repeat_counts_runs_whatever_becomes_of_them() -> None:
    world = scheduled(repeat=2)
    for _ in range(4):
        world.pass_time(60)
        world.settle()
        for name in world.live:
            world.end(name, "Failed")
        world.settle()
        for name in list(world.runs):
            world.forget(name)
    assert len(world.made) == 2
    assert world.condition("Scheduled") == (
        "False",
        "Ended",
        "it made 2 Runs, as spec.repeat says",
    )
    assert "nextScheduleTime" not in world.status
    world.edit(repeat=3)
    world.settle()
    assert len(world.made) == 2, "no past tick is run"
    world.pass_time(120)
    world.settle()
    assert len(world.made) == 3


def test_it_ends() -> None:
    world = scheduled(endAt=stamp(60))
    for _ in range(4):
        world.pass_time(60)
        world.settle()
    assert list(world.made) == [FIRST, run_of(1)]
    assert world.condition("Scheduled") == (
        "False",
        "Ended",
        f"no tick is left until spec.endAt, {stamp(60)}",
    )


def test_a_schedule_that_is_taken_away_leaves_its_record() -> None:
    world = scheduled()
    world.pass_time(30)
    world.settle()
    world.edit(schedule=None)
    world.end(FIRST)
    world.settle()
    assert world.condition("Scheduled")[:2] == ("False", "NoSchedule")
    assert world.status["succeeded"] == 1
    world.pass_time(600)
    assert world.settle() == []


def test_a_workflow_without_a_schedule_has_no_word_of_it() -> None:
    world = WorkflowWorld()
    world.settle()
    assert set(world.status) == {"observedGeneration", "parametersSchema", "conditions"}
    assert [c["type"] for c in world.status["conditions"]] == ["Ready"]


def test_jitter_is_the_same_each_time_bounded_and_keeps_the_name_and_the_order() -> None:
    waits = set()
    for number in range(20):
        world = scheduled(schedule="*/2 * * * *", jitterSeconds=3600)
        world.obj["metadata"]["name"] = f"report-{number}"
        wait = world.step().requeue_after
        assert wait is not None
        assert 30 <= wait < 150, "never later than the next tick"
        assert world.decide().requeue_after == wait
        waits.add(wait)
        world.pass_time(wait - 1)
        world.settle()
        assert world.made == {}
        start = stamp(wait - 30)
        assert world.status["nextScheduleTime"] == start, "it is not in the past"
        assert world.condition("Scheduled") == ("True", "Scheduled", f"next at {start}")
        world.pass_time(1)
        world.settle()
        assert list(world.made) == [minute(NOW, f"report-{number}")]
    assert len(waits) > 10, "they spread"


def test_a_clock_that_steps_back_repeats_nothing() -> None:
    world = scheduled()
    for _ in range(5):
        world.pass_time(60)
        world.settle()
        for name in world.live:
            world.end(name)
        world.settle()
    for name in list(world.runs):
        assert world.forget(name)
    world.pass_time(-200)
    for _ in range(40):
        world.settle()
        world.pass_time(10)
    assert set(world.made.values()) == {1}
    assert world.status["missed"] == 0


def test_a_clock_that_was_years_ahead_does_not_stop_a_schedule() -> None:
    world = scheduled()
    years = 4 * 365 * 86400
    world.pass_time(years)
    world.settle()
    world.pass_time(-years)
    world.settle()
    before = sum(world.made.values())
    world.pass_time(60)
    world.settle()
    assert sum(world.made.values()) == before + 1
    assert world.status["lastScheduleTime"] == stamp()


def test_a_lost_status_runs_nothing_again() -> None:
    world = scheduled(schedule="0 * * * *")
    world.pass_time(30)
    world.settle()
    world.end(FIRST)
    world.settle()
    del world.obj["status"]
    world.pass_time(600)
    world.settle()
    assert world.made == {FIRST: 1}
    assert world.status["succeeded"] == 1
    assert world.status["lastScheduleTime"] == stamp()


@pytest.mark.parametrize("policy", ["Allow", "Forbid", "Replace", "Queue"])
@pytest.mark.parametrize("catch_up", ["None", "Latest", "All"])
@pytest.mark.parametrize("lives", range(6))
def test_killed_at_any_write_it_ends_the_same(policy: str, catch_up: str, lives: int) -> None:
    ends = []
    for deaths in (None, lives):
        world = scheduled(concurrencyPolicy=policy, catchUp={"policy": catch_up})
        world.pass_time(30)
        world.settle()
        world.pass_time(150)
        world.lives = deaths
        try:
            world.settle()
        except Died:
            world.pass_time(1)
            world.settle()
        ends.append({k: v for k, v in world.status.items() if k != "conditions"} | dict(world.made))
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    "garbage",
    [
        {"schedule": {"hash": "x", "since": "yesterday"}},
        {"schedule": {"hash": "x", "since": "0001-01-01T00:00:00+14:00", "runs": 3}},
        {"lastScheduleTime": "never"},
        {"active": [{"name": "Not A Name"}], "succeeded": 3},
        {"schedule": {"hash": "x", "since": stamp(-60)}, "lastRun": {"name": "x", "phase": ""}},
        {"schedule": {"hash": "x", "since": stamp(-60)}, "active": [{"name": "gone"}]},
    ],
)
def test_a_status_that_somebody_has_written_stops_nothing(garbage: dict[str, Any]) -> None:
    world = scheduled()
    world.obj["status"] = garbage
    world.settle()
    world.pass_time(30)
    world.settle()
    run = world.runs[FIRST]
    run["status"] = {"phase": "Succeeded", "completionTime": "some day", "conditions": []}
    world.settle()
    assert world.status["active"] == []
    assert "lastSuccessfulTime" not in world.status
    world.pass_time(60)
    world.settle()
    assert list(world.made) == [FIRST, run_of(1)]


@pytest.mark.parametrize("lives", [0, 1, 2, 3])
@pytest.mark.parametrize("policy", ["None", "Latest", "All"])
def test_ticks_before_its_first_status_are_counted_whoever_dies(policy: str, lives: int) -> None:
    ends = []
    for dies_after in (None, lives):
        world = WorkflowWorld(schedule=MINUTELY, catchUp={"policy": policy, "max": 3})
        world.pass_time(1000)
        world.lives = dies_after
        with suppress(Died):
            world.step()
        world.lives = None
        world.settle()
        ends.append((world.status, world.made))
    assert ends[0] == ends[1]


def test_a_schedule_whose_last_tick_is_still_to_be_run_has_not_ended() -> None:
    world = WorkflowWorld(now=NOW - timedelta(seconds=30), schedule=MINUTELY, endAt=stamp(10))
    world.pass_time(50)
    world.step()
    assert world.condition("Scheduled") == ("True", "Scheduled", f"next at {stamp()}")
    assert world.settle() == [f"create {FIRST}", "status"]
    assert world.condition("Scheduled")[:2] == ("False", "Ended")
    assert "nextScheduleTime" not in world.status
