"""What must hold for every schedule, whatever its user, its clock and its operators do."""

import contextlib
import random
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from workflow_world import MINUTELY, Died, WorkflowWorld

SPECS: list[dict[str, Any]] = [
    {"schedule": MINUTELY},
    {"schedule": "*/5 * * * *", "jitterSeconds": 120},
    {"schedule": "30 2 * * *", "timeZone": "America/New_York"},
    {"interval": "90s"},
    {"interval": "1h", "startAt": "2026-01-01T12:10:00Z"},
    {"schedule": MINUTELY, "repeat": 3},
    {"schedule": MINUTELY, "endAt": "2026-01-01T12:05:00Z"},
    {"schedule": "99 * * * *"},
]
POLICIES = st.fixed_dictionaries(
    {
        "concurrencyPolicy": st.sampled_from(["Allow", "Forbid", "Replace", "Queue"]),
        "catchUp": st.fixed_dictionaries(
            {"policy": st.sampled_from(["None", "Latest", "All"]), "max": st.integers(1, 5)}
        ),
    },
    optional={"startingDeadlineSeconds": st.sampled_from([0, 10, 600])},
)
Draw = Any


def reconcile(world: WorkflowWorld, draw: Draw) -> None:
    world.step()


def die(world: WorkflowWorld, draw: Draw) -> None:
    """Be killed at some write; what follows is done by another operator."""
    world.lives = draw(st.integers(0, 4))
    with contextlib.suppress(Died):
        world.step()
    world.lives = None


def a_second_operator(world: WorkflowWorld, draw: Draw) -> None:
    """Two decide on the same state; the status of the second is refused, as it is guarded."""
    plan = world.decide()
    world.pass_time(draw(st.sampled_from([0, 1, 61])))
    world.step()
    for manifest in plan.apply:
        world._create(manifest)
    world.step()


def time_passes(world: WorkflowWorld, draw: Draw) -> None:
    world.pass_time(draw(st.sampled_from([1, 20, 60, 61, 600, 86400])))


def clock_steps_back(world: WorkflowWorld, draw: Draw) -> None:
    world.pass_time(-draw(st.sampled_from([1, 59, 600])))


def a_run_ends(world: WorkflowWorld, draw: Draw) -> None:
    if world.live:
        name = draw(st.sampled_from(world.live))
        world.end(name, draw(st.sampled_from(["Succeeded", "Failed", "Cancelled"])))


def history(world: WorkflowWorld, draw: Draw) -> None:
    for name in list(world.runs):
        world.forget(name)


def edit(world: WorkflowWorld, draw: Draw) -> None:
    empty = {"schedule": None, "interval": None, "startAt": None, "endAt": None, "repeat": None}
    world.edit(**{**empty, "timeZone": None, **draw(st.sampled_from(SPECS))})


def suspend(world: WorkflowWorld, draw: Draw) -> None:
    world.edit(suspend=draw(st.booleans()))


def other_edit(world: WorkflowWorld, draw: Draw) -> None:
    world.edit(**draw(POLICIES))


EVENTS = (
    *[reconcile] * 6,
    *[time_passes] * 6,
    *(die, die, a_second_operator, clock_steps_back, a_run_ends, a_run_ends, history),
    *(edit, suspend, other_edit),
)


@st.composite
def histories(draw: Draw) -> WorkflowWorld:
    """A schedule that has lived through anything."""
    world = WorkflowWorld(**draw(st.sampled_from(SPECS)), **draw(POLICIES))
    for _ in range(draw(st.integers(0, 30))):
        draw(st.sampled_from(EVENTS))(world, draw)
    return world


@given(world=histories())
def test_no_tick_has_two_runs(world: WorkflowWorld) -> None:
    world.settle()
    assert set(world.made.values()) <= {1}


@given(world=histories())
def test_each_run_is_counted_once(world: WorkflowWorld) -> None:
    # A clock that stepped back shows Runs of ticks ahead; time brings them in.
    world.pass_time(1200)
    world.settle()
    status = world.status
    assert (status["succeeded"], status["failed"]) == (
        world.ended["Succeeded"],
        world.ended["Failed"],
    )
    assert sorted(ref["name"] for ref in status["active"]) == sorted(world.live)
    assert status["schedule"]["runs"] == len(world.made)


@given(world=histories())
def test_a_settled_schedule_writes_nothing(world: WorkflowWorld) -> None:
    world.settle()
    world.writes.clear()
    assert world.settle() == []


@given(world=histories(), seed=st.integers(0, 2**16))
def test_the_order_in_which_runs_are_seen_does_not_matter(world: WorkflowWorld, seed: int) -> None:
    plan = world.decide()
    runs = list(world.runs.items())
    random.Random(seed).shuffle(runs)
    world.runs = dict(runs)
    assert world.decide() == plan


@given(world=histories(), lives=st.integers(0, 6), seconds=st.sampled_from([30, 61, 1000]))
def test_killed_at_any_write_it_comes_to_the_same(
    world: WorkflowWorld, lives: int, seconds: int
) -> None:
    world.pass_time(seconds)
    twin = WorkflowWorld()
    for name in ("obj", "runs", "made", "now", "spec", "edited"):
        value = getattr(world, name)
        setattr(twin, name, value.copy() if hasattr(value, "copy") else value)
    twin.runs = {n: {**r, "spec": dict(r["spec"])} for n, r in world.runs.items()}
    twin.lives = lives
    with contextlib.suppress(Died):
        twin.step()
    twin.lives = None
    for each in (world, twin):
        each.settle()
    assert twin.status == world.status
    assert twin.made == world.made


@given(world=histories())
def test_a_healthy_schedule_goes_on(world: WorkflowWorld) -> None:
    """Whatever happened: the next tick is run, or the status says why none is."""
    world.pass_time(1200)
    world.settle()
    for name in world.live:
        world.end(name)
    world.settle()
    before = len(world.made)
    plan = world.decide()
    status, reason, _ = world.condition("Scheduled")
    if plan.requeue_after is None:
        assert status == "False"
        assert reason in {"Ended", "Suspended", "InvalidSpec"}
        return
    world.now += timedelta(seconds=plan.requeue_after)
    world.settle()
    assert len(world.made) == before + 1
