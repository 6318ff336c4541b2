"""What a group without nodes remembers of them, and what its spec says of them."""

from typing import Any

import pytest
from nodegroup_world import CLUSTER_API, REMOTE, REQUESTS, NodeGroupWorld

from labfunctions_operator.reconcile.offers import JOINING

HOUR = 3600
GPU = "nvidia.com/gpu"


def at_zero(**spec: Any) -> NodeGroupWorld:
    """A group whose nodes, of one GPU each, have come and gone."""
    world = NodeGroupWorld(**spec)
    world.add_nodes()
    world.settle()
    world.wait(HOUR)
    world.autoscale_away()
    world.settle()
    assert world.status["nodeResources"][GPU] == "1"
    assert world.status["desired"] == 0
    return world


def hints(world: NodeGroupWorld) -> dict[str, str]:
    """What an autoscaler is told of a node to come."""
    bounds = world.step().bounds
    assert bounds is not None
    assert bounds.template is not None
    return dict(bounds.template.resources)


def test_larger_nodes_are_asked_for_once_the_spec_says_so() -> None:
    world = at_zero(provider=REMOTE, gpu={"count": 1})
    world.waiting = {"run": {GPU: "4"}}
    world.settle()
    assert world.status["desired"] == 0, "larger than any node that was seen"
    world.edit(gpu={"count": 4})
    world.settle()
    assert (world.status["desired"], world.status["pendingRuns"]) == (1, 1)
    assert hints(world)[GPU] == "4"


@pytest.mark.parametrize("asked", [{"cpu": "32"}, {"memory": "64Gi"}, {GPU: "2"}])
def test_an_edit_makes_a_group_forget_what_its_nodes_were_like(asked: dict[str, str]) -> None:
    world = at_zero(provider=CLUSTER_API)
    world.waiting = {"run": asked}
    world.settle()
    assert world.status["desired"] == 0
    world.edit(max=5)
    world.settle()
    assert world.status["desired"] == 1
    assert "nodeResources" not in world.status
    assert hints(world) == {}


def test_nodes_that_are_there_are_not_forgotten() -> None:
    world = NodeGroupWorld(provider=REMOTE)
    world.add_nodes()
    world.settle()
    world.edit(max=5)
    world.waiting = {"run": {"cpu": "32"}}
    world.settle()
    assert world.status["nodeResources"]["cpu"] == "4"
    assert world.status["pendingRuns"] == 0


def test_a_node_with_more_devices_than_a_run_gets_is_told_of_as_it_is() -> None:
    world = at_zero(provider=REMOTE, gpu={"count": 1})
    for count in ("8", "0"):
        world.obj["status"]["nodeResources"][GPU] = count
        assert hints(world)[GPU] == max(count, "1")


def test_a_node_whose_devices_never_came_is_no_reason_to_ask_for_none() -> None:
    world = NodeGroupWorld(provider=REMOTE, gpu={"count": 1})
    world.add_nodes()
    for node in world.nodes.values():
        del node["status"]["allocatable"][GPU]
    world.wait(JOINING.total_seconds())
    world.waiting = {"run": dict(REQUESTS)}
    world.settle()
    assert world.status["pendingRuns"] == 1
    world.autoscale_away()
    world.settle()
    assert (world.status["desired"], world.status["pendingRuns"]) == (1, 1)
    assert hints(world)[GPU] == "1"
