"""What must hold for every Backfill, whatever its user and its operators do."""

import contextlib
from typing import Any

from backfill_world import BackfillWorld, Stale, name_of
from hypothesis import given
from hypothesis import strategies as st
from workflow_world import Died

PHASES = ["Succeeded", "Failed", "Cancelled"]
Draw = Any


def reconcile(world: BackfillWorld, draw: Draw) -> None:
    world.step()


def die(world: BackfillWorld, draw: Draw) -> None:
    """Be killed at some write; what follows is done by another process."""
    world.lives = draw(st.integers(0, 4))
    with contextlib.suppress(Died):
        world.step()
    world.restart()


def a_second_operator(world: BackfillWorld, draw: Draw) -> None:
    """It decides, stalls while the first one and the world go on, and then writes."""
    version = world.obj["metadata"]["resourceVersion"]
    plan = world.decide()
    for _ in range(draw(st.integers(0, 3))):
        draw(st.sampled_from([reconcile, a_run_ends, time_to_live]))(world, draw)
    with contextlib.suppress(Stale):
        world.execute(plan, version)


def a_run_ends(world: BackfillWorld, draw: Draw) -> None:
    if world.live:
        world.end(draw(st.sampled_from(world.live)), draw(st.sampled_from(PHASES)))
        world.pass_time(1)


def time_to_live(world: BackfillWorld, draw: Draw) -> None:
    for name in list(world.runs):
        world.expire(name)


def edit(world: BackfillWorld, draw: Draw) -> None:
    world.edit(suspend=draw(st.booleans()), maxActive=draw(st.integers(1, 3)))


EVENTS = (
    *[reconcile] * 4,
    *[a_run_ends] * 4,
    *(die, die, a_second_operator, a_second_operator, time_to_live, time_to_live, edit),
)


@st.composite
def histories(draw: Draw) -> BackfillWorld:
    """A Backfill that has lived through anything."""
    spec = {
        "maxActive": draw(st.integers(1, 3)),
        "reprocess": draw(st.sampled_from(["None", "Failed", "All"])),
    }
    world = BackfillWorld(**spec)
    for hour in draw(st.sets(st.integers(0, 3))):
        name = world.run_by_hand(hour, draw(st.sampled_from(PHASES)))
        if draw(st.booleans()):
            del world.runs[name]
    for _ in range(draw(st.integers(0, 16))):
        draw(st.sampled_from(EVENTS))(world, draw)
    return world


def wanted(world: BackfillWorld) -> list[str]:
    """The Runs that it is to make, by what the schedule's own Runs have come to."""
    reprocess = world.obj["spec"]["reprocess"]
    names = []
    for hour in range(4):
        known = [
            record["status"]["phase"]
            for path, record in world.records.items()
            if path.startswith(name_of(hour).replace("again", "report"))
        ]
        if not known or reprocess == "All" or (reprocess == "Failed" and known == ["Failed"]):
            names.append(name_of(hour))
    return names


@given(world=histories(), phase=st.sampled_from(PHASES))
def test_each_tick_gets_one_run_in_the_end(world: BackfillWorld, phase: str) -> None:
    world.edit(suspend=False)
    world.finish(phase)
    assert dict(world.made) == dict.fromkeys(wanted(world), 1)


@given(world=histories(), phase=st.sampled_from(PHASES))
def test_each_run_is_counted_once(world: BackfillWorld, phase: str) -> None:
    world.edit(suspend=False)
    world.finish(phase)
    status, made = world.status, len(world.made)
    assert (status["created"], status["skipped"], status["total"]) == (made, 4 - made, 4)
    assert status["succeeded"] == world.ended["Succeeded"]
    assert status["failed"] == world.ended["Failed"]
    assert (world.condition[0] == "True") == (world.ended["Succeeded"] == made)


@given(world=histories())
def test_they_are_made_oldest_first(world: BackfillWorld) -> None:
    world.settle()
    created = [w for w in world.writes if w.startswith("create")]
    assert created == sorted(created)


@given(world=histories())
def test_never_are_more_live_than_allowed(world: BackfillWorld) -> None:
    before = len(world.live)
    world.edit(suspend=False)
    world.settle()
    assert len(world.live) <= max(before, world.obj["spec"]["maxActive"])
    assert [ref["name"] for ref in world.status["active"]] == world.live


@given(world=histories())
def test_a_settled_backfill_writes_nothing(world: BackfillWorld) -> None:
    world.settle()
    world.restart()
    assert world.settle() == []


@given(world=histories())
def test_a_suspended_one_makes_nothing(world: BackfillWorld) -> None:
    world.edit(suspend=True)
    before = dict(world.made)
    for name in world.live:
        world.end(name)
    world.settle()
    assert dict(world.made) == before


@given(world=histories())
def test_each_change_costs_one_status(world: BackfillWorld) -> None:
    """One for each Run that ends or batch that is made, and one for what was edited before."""
    world.edit(suspend=False)
    world.settle()
    world.writes.clear()
    ends = 0
    while "completionTime" not in world.status:
        world.end(world.live[0])
        ends += 1
        world.settle()
    assert world.writes.count("status") == ends
