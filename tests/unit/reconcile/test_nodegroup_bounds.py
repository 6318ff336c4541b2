"""The bounds of a pool elsewhere: whose they are, and what becomes of a raise."""

from typing import Any

import pytest
from nodegroup_world import CLUSTER_API, REMOTE, NodeGroupWorld

from labfunctions_operator.reconcile.nodes import GroupSize

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
