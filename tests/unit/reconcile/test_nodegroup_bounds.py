"""The bounds of a pool elsewhere: whose they are, and what becomes of a raise."""

import json
from dataclasses import replace
from typing import Any

import pytest
from crd_schema import status_errors
from nodegroup_world import CLUSTER_API, REMOTE, REQUESTS, SETTINGS, NodeGroupWorld
from objects import NOW, at, make_settings, stamp

from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.demand import NodeGroupObserved
from labfunctions_operator.reconcile.invalid import readable_group, refuse
from labfunctions_operator.reconcile.nodegroup import (
    NodeGroupPlan,
    reconcile_node_group,
    refuse_node_group,
)
from labfunctions_operator.reconcile.nodes import GroupSize, PoolView
from labfunctions_operator.reconcile.plan import Problem

HOUR = 3600
OTHER = {"awsAutoScalingGroup": {"name": "other", "region": "eu-west-1"}}
EKS = {"eksNodegroup": {"cluster": "gpu", "name": "eu-west-1", "region": "eu-west-1"}}


@pytest.mark.parametrize("provider", [OTHER, EKS, CLUSTER_API], ids=["asg", "eks", "clusterApi"])
def test_another_pool_is_taken_over_as_it_is(provider: Any) -> None:
    world = NodeGroupWorld(provider=REMOTE)
    world.settle()
    world.edit(provider=provider)
    world.pool, world.is_known = GroupSize(min=0, max=10, desired=0), False
    world.settle()
    assert "wanted" not in world.status
    assert "written" not in world.status
    world.is_known = True
    world.settle()
    assert world.condition("Drifted")[0] == "False"
    assert (world.pool.min, world.pool.max) == (0, 4)


@pytest.mark.parametrize("drifts", ["before the edit", "after the edit"])
def test_an_edit_while_the_pool_is_unknown_takes_it_over_once_it_is_known(drifts: str) -> None:
    theirs = GroupSize(min=0, max=9, desired=0)
    world = NodeGroupWorld(provider=REMOTE)
    world.settle()
    if drifts == "before the edit":
        world.pool = theirs
        world.settle()
        assert world.condition("Drifted")[0] == "True"
    world.is_known = False
    world.edit(max=5)
    world.settle()
    world.pool, world.is_known = theirs, True
    world.settle()
    assert world.condition("Drifted")[0] == "False"
    assert (world.pool.min, world.pool.max) == (0, 5)


@pytest.mark.parametrize("ends_with", [1, 0], ids=["it succeeds", "it fails"])
def test_what_a_pool_shows_while_it_is_changing_is_not_decided_on(ends_with: int) -> None:
    world = NodeGroupWorld(provider=EKS)
    world.settle()
    before = world.pool
    assert before is not None
    world.waiting = {"run": dict(REQUESTS)}
    world.step()
    world.pool = replace(before, is_changing=True)
    world.waiting["another"] = dict(REQUESTS)
    world.settle()
    assert world.pool == replace(before, is_changing=True)
    assert (world.wanted["min"], world.status["min"]) == (1, 1), "what was begun is on record"
    assert world.condition("Ready")[0] == "True"
    world.pool = replace(before, min=ends_with)
    world.settle()
    assert world.condition("Drifted")[0] == "False"
    world.wait(60)
    assert world.pool.min == 2


# A group that only observes.


def test_who_only_observes_has_written_nothing_and_says_what_the_pool_has() -> None:
    world = NodeGroupWorld(provider=REMOTE, observeOnly=True, min=1)
    for low, high in ((3, 20), (5, 20)):
        world.pool = GroupSize(min=low, max=high, desired=low)
        world.settle()
        assert world.condition("Drifted")[0] == "False"
        assert world.condition("Ready")[:2] == ("True", "ObserveOnly")
        assert (world.status["min"], world.status["max"]) == (low, high)
    assert "wanted" not in world.status
    assert "written" not in world.status


def raised() -> NodeGroupWorld:
    world = NodeGroupWorld(provider=REMOTE)
    world.waiting = {"run": dict(REQUESTS)}
    world.settle()
    assert world.pool is not None
    assert (world.pool.min, world.pool.max) == (1, 4)
    return world


def test_a_raise_ends_at_its_time_though_the_group_only_observes_by_then() -> None:
    world = raised()
    world.edit(observeOnly=True, max=2)
    assert world.settle() == ["status"]
    assert world.status["wanted"]["until"] == stamp(HOUR)
    assert world.decide().plan.requeue_after == HOUR
    assert world.wait(HOUR - 1) == []
    assert "pool 0..4" in world.wait(1)
    assert "wanted" not in world.status
    assert world.wait(HOUR) == []


def test_a_raise_that_somebody_took_over_is_not_undone() -> None:
    world = raised()
    world.edit(observeOnly=True)
    world.settle()
    world.pool = GroupSize(min=2, max=4, desired=2)
    world.settle()
    world.wait(2 * HOUR)
    assert world.pool == GroupSize(min=2, max=4, desired=2)


def test_a_minimum_of_the_groups_own_is_no_raise() -> None:
    world = NodeGroupWorld(provider=REMOTE, min=2)
    world.settle()
    world.edit(observeOnly=True, min=0)
    world.settle()
    world.wait(2 * HOUR)
    assert world.pool is not None
    assert world.pool.min == 2


def test_a_raise_that_is_being_undone_is_undone_in_the_end() -> None:
    world = raised()
    world.edit(observeOnly=True)
    world.settle()
    world.seconds = HOUR
    shown = world.pool
    world.step()
    world.pool = shown  # the write was lost
    assert world.settle() == ["pool 0..4", "status"]


def test_drift_is_said_with_the_bounds_that_the_pool_has() -> None:
    world = NodeGroupWorld(provider=REMOTE)
    world.settle()
    world.pool = GroupSize(min=1, max=9, desired=1)
    world.settle()
    assert (world.status["min"], world.status["max"]) == (1, 9)


def test_what_was_raised_stays_on_record_while_nobody_may_undo_it() -> None:
    world = raised()
    before = world.status
    off = reconcile_node_group(world.group, NodeGroupObserved(), make_settings(), NOW).plan.status
    assert off is not None
    assert (off["wanted"], off["written"]) == (before["wanted"], before["written"])
    world.obj = {**world.obj, "status": off}
    world.waiting = {}
    world.settle()
    assert world.pool is not None
    assert (world.pool.min, world.condition("Drifted")[0]) == (0, "False")


# A spec that cannot be worked with.

BAD_WARM = [{"schedule": "0 9 * * *", "duration": "0s", "min": 1}]


def refused(world: NodeGroupWorld) -> NodeGroupPlan:
    """What is done for a group that is refused; its status is written."""
    group = readable_group(world.obj)
    assert group is not None
    status = refuse(world.obj, reason="InvalidSpec", message="x", now=NOW, final=True)
    pool = world.observed().pool
    assert pool is not None
    decided = refuse_node_group(group, pool, status, at(world.seconds))
    assert decided.plan.status is not None
    assert status_errors("NodeGroup", decided.plan.status) == []
    world.obj = {**world.obj, "status": json.loads(json.dumps(decided.plan.status))}
    return decided


def test_a_raise_ends_at_its_time_though_the_spec_cannot_be_worked_with() -> None:
    world = raised()
    world.edit(warm=BAD_WARM)
    with pytest.raises(InvalidSpec):
        assert world.group
    decided = refused(world)
    assert (decided.bounds, decided.plan.requeue_after) == (None, HOUR)
    assert world.condition("Ready")[:2] == ("False", "InvalidSpec")
    world.seconds = HOUR
    bounds = refused(world).bounds
    assert bounds is not None
    assert (bounds.min, bounds.max, bounds.raised_until) == (0, 4, None)
    assert bounds.template is not None
    assert bounds.template.labels == {"pool": "gpu"}
    world.pool = GroupSize(min=0, max=4, desired=1)
    assert refused(world).bounds is None
    assert "wanted" not in world.status


@pytest.mark.parametrize(
    ("spec", "is_readable"),
    [
        ({"warm": BAD_WARM, "idle": {"after": "0s"}}, True),
        ({"warm": [{**BAD_WARM[0], "duration": "1h", "min": 9}]}, True),
        ({"labels": {}}, False),
    ],
    ids=["two fields", "together", "labels"],
)
def test_a_group_is_read_as_far_as_it_can_be(spec: Any, is_readable: bool) -> None:
    world = raised()
    world.edit(**spec)
    group = readable_group(world.obj)
    assert (group is not None) == is_readable
    if group:
        assert group.spec.observe_only
        assert group.spec.idle.after == "10m"
        assert group.status.wanted is not None


# A restart: nothing was read yet.


def fine(world: NodeGroupWorld) -> None:
    assert world.condition("Ready")[:2] == ("True", "Ready")


def observing(world: NodeGroupWorld) -> None:
    world.edit(observeOnly=True)


def drifted(world: NodeGroupWorld) -> None:
    world.pool = GroupSize(min=1, max=9, desired=1)


@pytest.mark.parametrize("state", [fine, observing, drifted])
def test_what_was_said_of_a_pool_holds_until_it_is_read(state: Any) -> None:
    world = NodeGroupWorld(provider=REMOTE, min=1)
    world.settle()
    state(world)
    world.settle()
    world.is_known = False
    assert world.settle() == []
    world.is_known = True
    assert world.settle() == []


def test_a_failure_that_was_said_holds_until_the_pool_is_read() -> None:
    world = NodeGroupWorld(provider=REMOTE)
    world.settle()
    problem = Problem(reason="Forbidden", message="no rights")
    for view in (PoolView(problem=problem), PoolView()):
        seen = replace(world.observed(), pool=view)
        status = reconcile_node_group(world.group, seen, SETTINGS, at(0)).plan.status
        world.obj = {**world.obj, "status": json.loads(json.dumps(status))}
        assert world.condition("Ready")[:2] == ("False", "Forbidden")
        assert world.condition("ScalingActive") == ("False", "Forbidden", "no rights")


def test_of_another_pool_nothing_is_known() -> None:
    world = NodeGroupWorld(provider=REMOTE)
    world.settle()
    world.edit(provider=OTHER)
    world.is_known = False
    world.settle()
    assert world.condition("Ready")[:2] == ("Unknown", "Reading")
