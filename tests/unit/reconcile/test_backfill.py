"""What a Backfill does: case by case."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from backfill_world import FIRST, BackfillWorld, name_of, tick
from objects import NOW, make_object, stamp

from labfunctions_operator.api.backfill import Backfill
from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.past import find_records, minute_of, read_run
from labfunctions_operator.reconcile.plan import Problem

HOURS = range(4)


def hours(world: BackfillWorld) -> list[int]:
    """Which ticks it has made Runs for, in that order."""
    created = [w.removeprefix("create ") for w in world.writes if w.startswith("create")]
    return [int((int(n.rsplit("-", 1)[1]) - minute_of(FIRST)) / 60) for n in created]


def test_oldest_first_one_at_a_time() -> None:
    world = BackfillWorld()
    assert world.settle() == [f"create {name_of(0)}", "status"]
    run = world.runs[name_of(0)]
    assert run["metadata"]["annotations"]["labfunctions.io/scheduled-at"] == rfc3339(FIRST)
    assert run["metadata"]["labels"]["labfunctions.io/backfill"] == "again"
    [owner] = run["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("Backfill", "again", True)
    assert run["spec"] == {"workflowRef": {"name": "report"}}
    assert world.status["active"] == [{"name": name_of(0)}]
    assert world.status["cursor"] == rfc3339(FIRST)
    assert world.status["progress"] == "0/4"
    assert world.status["phase"] == "Running"
    assert world.condition == ("Unknown", "Running", "0/4 ticks are done, 1 Runs are live")
    for hour in HOURS:
        world.writes.clear()
        world.end(name_of(hour))
        wanted = [f"create {name_of(hour + 1)}"] if hour < 3 else []
        assert world.settle() == [*wanted, "status"], "one status for each Run that ends"
    assert world.status["phase"] == "Succeeded"
    assert world.condition == ("True", "Completed", "4 Runs succeeded")
    assert (world.status["total"], world.status["created"], world.status["succeeded"]) == (4, 4, 4)
    assert world.status["completionTime"] == stamp()
    assert world.settle() == []


def test_as_many_at_once_as_allowed() -> None:
    world = BackfillWorld(maxActive=3)
    assert world.settle() == [*(f"create {name_of(h)}" for h in range(3)), "status"]
    world.end(name_of(1))
    assert world.settle() == [f"create {name_of(3)}", "status"]
    assert [ref["name"] for ref in world.status["active"]] == [name_of(h) for h in (0, 2, 3)]


def test_fewer_at_once_once_that_is_asked_for() -> None:
    world = BackfillWorld(maxActive=3)
    world.settle()
    world.edit(maxActive=1)
    for hour in (0, 1):
        world.end(name_of(hour))
        assert world.settle() == ["status"]
    world.end(name_of(2))
    assert world.settle() == [f"create {name_of(3)}", "status"]


def test_both_ends_of_the_range_belong_to_it() -> None:
    for spec, count in (({}, 4), ({"to": rfc3339(tick(3) - timedelta(seconds=1))}, 3)):
        world = BackfillWorld(**spec)
        world.settle()
        assert world.status["total"] == count


def test_the_start_and_end_of_the_schedule_do_not_count() -> None:
    world = BackfillWorld({"schedule": "0 * * * *", "startAt": stamp(), "endAt": stamp(60)})
    world.settle()
    assert world.status["total"] == 4


@pytest.mark.parametrize(
    ("start", "after"),
    [
        pytest.param(tick(1) + timedelta(minutes=20), 80, id="a start within the range"),
        pytest.param(tick(-9) + timedelta(minutes=50), 50, id="one before"),
        pytest.param(tick(99) + timedelta(minutes=20), 20, id="one after"),
        pytest.param(None, 60, id="the creation, four hours later"),
    ],
)
def test_an_interval_has_the_ticks_that_the_schedule_has(
    start: datetime | None, after: int
) -> None:
    given = {"startAt": rfc3339(start)} if start else {}
    world = BackfillWorld({"interval": "90m", **given}, maxActive=9)
    assert world.workflow is not None
    world.workflow["metadata"]["creationTimestamp"] = stamp()
    world.settle()
    minutes = range(minute_of(FIRST) + after, minute_of(tick(3)) + 1, 90)
    assert sorted(world.runs) == [f"again-{minute}" for minute in minutes]


def test_an_interval_that_has_run_runs_again_only_if_asked() -> None:
    started = {"interval": "1h", "startAt": rfc3339(FIRST + timedelta(minutes=30))}
    world = BackfillWorld(started)
    world.run_by_hand(0, "Succeeded")
    [name] = world.runs
    world.runs[name]["metadata"]["annotations"]["labfunctions.io/scheduled-at"] = started["startAt"]
    world.finish()
    half = minute_of(FIRST) + 30
    assert sorted(world.made) == [f"again-{half + 60 * n}" for n in (1, 2)]


@pytest.mark.parametrize(
    ("phases", "reprocess", "made"),
    [
        pytest.param([None, "Failed", "Succeeded"], "None", [3], id="none that has run"),
        pytest.param([None, "Failed", "Succeeded"], "Failed", [1, 3], id="those that failed"),
        pytest.param([None, "Failed", "Succeeded"], "All", [0, 1, 2, 3], id="all"),
        pytest.param(["Cancelled"], "Failed", [1, 2, 3], id="a cancelled one has not failed"),
    ],
)
@pytest.mark.parametrize("are_gone", [False, True])
def test_what_runs_again(
    phases: list[str | None], reprocess: str, made: list[int], *, are_gone: bool
) -> None:
    """Whether their Runs exist, or only the records of those that have ended."""
    world = BackfillWorld(reprocess=reprocess, maxActive=9)
    for hour, phase in enumerate(phases):
        name = world.run_by_hand(hour, phase)
        if are_gone and phase:
            del world.runs[name]
    world.settle()
    assert hours(world) == made
    assert world.status["skipped"] == 4 - len(made)


def test_the_latest_run_of_a_tick_decides() -> None:
    for phases, made in ((("Failed", "Succeeded"), []), (("Succeeded", "Failed"), [0])):
        world = BackfillWorld(reprocess="Failed", to=rfc3339(FIRST))
        world.run_by_hand(0, phases[0], "first")
        world.pass_time(60)
        world.run_by_hand(0, phases[1], "other")
        del world.runs[f"other-{minute_of(FIRST)}"]
        world.settle()
        assert hours(world) == made


@pytest.mark.parametrize(("phase", "made"), [("Succeeded", []), ("Failed", [0])])
def test_a_repeat_of_the_run_of_a_tick_decides_as_long_as_it_exists(
    phase: str, made: list[int]
) -> None:
    """What it ran, and for which tick, it has from the Run that it repeats."""
    world = BackfillWorld(reprocess="Failed", to=rfc3339(FIRST))
    world.run_by_hand(0, "Failed")
    world.pass_time(60)
    snapshot = {"workflow": "report", "scheduledAt": rfc3339(FIRST)}
    status = {"phase": phase, "snapshot": snapshot}
    world.add(make_object("Run", "repeat", {"from": {"name": "x"}}, status))
    world.settle()
    assert hours(world) == made


def test_a_run_that_was_live_when_the_past_was_read_counts_as_it_ended() -> None:
    world = BackfillWorld(reprocess="Failed", suspend=True)
    live = world.run_by_hand(3, None)
    world.read()
    world.end(live, "Failed")
    world.edit(suspend=False)
    world.finish()
    assert hours(world) == [0, 1, 2, 3]


def test_when_all_has_run_it_is_done_at_once() -> None:
    world = BackfillWorld()
    for hour in HOURS:
        world.run_by_hand(hour, "Succeeded")
    assert world.settle() == ["status"]
    assert world.condition == (
        "True",
        "Completed",
        "0 Runs succeeded; 4 ticks had run already",
    )


def test_failures_are_counted_and_the_first_ones_named() -> None:
    world = BackfillWorld(to=rfc3339(NOW), **{"from": rfc3339(NOW - timedelta(hours=6))})
    world.finish("Failed")
    assert world.status["phase"] == "Failed"
    status, reason, message = world.condition
    first = minute_of(NOW) - 360
    names = ", ".join(f"again-{first + 60 * n}" for n in range(5))
    assert (status, reason) == ("False", "RunsFailed")
    assert message == f"7 of 7 Runs failed: {names} and 2 more"
    [event] = world.events
    assert (event.type, event.reason) == ("Warning", "RunsFailed")


def test_cancelled_and_deleted_runs_are_no_success() -> None:
    world = BackfillWorld(maxActive=4)
    world.settle()
    for hour in (0, 1):
        world.end(name_of(hour))
    world.end(name_of(2), "Cancelled")
    del world.runs[name_of(3)]
    world.settle()
    assert world.condition == ("False", "Incomplete", "2 of 4 Runs were cancelled or deleted")
    assert (world.status["succeeded"], world.status["failed"]) == (2, 0)


def test_a_dry_run_only_says_what_would_be_done() -> None:
    start = NOW - timedelta(hours=29)
    world = BackfillWorld(dryRun=True, to=rfc3339(NOW), **{"from": rfc3339(start)})
    world.run_by_hand(0, "Succeeded")
    assert world.settle() == ["status"]
    assert world.condition == (
        "True",
        "DryRun",
        "would create 29 Runs; 1 ticks had run already",
    )
    plan = world.status["plan"]
    assert (plan["run"], plan["skip"]) == (29, 1)
    assert plan["first"] == [rfc3339(start + timedelta(hours=n)) for n in range(10)]
    last = [rfc3339(NOW - timedelta(hours=n)) for n in reversed(range(11)) if n != 4]
    assert plan["last"] == last


def test_a_short_dry_run_names_each_tick_once() -> None:
    world = BackfillWorld(dryRun=True)
    world.settle()
    assert world.status["plan"] == {
        "run": 4,
        "skip": 0,
        "first": [rfc3339(tick(h)) for h in HOURS],
        "last": [],
    }


def test_suspend_makes_no_more_and_resume_goes_on() -> None:
    world = BackfillWorld()
    world.settle()
    world.edit(suspend=True)
    world.end(name_of(0))
    assert world.settle() == ["status"]
    assert world.status["phase"] == "Suspended"
    assert world.status["succeeded"] == 1
    assert world.condition[1:] == ("Suspended", "suspended by spec.suspend")
    world.edit(suspend=False)
    assert world.settle() == [f"create {name_of(1)}", "status"]


def test_the_last_run_may_end_while_it_is_suspended() -> None:
    world = BackfillWorld(to=rfc3339(FIRST))
    world.settle()
    world.edit(suspend=True)
    world.end(name_of(0))
    world.settle()
    assert world.condition[:2] == ("True", "Completed")


SCHEDULED = {"projectRef": {"name": "demo"}, "notebook": "a.ipynb", "schedule": "0 * * * *"}


@pytest.mark.parametrize(
    ("workflow", "reason", "message"),
    [
        pytest.param(
            None,
            "WorkflowNotFound",
            "Workflow report does not exist in this namespace",
            id="missing",
        ),
        pytest.param(
            {**SCHEDULED, "notebook": "../a.ipynb"},
            "WorkflowInvalid",
            "Workflow report: spec.notebook: ",
            id="invalid",
        ),
        pytest.param(
            {**SCHEDULED, "schedule": "99 * * * *"},
            "WorkflowInvalid",
            "Workflow report: spec.schedule: ",
            id="with an invalid schedule",
        ),
        pytest.param(
            {**SCHEDULED, "schedule": None},
            "WorkflowInvalid",
            "Workflow report: spec.schedule: neither this nor spec.interval is given",
            id="without a schedule",
        ),
    ],
)
def test_a_workflow_without_ticks_is_waited_for(workflow: Any, reason: str, message: str) -> None:
    world = BackfillWorld()
    world.workflow = make_object("Workflow", "report", workflow) if workflow else None
    world.settle()
    assert world.condition[:2] == ("Unknown", reason)
    assert world.condition[2].startswith(message)
    assert world.status["phase"] == "Pending"
    world.workflow = make_object("Workflow", "report", SCHEDULED)
    world.finish()
    assert world.condition[0] == "True"


def test_what_lies_ahead_is_the_schedules() -> None:
    world = BackfillWorld(to=stamp(90))
    world.settle()
    assert world.condition == (
        "Unknown",
        "InvalidSpec",
        f"spec.to: {stamp(90)} lies ahead; ticks to come are the schedule's",
    )
    assert world.step().requeue_after == 90
    world.pass_time(90)
    world.settle()
    assert world.condition[1] == "Running"


UNTIL_NOW = {"from": rfc3339(tick(3)), "to": stamp()}


def decided(world: BackfillWorld, since: datetime, runs: int = 0) -> None:
    """Let the schedule have settled its ticks up to a time."""
    assert world.workflow is not None
    record = {"hash": "h", "since": rfc3339(since), "runs": runs}
    world.workflow["status"] = {"schedule": record}


def test_a_tick_that_the_schedule_has_still_to_decide_about_is_waited_for() -> None:
    """Held back by jitter, or about to be caught up with."""
    world = BackfillWorld({"schedule": "0 * * * *", "jitterSeconds": 600}, **UNTIL_NOW, maxActive=9)
    decided(world, tick(3))
    world.settle()
    message = f"the schedule has still to decide about its tick of {stamp()}"
    assert world.condition == ("Unknown", "AwaitingSchedule", message)
    world.run_by_hand(4, "Succeeded")
    world.runs.clear()  # it came and went before the Backfill looked again
    decided(world, NOW)
    world.finish()
    assert hours(world) == [3]


@pytest.mark.parametrize(
    ("spec", "runs"),
    [
        pytest.param({"suspend": True}, 0, id="suspended"),
        pytest.param({"repeat": 3}, 3, id="all Runs are made"),
        pytest.param({"endAt": rfc3339(tick(3))}, 0, id="its end has come"),
        pytest.param({"startAt": stamp(60)}, 0, id="it has not begun"),
        pytest.param({"startAt": stamp(60), "endAt": stamp()}, 0, id="it has no times"),
    ],
)
def test_what_the_schedule_will_never_run_is_not_waited_for(spec: Any, runs: int) -> None:
    world = BackfillWorld({"schedule": "0 * * * *", **spec}, **UNTIL_NOW)
    decided(world, tick(3), runs)
    world.finish()
    assert hours(world) == [3, 4]


def test_a_schedule_that_nobody_has_looked_at_counts_from_its_creation() -> None:
    world = BackfillWorld(**UNTIL_NOW)
    assert world.workflow is not None
    del world.workflow["status"]
    world.settle()
    assert world.condition[1] == "AwaitingSchedule"


def test_too_many_ticks_are_refused_with_their_number() -> None:
    world = BackfillWorld(
        {"interval": "1m", "startAt": stamp()}, **{"from": rfc3339(NOW - timedelta(days=30))}
    )
    world.settle()
    last = NOW - timedelta(days=30) + timedelta(minutes=9999)
    assert world.condition == (
        "Unknown",
        "InvalidSpec",
        "spec.from, spec.to: between them are more than 10000 ticks, which is the limit; "
        f"tick 10000 is at {rfc3339(last)}",
    )
    assert world.runs == {}


def test_ten_thousand_ticks_keep_the_status_small() -> None:
    start = NOW - timedelta(minutes=9999)
    spec = {"from": rfc3339(start), "to": rfc3339(NOW), "maxActive": 100}
    world = BackfillWorld({"interval": "1m", "startAt": stamp()}, **spec)
    world.settle()
    assert world.status["total"] == 10000
    assert len(world.live) == 100
    assert len(str(world.status)) < 5000


def test_a_range_without_ticks_is_done() -> None:
    world = BackfillWorld({"schedule": "0 0 1 1 *"})
    world.settle()
    assert world.condition == ("True", "Completed", "the range has no ticks")


def test_until_the_past_is_known_nothing_is_made() -> None:
    world = BackfillWorld()
    plan = world.decide(reading=False)
    world.execute(plan, "1")
    assert world.condition == ("Unknown", "ReadingHistory", "reading what has run already")
    assert world.runs == {}
    for words in ("it is down", "it is down for the second time"):
        world.past = Problem(reason="StoreUnavailable", message=words)
        world.settle()
        assert world.condition[1:] == ("StoreUnavailable", "it is down"), "the first words stay"
    world.past = None
    world.settle()
    assert world.condition[1] == "Running"


def test_a_name_that_is_taken_is_waited_for() -> None:
    world = BackfillWorld()
    world.add(make_object("Run", name_of(0), {"workflowRef": {"name": "other"}}))
    world.settle()
    assert world.condition[1] == "NameTaken"
    assert name_of(0) in world.condition[2]
    assert not world.made
    del world.runs[name_of(0)]
    world.settle()
    assert hours(world) == [0]


def test_the_name_of_a_workflow_is_refused() -> None:
    world = BackfillWorld()
    world.namesake = True
    world.settle()
    assert world.condition[1] == "InvalidSpec"
    assert world.condition[2].startswith("metadata.name: ")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param({"from": stamp(), "to": stamp(-1)}, "to is before from", id="reversed"),
        pytest.param({"from": "1969-12-31T23:59:59Z"}, "from is before 1970", id="too early"),
        pytest.param({"from": "yesterday"}, "spec.from", id="no time"),
        pytest.param({"maxActive": 0}, "spec.maxActive", id="none at once"),
    ],
)
def test_a_spec_that_is_refused(spec: Any, words: str) -> None:
    obj = BackfillWorld(**spec).obj
    with pytest.raises(InvalidSpec, match=words):
        parse(Backfill, obj)


def test_records_are_found_by_the_names_of_folders() -> None:
    uid, minute = "0123abcd", minute_of(FIRST)
    wanted = {f"report-{minute}-{uid}/run.json": minute, f"a-b-{minute}-{uid}/run.json": minute}
    others = [
        f"report-{minute}-{uid}/1/result.json",
        f"report-{minute + 1}-{uid}/run.json",
        f"{minute}-{uid}/run.json",
        f"report-{minute}/run.json",
        f"first-{uid}/run.json",
    ]
    assert find_records([*wanted, *others], (FIRST, tick(1))) == wanted


@pytest.mark.parametrize("record", [None, [], "x", {}, {"metadata": 1, "status": []}])
def test_a_record_may_be_anything(record: Any) -> None:
    assert read_run(record).phase is None


def test_a_status_that_others_wrote_stops_nothing() -> None:
    world = BackfillWorld()
    world.obj["status"] = {"cursor": "yesterday", "created": 7}
    world.finish()
    assert world.status["created"] == 4
