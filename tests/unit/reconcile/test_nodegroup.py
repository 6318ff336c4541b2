"""What a NodeGroup says and does."""

from typing import Any

import pytest
from nodegroup_world import (
    ALLOCATABLE,
    CLUSTER_API,
    REMOTE,
    REQUESTS,
    NodeGroupWorld,
    served,
    with_runs,
)
from objects import NOW, make_node_group, make_settings, stamp

from labfunctions_operator.reconcile import fitting
from labfunctions_operator.reconcile.decision import TURNS_AN_HOUR
from labfunctions_operator.reconcile.demand import NodeGroupObserved
from labfunctions_operator.reconcile.nodegroup import reconcile_node_group
from labfunctions_operator.reconcile.nodes import GroupSize, PoolView
from labfunctions_operator.reconcile.offers import JOINING
from labfunctions_operator.reconcile.plan import Problem

HOUR = 3600
ADOPTED = {"labfunctions.io/bounds": "adopted"}


def test_status_says_what_is_there_and_why() -> None:
    world = with_runs(6)
    assert world.settle() == ["status"]
    assert {k: v for k, v in world.status.items() if k != "conditions"} == {
        "observedGeneration": 1,
        "provider": "capacity",
        "min": 0,
        "max": 4,
        "desired": 4,
        "ready": 0,
        "busy": 0,
        "idle": 0,
        "pendingRuns": 6,
        "lastDecision": {"at": stamp(), "from": 0, "to": 4, "why": "0 busy, 6 waiting"},
    }
    assert world.condition("Ready") == (
        "True",
        "Ready",
        "0 busy, 6 waiting: 4 nodes wanted, 0 there; max is 4",
    )
    assert world.condition("ScalingActive")[:2] == ("True", "Active")
    assert world.condition("AtLimit") == ("True", "TooManyRuns", "6 nodes are needed, max is 4")
    assert world.condition("Drifted")[0] == "False"
    assert world.condition("Stalled")[0] == "False"
    assert [(e.type, e.reason, e.message) for e in world.events] == [
        ("Normal", "ScaledUp", "from 0 to 4: 0 busy, 6 waiting; 0 there"),
        ("Normal", "AtLimit", "6 nodes are needed, max is 4"),
    ]


def test_a_run_larger_than_any_node_asks_for_none() -> None:
    world = NodeGroupWorld()
    world.add_nodes()
    world.waiting = {"large": {"cpu": "64"}, "fine": dict(REQUESTS)}
    world.settle()
    assert (world.status["desired"], world.status["pendingRuns"]) == (1, 1)
    assert world.condition("Ready")[2] == (
        "0 busy, 1 waiting: 1 node wanted, 1 there; 1 waiting Run larger than any node of the group"
    )
    del world.waiting["fine"]
    world.wait(HOUR)
    world.autoscale_away()
    world.settle()
    assert world.status["desired"] == 0, "what nodes offer is remembered"
    assert world.status["nodeResources"] == {k: v for k, v in ALLOCATABLE.items() if k != "pods"}


def test_equal_runs_are_compared_with_the_nodes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0

    def fits(*_: object) -> bool:
        nonlocal compared
        compared += 1
        return False

    monkeypatch.setattr(fitting, "_fits", fits)
    world = NodeGroupWorld()
    world.add_nodes(100)
    world.waiting = {f"run-{n}": {"cpu": str(64 + n % 2)} for n in range(100)}
    world.step()
    assert compared <= 2 * (100 + 1)
    assert "100 waiting Runs larger than any node" in world.condition("Ready")[2]


@pytest.mark.parametrize("spec", [{"gpu": {"count": 1}}, {}], ids=["said", "seen before"])
def test_a_node_whose_devices_are_not_announced_yet_will_have_them(spec: Any) -> None:
    world = served(1, **spec)
    world.end("run-0")
    world.autoscale_away()
    world.wait(HOUR)
    world.waiting = {f"run-{n}": dict(REQUESTS) for n in range(3)}
    world.add_nodes()
    for node in world.nodes.values():
        del node["status"]["allocatable"]["nvidia.com/gpu"]
    world.settle()
    assert (world.status["desired"], world.status["pendingRuns"]) == (3, 3)
    assert world.status["nodeResources"]["nvidia.com/gpu"] == "1"
    world.wait(JOINING.total_seconds())
    assert world.status["pendingRuns"] == (3 if spec else 0), "it has none; others are said to"


def test_nodes_that_differ_by_some_bytes_are_of_one_kind() -> None:
    world = served(2, provider=CLUSTER_API)
    for node, memory in zip(world.nodes.values(), ("16776192Ki", "16776188Ki"), strict=True):
        node["status"]["allocatable"]["memory"] = memory
    world.settle()
    told = world.step().bounds
    world.nodes = dict(reversed(world.nodes.items()))
    assert world.settle() == [], "a node's heartbeat changes the order of the list"
    world.nodes.pop(world.running["run-1"])
    world.seconds += 60
    world.add_nodes()
    world.running["run-1"] = next(reversed(world.nodes))
    assert world.settle() == []
    assert world.step().bounds == told


def test_another_kind_of_node_is_known_by_the_newest() -> None:
    world = served(1)
    world.seconds += 60
    world.add_nodes()
    newest = next(reversed(world.nodes.values()))
    newest["status"]["allocatable"]["memory"] = "64Gi"
    world.nodes = dict(reversed(world.nodes.items()))
    world.settle()
    assert world.status["nodeResources"]["memory"] == "64Gi"


def test_ticks_ahead_ask_for_nodes_and_give_them_up_again() -> None:
    world = NodeGroupWorld(warmAhead="5m")
    world.ticks = [600, 610, 4000]
    assert world.settle() == ["status"]
    assert world.decide().plan.requeue_after == 300
    assert "create gpu-placeholder-0" in world.wait(300)
    assert world.status["desired"] == 1
    world.wait(30)
    assert world.status["desired"] == 2
    assert world.condition("Ready")[2].startswith("0 busy, 2 waiting (2 of them due soon)")
    world.autoscale()
    world.schedule()
    world.ticks = [4000]
    world.wait(HOUR / 2)
    assert world.status["desired"] == 0


def test_observe_only_decides_and_writes_nothing_but_its_status() -> None:
    world = NodeGroupWorld(min=2, observeOnly=True)
    assert world.settle() == ["status"]
    assert world.status["desired"] == 2
    assert world.condition("ScalingActive")[:2] == ("False", "ObserveOnly")
    assert [e.reason for e in world.events] == ["WouldScaleUp"]
    assert world.condition("Ready")[:2] == ("True", "ObserveOnly")
    assert world.condition("Ready")[2].endswith("; observeOnly: nothing is changed")
    remote = NodeGroupWorld(min=2, observeOnly=True, provider=REMOTE)
    assert remote.settle() == ["status"]
    assert remote.pool == GroupSize(min=0, max=4, desired=0)


QUICK = {"cooldown": {"up": "1s", "down": "1s"}, "idle": {"after": "1s"}}


def flap(world: NodeGroupWorld, every: float, until: float) -> None:
    """A Run comes and goes before there is a node for it."""
    while world.seconds < until:
        world.waiting = {} if world.waiting else {"flapping": dict(REQUESTS)}
        world.wait(every)


@pytest.mark.parametrize("provider", [{"capacity": {}}, REMOTE], ids=["capacity", "remote"])
def test_a_size_that_goes_back_and_forth_too_often_is_no_demand(provider: Any) -> None:
    world = NodeGroupWorld(max=4, provider=provider, **QUICK)
    flap(world, every=10, until=HOUR / 2)
    assert world.condition("Stalled")[:2] == ("True", "TooManyDecisions")
    assert world.condition("Ready")[:2] == ("False", "Stalled")
    assert len(world.status["recentDecisions"]) == TURNS_AN_HOUR
    writes = [write for write in world.writes if write.startswith("pool")]
    assert len(writes) <= 2 * TURNS_AN_HOUR + 1
    world.waiting.clear()
    world.wait(60)
    assert world.status["desired"] == 1, "what it has stays"
    world.waiting = {f"run-{n}": dict(REQUESTS) for n in range(3)}
    world.wait(60)
    assert world.status["desired"] == 3, "Runs that wait are served all the same"
    world.edit(max=2)
    world.wait(1)
    assert world.status["desired"] == 2, "and the bounds hold"
    world.waiting.clear()
    world.wait(HOUR)
    assert world.condition("Stalled")[0] == "False"
    assert world.status["desired"] == 0


@pytest.mark.parametrize("every", [7, 30, 60])
def test_a_cooldown_of_a_minute_keeps_demand_from_going_back_and_forth_too_often(
    every: float,
) -> None:
    world = NodeGroupWorld(max=4, idle={"after": "1s"})
    flap(world, every=every, until=1.1 * HOUR)
    assert len(world.status["recentDecisions"]) > TURNS_AN_HOUR / 3
    assert "Stalled" not in {event.reason for event in world.events}


def test_a_large_group_may_change_its_size_as_often_as_it_must() -> None:
    world = NodeGroupWorld(max=500, **QUICK)
    for number in range(TURNS_AN_HOUR + 5):
        world.waiting[f"run-{number}"] = dict(REQUESTS)
        world.wait(2)
    assert world.status["desired"] == TURNS_AN_HOUR + 5
    while len(world.waiting) > 1:
        world.waiting.popitem()
        world.wait(2)
    assert world.status["desired"] == 1
    decisions = [e for e in world.events if e.reason in ("ScaledUp", "ScaledDown")]
    assert len(decisions) > 2 * TURNS_AN_HOUR
    assert world.condition("Stalled")[0] == "False"


def test_without_autoscaling_a_group_only_says_where_runs_go() -> None:
    plan = reconcile_node_group(make_node_group(min=2), NodeGroupObserved(), make_settings(), NOW)
    assert (plan.plan.apply, plan.bounds) == ((), None)
    assert plan.plan.status is not None
    assert [(c["type"], c["status"], c["reason"]) for c in plan.plan.status["conditions"]] == [
        ("Ready", "True", "AutoscalingDisabled"),
        ("ScalingActive", "False", "AutoscalingDisabled"),
    ]


# The bounds of a pool elsewhere.


def test_a_pool_is_raised_with_an_end_and_lowered_again() -> None:
    world = with_runs(2, provider=REMOTE)
    assert world.settle() == ["status", "pool 2..4", "status"]
    assert world.wanted == {"min": 2, "max": 4, "until": stamp(HOUR)}
    world.autoscale()
    world.schedule()
    world.seconds = 100
    world.end("run-0")
    world.end("run-1")
    world.settle()
    assert world.pool is not None
    assert world.pool.min == 2, "idle nodes stay for a while"
    assert "pool 0..4" in world.wait(600)
    assert "until" not in world.status["wanted"]


def test_a_raise_that_is_still_needed_is_renewed() -> None:
    world = served(1, provider=REMOTE)
    world.wait(HOUR - 1)
    assert world.status["wanted"]["until"] == stamp(HOUR)
    world.wait(1)
    assert world.status["wanted"]["until"] == stamp(2 * HOUR)


def test_a_warm_raise_ends_with_its_window() -> None:
    warm = [{"schedule": "0 12 * * *", "duration": "2h", "min": 3}]
    world = NodeGroupWorld(provider=REMOTE, warm=warm)
    world.settle()
    assert world.wanted == {"min": 3, "max": 4, "until": stamp(2 * HOUR)}
    assert world.decide().plan.requeue_after == 2 * HOUR


def test_max_is_never_lowered_below_what_is_there() -> None:
    world = served(4, provider=REMOTE)
    world.edit(max=2)
    world.settle()
    assert world.pool is not None
    assert world.pool.max == 4
    for run in list(world.running):
        world.end(run)
    world.wait(HOUR)
    world.autoscale()
    world.settle()
    assert (world.pool.min, world.pool.max) == (0, 2)


@pytest.mark.parametrize("when", ["before the write", "after the write"])
def test_a_restart_between_record_and_confirmation_changes_nothing(when: str) -> None:
    world = NodeGroupWorld(provider=REMOTE)
    world.settle()
    world.waiting = {"run": dict(REQUESTS)}
    shown = world.pool
    world.step()
    if when == "before the write":
        world.pool = shown
    assert world.condition("Drifted")[0] == "False"
    world.settle()
    assert world.condition("Drifted")[0] == "False"
    assert world.pool is not None
    assert world.pool.min == 1
    assert world.status["written"] == {"min": 1, "max": 4}


BY_EDIT = "set them back, or edit the NodeGroup, which writes its own again"
BY_ANNOTATION = (
    "remove the annotation labfunctions.io/bounds of MachineDeployment clusters/gpu "
    "to hand them back"
)


@pytest.mark.parametrize(
    ("provider", "way_back"),
    [
        (REMOTE, BY_EDIT),
        ({"eksNodegroup": {"cluster": "lab", "name": "gpu", "region": "eu-west-1"}}, BY_EDIT),
        (CLUSTER_API, BY_ANNOTATION),
    ],
    ids=["asg", "eks", "clusterApi"],
)
def test_somebody_elses_change_is_said_and_left_alone(provider: Any, way_back: str) -> None:
    world = NodeGroupWorld(provider=provider)
    world.settle()
    world.pool = GroupSize(min=1, max=9, desired=1, tags=ADOPTED)
    world.waiting = {"run": dict(REQUESTS)}
    assert world.settle() == ["status"]
    says = (
        "min and max are 1 and 9 at the provider, not 0 and 4 as written: "
        f"somebody else changed them; {way_back}"
    )
    assert world.condition("Drifted") == ("True", "Drifted", says)
    assert world.condition("ScalingActive")[:2] == ("False", "Drifted")
    assert world.condition("Ready")[:2] == ("False", "Drifted")
    assert [e.reason for e in world.events if e.type == "Warning"] == ["Drifted"]
    assert world.wait(HOUR) == []
    assert (world.pool.min, world.pool.max) == (1, 9)


def test_the_bounds_of_machines_are_handed_back_by_an_annotation_that_goes() -> None:
    world = NodeGroupWorld(provider=CLUSTER_API)
    world.settle()
    world.pool = GroupSize(min=1, max=9, desired=1, tags=ADOPTED)
    world.settle()
    world.pool = GroupSize(min=1, max=9, desired=1)
    world.settle()
    assert world.condition("Drifted")[0] == "False"
    assert (world.pool.min, world.pool.max) == (0, 4)


def test_drift_ends_when_it_is_set_back() -> None:
    world = NodeGroupWorld(provider=REMOTE)
    world.settle()
    world.pool = GroupSize(min=0, max=9, desired=0)
    world.settle()
    world.pool = GroupSize(min=0, max=4, desired=0)
    world.settle()
    assert world.condition("Drifted")[0] == "False"


def test_an_edit_of_the_group_takes_the_pool_over() -> None:
    world = NodeGroupWorld(provider=REMOTE)
    world.settle()
    world.pool = GroupSize(min=0, max=9, desired=0)
    world.settle()
    world.edit(max=5)
    world.settle()
    assert world.pool == GroupSize(min=0, max=5, desired=0)
    assert world.condition("Drifted")[0] == "False"


def test_a_pool_that_cannot_be_reached_is_said_and_nothing_is_written() -> None:
    group = make_node_group(provider=REMOTE)
    settings = make_settings(autoscaling={"enabled": True})
    problem = Problem(reason="ProviderUnavailable", message="no route to host")
    for view, expected in (
        (PoolView(), (None, "Reading")),
        (PoolView(problem=problem), (False, "ProviderUnavailable")),
    ):
        seen = NodeGroupObserved(pool=view, waiting=[dict(REQUESTS)])
        decided = reconcile_node_group(group, seen, settings, NOW)
        assert decided.bounds is None
        assert decided.plan.status is not None
        [ready] = [c for c in decided.plan.status["conditions"] if c["type"] == "Ready"]
        words = {None: "Unknown", False: "False"}
        assert (ready["status"], ready["reason"]) == (words[expected[0]], expected[1])
        assert decided.plan.status["desired"] == 1, "the policy goes on"


def test_autoscalers_are_told_what_a_node_will_be_like() -> None:
    world = NodeGroupWorld(
        provider=REMOTE, min=1, gpu={"count": 1}, taints=[{"key": "gpu"}], idle={"after": "20m"}
    )
    bounds = world.step().bounds
    assert bounds is not None
    assert bounds.idle_seconds == 1200
    assert bounds.template is not None
    assert bounds.template.resources == {"nvidia.com/gpu": "1"}, "nothing else is known yet"
    world.autoscale()
    world.settle()
    bounds = world.step().bounds
    assert bounds is not None
    assert bounds.template is not None
    assert bounds.template.resources == {k: v for k, v in ALLOCATABLE.items() if k != "pods"}
