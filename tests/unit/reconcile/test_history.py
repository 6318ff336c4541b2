"""Which Runs of a schedule go, and which stay."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from objects import NOW, make_object
from test_scheduling_properties import histories
from workflow_world import WorkflowWorld, minute, scheduled

from labfunctions_operator.reconcile.workflow import DELETE_BATCH

S, F, C = "Succeeded", "Failed", "Cancelled"


def with_ended(*phases: str, **spec: Any) -> WorkflowWorld:
    """A Run for each minute from 12:00 on, ended in turn, and all of them counted."""
    limits = {"successfulRunsHistoryLimit": 10000, "failedRunsHistoryLimit": 10000}
    world = scheduled(**limits)
    world.pass_time(30)
    for phase in phases:
        world.settle()
        world.end(world.live[0], phase)
        world.settle()
        world.pass_time(60)
    world.edit(suspend=True)
    world.settle()
    world.edit(**spec)
    world.writes.clear()
    return world


def left(world: WorkflowWorld) -> list[int]:
    """The minutes after 12:00 of the Runs that exist."""
    first = int(NOW.timestamp()) // 60
    return sorted(int(name.rsplit("-", 1)[1]) - first for name in world.runs)


@pytest.mark.parametrize(
    ("phases", "limits", "kept"),
    [
        pytest.param([S] * 5, (3, 1), [2, 3, 4], id="the newest stay"),
        pytest.param([F, F, S, S], (3, 1), [1, 2, 3], id="each kind has its limit"),
        pytest.param([C, F, C], (3, 2), [1, 2], id="a cancelled one counts as one that failed"),
        pytest.param([S, F, S], (0, 0), [], id="none"),
        pytest.param([S, F, S], (0, 1), [1], id="only failures"),
        pytest.param([S, F], (3, 1), [0, 1], id="within the limits"),
    ],
)
def test_limits(phases: list[str], limits: tuple[int, int], kept: list[int]) -> None:
    world = with_ended(*phases)
    world.edit(successfulRunsHistoryLimit=limits[0], failedRunsHistoryLimit=limits[1])
    before = (world.status["succeeded"], world.status["failed"])
    writes = world.settle()
    assert left(world) == kept
    gone = len(phases) - len(kept)
    assert [w for w in writes if w.startswith("delete")] == writes[:gone]
    assert (world.status["succeeded"], world.status["failed"]) == before
    assert world.settle() == []


def test_by_default_three_that_succeeded_and_one_that_failed_stay() -> None:
    world = with_ended(*[S, F] * 5, successfulRunsHistoryLimit=None, failedRunsHistoryLimit=None)
    world.settle()
    assert left(world) == [4, 6, 8, 9]


def test_a_lower_limit_applies_at_once() -> None:
    world = with_ended(S, S, S, successfulRunsHistoryLimit=3)
    world.settle()
    assert left(world) == [0, 1, 2]
    world.edit(successfulRunsHistoryLimit=1)
    world.settle()
    assert left(world) == [2]


def test_without_a_record_it_stays_until_there_is_one() -> None:
    world = with_ended(S, S, S, successfulRunsHistoryLimit=1)
    oldest = minute(NOW)
    world.record(oldest, False)
    world.settle()
    assert left(world) == [0, 2]
    world.record(oldest)
    assert world.settle() == [f"delete {oldest}"]


def test_a_live_one_stays_and_takes_no_place() -> None:
    world = scheduled(successfulRunsHistoryLimit=0)
    world.pass_time(30)
    world.settle()
    world.pass_time(60)
    world.settle()
    assert left(world) == [0, 1]
    world.end(minute(NOW))
    world.settle()
    assert left(world) == [1]


def test_one_that_is_being_deleted_is_left_alone() -> None:
    world = with_ended(S, successfulRunsHistoryLimit=0)
    world.runs[minute(NOW)]["metadata"]["deletionTimestamp"] = "2026-01-01T12:05:00Z"
    assert world.settle() == ["status"]


def test_it_is_counted_before_it_goes() -> None:
    world = scheduled(successfulRunsHistoryLimit=0)
    world.pass_time(30)
    world.settle()
    world.end(minute(NOW))
    assert world.settle() == ["status", f"delete {minute(NOW)}"]
    assert world.status["succeeded"] == 1


def test_runs_that_a_user_made_stay() -> None:
    world = with_ended(S, successfulRunsHistoryLimit=0)
    ended = world.runs[minute(NOW)]["status"]
    own = make_object("Run", "mine", {"workflowRef": {"name": "report"}}, ended)
    own["metadata"]["annotations"] = {"labfunctions.io/scheduled-at": "2026-01-01T12:00:00Z"}
    world.runs["mine"] = own
    world.settle()
    assert list(world.runs) == ["mine"]


def test_many_go_in_batches_and_a_tick_does_not_wait_for_them() -> None:
    world = scheduled(successfulRunsHistoryLimit=10000, catchUp={"policy": "All", "max": 100})
    world.pass_time(60 * 99 + 30)
    world.settle()
    for name in list(world.live):
        world.end(name)
    world.settle()
    world.edit(successfulRunsHistoryLimit=10)
    world.pass_time(60)
    plan = world.step()
    assert (len(plan.apply), plan.delete, plan.requeue_after) == (1, (), 0.0)
    plan = world.step()
    assert (len(plan.delete), plan.requeue_after) == (DELETE_BATCH, 0.0)
    plan = world.step()
    assert len(plan.delete) == 100 - 10 - DELETE_BATCH
    assert plan.requeue_after
    assert world.settle() == []


@given(
    world=histories(),
    limits=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    unrecorded=st.integers(0, 3),
)
def test_exactly_the_newest_stay(
    world: WorkflowWorld, limits: tuple[int, int], unrecorded: int
) -> None:
    world.pass_time(1200)
    world.edit(suspend=True)
    world.settle()
    ended = [name for name in world.runs if name not in world.live]
    for name in ended[:unrecorded]:
        world.record(name, False)
    world.edit(successfulRunsHistoryLimit=limits[0], failedRunsHistoryLimit=limits[1])
    counters = (world.status["succeeded"], world.status["failed"], world.status["missed"])
    wanted = {*world.live, *ended[:unrecorded]}
    for limit, phases in zip(limits, ([S], [F, C]), strict=True):
        of_kind = [n for n in ended if world.runs[n]["status"]["phase"] in phases]
        of_kind.sort(key=lambda name: int(name.rsplit("-", 1)[1]))
        wanted |= set(of_kind[max(0, len(of_kind) - limit) :])
    world.settle()
    assert set(world.runs) == wanted
    assert (world.status["succeeded"], world.status["failed"], world.status["missed"]) == counters


@given(world=histories())
def test_what_goes_has_ended_and_is_recorded_and_counted(world: WorkflowWorld) -> None:
    counted = (world.status.get("succeeded") or 0, world.status.get("failed") or 0)
    for _ in range(3):
        plan = world.decide()
        for ref in plan.delete:
            assert ref.name not in world.live
            assert ref.uid == world.runs[ref.name]["metadata"]["uid"]
            assert {"name": ref.name} not in world.status["active"]
        world.execute(plan)
        world.pass_time(timedelta(minutes=1).total_seconds())
    assert (world.status["succeeded"], world.status["failed"]) >= counted
