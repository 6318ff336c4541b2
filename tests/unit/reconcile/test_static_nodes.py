"""Nodes that no autoscaler looks after: advice, and how they are drained and deleted."""

import pytest
from nodegroup_world import (
    REQUESTS,
    NodeGroupWorld,
    break_node,
    make_node,
    make_other,
    make_pod_on,
    served,
    with_runs,
)
from objects import NOW, make_node_group, make_settings, stamp

from labfunctions_operator.reconcile.demand import UNREADY, NodeGroupObserved
from labfunctions_operator.reconcile.nodegroup import reconcile_node_group

HOUR = 3600
ADVICE = "add 2 nodes, which no autoscaler does for a static group"
ADVICE_1 = "add 1 node, which no autoscaler does for a static group"


def test_without_an_autoscaler_advice_is_given() -> None:
    world = with_runs(2, provider={"static": {}})
    world.settle()
    assert world.condition("Ready")[2].endswith("2 nodes wanted, 0 there; " + ADVICE)
    assert [e.message for e in world.events] == [
        "from 0 to 2: 0 busy, 2 waiting; 0 there; " + ADVICE
    ]
    world.waiting = {}
    world.add_nodes(2)
    assert world.wait(HOUR) == ["status"]
    assert world.condition("Ready")[2].endswith("free to go: node-0-0, node-1-0")
    assert len(world.nodes) == 2


@pytest.mark.parametrize("why", ["a Run waits", "the minimum"])
def test_a_node_that_is_not_ready_is_neither_capacity_nor_idle(why: str) -> None:
    world = NodeGroupWorld(provider={"static": {}}, min=int(why == "the minimum"))
    world.add_nodes()
    world.settle()
    break_node(world.nodes["node-0-0"], 0)
    if why == "a Run waits":
        world.waiting = {"run": dict(REQUESTS)}
    world.settle()
    assert "1 node wanted, 1 there" in world.condition("Ready")[2], "it may only be starting"
    assert world.decide().plan.requeue_after == UNREADY.total_seconds()
    world.wait(UNREADY.total_seconds())
    assert world.condition("Ready")[2].endswith(
        f"1 node wanted, 0 there; not ready and not counted: node-0-0; {ADVICE_1}"
    )
    assert (world.status["idle"], world.status["busy"]) == (0, 0)
    world.nodes["node-0-0"] = make_node("node-0-0")
    world.settle()
    assert "1 node wanted, 1 there" in world.condition("Ready")[2]


def test_a_node_with_a_run_counts_whatever_its_kubelet_says() -> None:
    world = served(1)
    break_node(world.nodes["node-0-0"], 0)
    world.wait(HOUR)
    assert (world.status["busy"], world.status["desired"]) == (1, 1)


def test_of_many_nodes_only_some_are_named() -> None:
    world = NodeGroupWorld(provider={"static": {}})
    world.add_nodes(13)
    for node in world.nodes.values():
        break_node(node, 0)
    world.wait(HOUR)
    assert world.condition("Ready")[2].endswith(", node-6-0, and 3 more")


STATIC = {"static": {"deleteNodes": True}}


def test_an_idle_node_is_cordoned_looked_at_again_drained_and_deleted() -> None:
    world = NodeGroupWorld(provider=STATIC)
    world.add_nodes()
    world.others["node-0-0"] = [make_other("proxy", "DaemonSet"), make_other("dns")]
    assert world.wait(600) == ["patch node-0-0", "status", "status"]
    assert world.nodes["node-0-0"]["spec"] == {"unschedulable": True}
    assert world.decide().plan.requeue_after == 10
    world.seconds += 10
    world.step()
    assert world.writes[-1] == "evict dns"
    world.others["node-0-0"].pop()
    world.step()
    assert world.nodes == {}


def test_a_drain_that_a_budget_forbids_is_said_and_tried_less_and_less() -> None:
    world = NodeGroupWorld(provider=STATIC)
    world.add_nodes()
    world.others["node-0-0"] = [make_other("web")]
    world.budgets = {"web"}
    world.wait(600)
    for _ in range(360):
        world.seconds += 10
        world.step()
    assert 10 < world.writes.count("evict web") < 20
    says = "node-0-0 cannot be drained, pod others/web may not leave: a budget"
    assert world.condition("Stalled") == ("True", "DrainBlocked", says)
    assert world.condition("Ready")[:2] == ("False", "Stalled")
    assert world.condition("Ready")[2].count(says) == 1
    warnings = [(e.reason, e.message) for e in world.events if e.type == "Warning"]
    assert warnings == [("Stalled", says)]
    world.others.clear()
    world.refusals.clear()
    world.step()
    assert (world.nodes, world.condition("Stalled")[0]) == ({}, "False")


def test_one_refusal_is_told_and_is_no_alarm() -> None:
    world = NodeGroupWorld(provider=STATIC)
    world.add_nodes()
    world.others["node-0-0"] = [make_other("web"), make_other("dns")]
    world.budgets = {"web"}
    world.wait(600)
    world.seconds += 10
    world.step()
    decided = world.step()
    assert world.condition("Ready")[:2] == ("True", "Ready")
    assert world.condition("Ready")[2].endswith("pod others/web may not leave: a budget")
    assert decided.plan.requeue_after == 10
    assert world.writes.count("evict web") == 1


def test_a_drain_that_waits_for_long_is_looked_at_less_and_less_and_says_for_what() -> None:
    world = NodeGroupWorld(provider=STATIC)
    world.add_nodes()
    world.others["node-0-0"] = [make_other("web"), make_other("slow")]
    world.wait(600)
    for pod in world.others["node-0-0"]:
        pod["metadata"]["deletionTimestamp"] = stamp()
    world.wait(290)
    assert world.decide().plan.requeue_after == 29
    assert world.condition("Ready")[2] == "0 busy, 0 waiting: 0 nodes wanted, 0 there"
    world.wait(10)
    says = "; node-0-0 is drained and waits for pod others/slow"
    assert world.condition("Ready")[2].endswith(says)
    world.wait(HOUR)
    assert world.decide().plan.requeue_after == 300
    assert "evict web" not in world.writes


def test_a_node_with_a_pod_that_would_be_lost_stays_and_another_one_goes() -> None:
    world = NodeGroupWorld(provider=STATIC, min=1)
    world.add_nodes(2)
    world.others["node-0-0"] = [make_other("debug", owner=None)]
    world.wait(600)
    assert world.nodes["node-0-0"]["spec"] == {"unschedulable": True}
    world.wait(10)
    assert world.nodes["node-0-0"]["spec"] == {}
    assert world.nodes["node-1-0"]["spec"] == {"unschedulable": True}
    says = "node-0-0 stays: pod others/debug has no controller and would be lost"
    assert world.condition("Ready")[2].endswith(says)
    world.wait(10)
    assert list(world.nodes) == ["node-0-0"]
    assert "evict debug" not in world.writes
    world.edit(min=0)
    assert world.settle() == ["status"], "it is left alone for a while"
    world.wait(60)
    assert world.decide().plan.requeue_after == HOUR - 70
    world.others.clear()
    world.wait(HOUR)
    world.wait(10)
    assert world.nodes == {}


def test_a_pod_of_nobodys_that_is_going_anyway_is_waited_for() -> None:
    world = NodeGroupWorld(provider=STATIC)
    world.add_nodes()
    world.others["node-0-0"] = [make_other("debug", owner=None)]
    world.others["node-0-0"][0]["metadata"]["deletionTimestamp"] = stamp()
    world.wait(600)
    world.wait(10)
    assert world.nodes["node-0-0"]["spec"] == {"unschedulable": True}
    assert "evict debug" not in world.writes


def test_notes_on_nodes_go_when_the_provider_changes() -> None:
    world = NodeGroupWorld(provider=STATIC)
    world.add_nodes()
    world.others["node-0-0"] = [make_other("debug", owner=None)]
    world.wait(600)
    world.wait(10)
    assert world.nodes["node-0-0"]["metadata"]["annotations"]
    world.edit(provider={"static": {}})
    world.settle()
    assert world.nodes["node-0-0"]["metadata"]["annotations"] == {}


@pytest.mark.parametrize("note", ["for ever", "9999-12-31T23:59:59Z x/y"])
def test_what_somebody_writes_into_a_note_is_no_note(note: str) -> None:
    world = NodeGroupWorld(provider=STATIC)
    world.add_nodes()
    world.nodes["node-0-0"]["metadata"]["annotations"] = {"labfunctions.io/kept": note}
    world.wait(600)
    assert world.nodes["node-0-0"]["spec"] == {"unschedulable": True}


def test_a_run_that_comes_meanwhile_gets_the_node_back() -> None:
    world = NodeGroupWorld(provider=STATIC)
    world.add_nodes()
    world.wait(600)
    world.waiting = {"run": dict(REQUESTS)}
    world.settle()
    assert world.nodes["node-0-0"]["spec"] == {}, "one that waits gets it"
    world.waiting = {}
    world.wait(600)
    assert world.nodes["node-0-0"]["spec"] == {"unschedulable": True}
    world.running["late"] = "node-0-0"
    world.wait(60)
    assert world.nodes["node-0-0"]["spec"] == {}, "one that was bound at the last moment keeps it"


def test_a_node_is_given_back_when_the_provider_changes() -> None:
    world = NodeGroupWorld(provider=STATIC)
    world.add_nodes()
    world.wait(600)
    assert world.nodes["node-0-0"]["spec"] == {"unschedulable": True}
    world.edit(provider={"capacity": {}})
    world.settle()
    assert world.nodes["node-0-0"]["spec"] == {}


def test_the_last_look_counts_what_no_cache_has_seen_yet() -> None:
    world = NodeGroupWorld(provider=STATIC)
    world.add_nodes()
    world.wait(600)
    world.others["node-0-0"] = [make_pod_on("node-0-0")]
    world.seconds += 60
    world.step()
    assert world.nodes["node-0-0"]["spec"] == {}


def test_a_node_with_a_build_is_busy() -> None:
    build = make_pod_on("node-0-0", "build", **{"app.kubernetes.io/component": "build"})
    group = make_node_group(provider=STATIC)
    node = make_node("node-0-0", ready_at=-HOUR)
    seen = NodeGroupObserved(nodes=[node], pods=[build])
    settings = make_settings(autoscaling={"enabled": True})
    plan = reconcile_node_group(group, seen, settings, NOW).plan
    assert plan.apply == ()
    assert plan.status is not None
    assert (plan.status["busy"], plan.status["desired"]) == (1, 1)


def test_a_node_that_somebody_else_cordoned_is_not_ours_to_touch() -> None:
    world = NodeGroupWorld(provider=STATIC)
    world.nodes["node"] = make_node("node", unschedulable=True)
    world.wait(HOUR)
    assert world.nodes["node"]["spec"] == {"unschedulable": True}
    assert world.status.get("ready") == 0
