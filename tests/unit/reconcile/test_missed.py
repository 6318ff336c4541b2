"""Who is told of ticks that got no Run, and what the Workflow's status says of it."""

import json
from datetime import timedelta
from typing import Any

import pytest
from cron_world import CronWorld
from hypothesis import given, settings
from hypothesis import strategies as st
from objects import NOW, stamp
from run_world import ready_project
from workflow_world import Died, WorkflowWorld, minute, scheduled

from labfunctions_operator.api.notification import MissedDelivery
from labfunctions_operator.reconcile.missed import LIMIT, mark, pending
from labfunctions_operator.reconcile.notify import Outcome

SENT, GONE = Outcome(state="Sent"), Outcome(state="Failed", message="connection refused")


def hook(name: str) -> dict[str, Any]:
    return {"webhook": {"url": f"https://example.com/{name}", "format": "Json"}}


def tells(*names: str, **words: Any) -> dict[str, Any]:
    return {"notifications": {"onMissed": [hook(name) for name in names], **words}}


def forbidding(**spec: Any) -> WorkflowWorld:
    """A Workflow that runs each minute if it is not running, and that runs since 12:00."""
    world = scheduled(**{"concurrencyPolicy": "Forbid", **tells("a"), **spec})
    world.pass_time(30)
    world.settle()
    assert world.live == [minute(NOW)]
    return world


def tick(world: WorkflowWorld, minutes: int = 1) -> WorkflowWorld:
    for _ in range(minutes):
        world.pass_time(60)
        world.settle()
    return world


def deliveries(world: WorkflowWorld) -> list[MissedDelivery]:
    return world.workflow.status.notifications or []


def brief(world: WorkflowWorld) -> list[tuple[str, str, int]]:
    return [
        (str(d.target.webhook and d.target.webhook.url)[20:], d.state, d.count)
        for d in deliveries(world)
    ]


def report(world: WorkflowWorld, outcome: Outcome, *targets: str) -> None:
    """Say what became of pending messages, to some targets or to all."""
    world.outcomes = {
        name: outcome
        for name, d in pending(world.workflow).items()
        if not targets or (d.target.webhook and str(d.target.webhook.url)[20:] in targets)
    }
    world.settle()
    world.outcomes = {}


def notified(world: WorkflowWorld) -> tuple[str, str, str]:
    return world.condition("Notified")


def test_a_tick_without_a_run_and_its_messages_are_one_write() -> None:
    world = forbidding(**tells("a", "b"))
    world.pass_time(60)
    assert world.settle() == ["status"]
    assert [e.reason for e in world.events] == ["RunAlreadyActive"]
    assert brief(world) == [("a", "Pending", 1), ("b", "Pending", 1)]
    [first, _] = deliveries(world)
    assert (first.due, first.reason) == (stamp(60), "RunAlreadyActive")
    assert first.cause.startswith(f"Run {minute(NOW)} is live and spec.concurrencyPolicy")
    assert notified(world) == ("Unknown", "Pending", "0 of 2 messages sent")
    report(world, SENT)
    assert world.writes[-1] == "status"
    assert [(d.state, d.time) for d in deliveries(world)] == [("Sent", stamp(60))] * 2
    assert notified(world) == ("True", "Sent", "2 of 2 messages sent")
    assert world.settle() == []


def test_those_that_follow_in_turn_are_not_told() -> None:
    world = tick(forbidding())
    report(world, SENT)
    tick(world, 60)
    assert world.status["missed"] == 61
    assert brief(world) == [("a", "Sent", 1)]
    assert len(world.events) == 1


@pytest.mark.parametrize("spec", [{}, {"scheduler": "Operator", "timeZone": "Asia/Tokyo"}])
def test_after_downtime_all_ticks_are_one_message(spec: Any) -> None:
    world = scheduled(startingDeadlineSeconds=20, **tells("a"), **spec)
    world.pass_time(30 + 5 * 60 + 30)
    world.settle()
    [told] = deliveries(world)
    assert (told.due, told.count, told.reason) == (stamp(300), 6, "MissedSchedule")
    assert told.cause == "more than spec.startingDeadlineSeconds, 20, had passed"


def test_a_deadline_is_blamed_only_for_ticks_beyond_it() -> None:
    world = scheduled(startingDeadlineSeconds=600, **tells("a"))
    world.pass_time(30 + 5 * 60 + 30)
    world.settle()
    [told] = deliveries(world)
    assert (told.due, told.count, told.cause) == (stamp(240), 5, "the scheduler was away or late")


def test_a_deadline_that_no_tick_meets_is_told_once() -> None:
    world = scheduled(startingDeadlineSeconds=0, **tells("a"))
    for _ in range(10):
        world.pass_time(61)
        world.settle()
    assert world.status["missed"] > 5
    assert [e.reason for e in world.events] == ["MissedSchedule"]
    assert brief(world)[0][1:] == ("Pending", 1)


def test_a_cron_jobs_missed_ticks_are_told() -> None:
    world = CronWorld(now=NOW - timedelta(seconds=30), **tells("a"))
    world.settle()
    world.pass_time(30)
    world.fire()
    world.settle()
    assert deliveries(world) == []
    world.pass_time(5 * 60)  # nobody was there to make Jobs
    world.fire()
    world.settle()
    [told] = deliveries(world)
    assert (told.count, told.due) == (4, stamp(240))


def test_the_projects_words_count_where_the_workflow_has_none() -> None:
    targets = [{"name": "chat", **hook("chat")}]
    words = {"notifications": {"onMissed": ["chat", {"name": "lost"}, hook("chat")]}}
    project = ready_project(notificationTargets=targets, defaults=words)
    world = forbidding(notifications=None)
    world.project = project
    tick(world)
    [chat, lost] = deliveries(world)
    assert chat.target.wire() == {"name": "chat", **hook("chat")}
    assert lost.target.wire() == {"name": "lost"}
    silent = forbidding(notifications={})
    silent.project = project
    assert deliveries(tick(silent)) == []


def test_a_dead_target_is_said_and_warned_of() -> None:
    world = tick(forbidding(**tells("a", "dead")))
    report(world, SENT, "a")
    assert notified(world)[:2] == ("Unknown", "Pending")
    report(world, GONE)
    why = "webhook: connection refused"
    assert notified(world) == (
        "False",
        "NotificationFailed",
        f"1 of 2 messages sent; {why}",
    )
    last = world.events[-1]
    assert (last.type, last.reason, last.message) == ("Warning", "NotificationFailed", why)
    count = len(world.events)
    tick(world, 3)
    assert len(world.events) == count


def skip_and_run(world: WorkflowWorld) -> None:
    """A tick without a Run, then one with its own, which lives on."""
    tick(world)
    world.end(world.live[0])
    tick(world)


def test_what_is_not_sent_yet_takes_in_what_follows() -> None:
    world = forbidding(**tells("a", "dead"))
    tick(world)
    report(world, SENT, "a")
    old = mark(deliveries(world)[1])
    skip_and_run(world)
    tick(world)
    assert brief(world) == [("a", "Pending", 1), ("dead", "Pending", 2)]
    [fresh, dead] = deliveries(world)
    assert (dead.due, dead.not_before) == (fresh.due, None)
    world.outcomes = {old: SENT}
    world.settle()
    assert brief(world)[1] == ("dead", "Pending", 2), "that was about the first tick alone"


def test_a_schedule_that_skips_now_and_then_does_not_tell_each_time() -> None:
    world = forbidding()
    sent = []
    for _ in range(30):
        skip_and_run(world)
        for d in deliveries(world):
            if d.state == "Pending" and (d.not_before or "") <= stamp_of(world):
                sent.append(d.count)
                report(world, SENT)
    assert sum(sent) >= 25
    assert len(sent) <= 7, "an hour, ten minutes apart"


def stamp_of(world: WorkflowWorld) -> str:
    return stamp((world.now - NOW).total_seconds())


def test_group_seconds_hold_the_first_one_back() -> None:
    world = tick(forbidding(**tells("a", groupSeconds=600)))
    [first] = deliveries(world)
    assert first.not_before == stamp(660)
    skip_and_run(world)
    tick(world)
    [both] = deliveries(world)
    assert (both.count, both.not_before) == (2, stamp(660))


def test_a_target_taken_out_of_the_spec_is_still_owed_its_message() -> None:
    world = tick(forbidding(**tells("old")))
    world.edit(**tells("new"))
    skip_and_run(world)
    tick(world)
    assert brief(world) == [("old", "Pending", 1), ("new", "Pending", 1)]
    report(world, SENT)
    world.edit(**tells("newest"))
    skip_and_run(world)
    tick(world)
    assert brief(world) == [("newest", "Pending", 1)]


def test_the_status_stays_small_whatever_happens() -> None:
    world = forbidding()
    for number in range(12):
        world.edit(**tells(*(f"{number}-{n}" for n in range(10))))
        skip_and_run(world)
    assert len(deliveries(world)) <= LIMIT
    assert brief(world)[-1][0].startswith("11-")
    assert len(json.dumps(world.status)) < 10_000


@pytest.mark.parametrize("lives", range(4))
def test_whoever_dies_tells_at_least_once(lives: int) -> None:
    world = forbidding()
    world.lives = lives
    world.pass_time(60)
    try:
        world.settle()
        report(world, SENT)
    except Died:
        world.outcomes = {}
        world.settle()
    assert [d.count for d in deliveries(world)] == [1]
    assert len(world.events) == 1


STEPS = st.lists(st.sampled_from(["tick", "end", "sent", "gone", "edit", "suspend"]), max_size=12)


@settings(max_examples=25)
@given(steps=STEPS, group=st.sampled_from([0, 300]))
def test_each_told_skip_is_pending_sent_or_given_up(steps: list[str], group: int) -> None:
    world = forbidding(**tells("a", groupSeconds=group))
    told = 0
    for number, step in enumerate(steps):
        if step == "tick":
            tick(world)
        elif step == "end" and world.live:
            world.end(world.live[0])
        elif step in ("sent", "gone"):
            told += sum(d.count for d in pending(world.workflow).values())
            report(world, SENT if step == "sent" else GONE)
        elif step == "edit":
            world.edit(parameters={"n": number})
        elif step == "suspend":
            world.edit(suspend=not world.spec.get("suspend"))
        world.settle()
        assert len(deliveries(world)) <= 1
        assert world.settle() == []
    left = sum(d.count for d in pending(world.workflow).values())
    skips = [e for e in world.events if e.reason != "NotificationFailed"]
    assert told + left >= len(skips)
    assert told + left <= (world.status.get("missed") or 0)
