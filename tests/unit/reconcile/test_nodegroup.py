"""What a NodeGroup says and does."""

from typing import Any

import pytest
from nodegroup_world import (
    ALLOCATABLE,
    CLUSTER_API,
    REMOTE,
    REQUESTS,
    NodeGroupWorld,
    break_node,
    make_node,
    make_other,
    make_pod_on,
)
from objects import NOW, make_node_group, make_settings, stamp

from labfunctions_operator.reconcile import fitting
from labfunctions_operator.reconcile.decision import DECISIONS_AN_HOUR
from labfunctions_operator.reconcile.demand import JOINING, UNREADY, NodeGroupObserved
from labfunctions_operator.reconcile.nodegroup import reconcile_node_group
from labfunctions_operator.reconcile.nodes import GroupSize, PoolView
from labfunctions_operator.reconcile.placeholders import FIRST_DELAY, STEADY
from labfunctions_operator.reconcile.plan import Problem

HOUR = 3600
ADOPTED = {"labfunctions.io/bounds": "adopted"}


def with_runs(count: int, **spec: Any) -> NodeGroupWorld:
    world = NodeGroupWorld(**spec)
    world.waiting = {f"run-{n}": dict(REQUESTS) for n in range(count)}
    return world


def served(count: int, **spec: Any) -> NodeGroupWorld:
    """A world in which Runs have got their nodes."""
    world = with_runs(count, **spec)
    world.settle()
    world.autoscale()
    world.schedule()
    world.settle()
    return world


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
        "recentDecisions": [stamp()],
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


def test_runs_that_wait_need_no_placeholder_as_an_autoscaler_sees_them() -> None:
    world = with_runs(3)
    world.settle()
    assert world.placeholders == {}


def test_a_node_whose_run_ended_is_held_and_then_let_go() -> None:
    world = served(1)
    world.seconds = 100
    world.end("run-0")
    assert world.settle() == ["create gpu-placeholder-0", "status"]
    world.schedule()
    assert world.condition("Ready")[2] == (
        "0 busy, 0 waiting: 1 node wanted, 1 there; idle nodes stay for a while"
    )
    decided = world.decide().plan
    assert (decided.requeue_after, decided.apply, decided.delete) == (600, (), ())
    assert world.wait(599) == []
    assert world.wait(1) == ["delete gpu-placeholder-0", "status"]
    assert world.status["lastDecision"]["to"] == 0
    world.autoscale()
    world.settle()
    assert (world.status["desired"], world.nodes) == (0, {})


def test_a_run_takes_the_place_of_a_placeholder() -> None:
    world = NodeGroupWorld(min=1)
    world.settle()
    world.autoscale()
    world.schedule()
    world.settle()
    world.waiting["run"] = dict(REQUESTS)
    world.schedule()
    assert world.running == {"run": "node-0-0"}
    assert world.placeholders == {}
    assert world.settle() == ["status"], "nothing is put back for a node that is busy"


EVICTED = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}


def test_a_placeholder_that_was_evicted_is_made_anew_after_a_moment() -> None:
    world = NodeGroupWorld(min=1)
    world.settle()
    world.placeholders["gpu-placeholder-0"]["status"] = EVICTED
    assert world.settle() == ["delete gpu-placeholder-0", "status"]
    assert world.decide().plan.requeue_after == FIRST_DELAY.total_seconds()
    assert world.wait(9) == []
    assert world.wait(1) == ["create gpu-placeholder-0", "status"]
    assert world.condition("Stalled")[0] == "False"
    world.autoscale()
    world.schedule()
    assert world.decide().plan.requeue_after == STEADY.total_seconds()
    assert world.wait(STEADY.total_seconds()) == ["status"]
    assert "placeholderFailures" not in world.status


def test_placeholders_that_always_fail_are_tried_less_and_less_and_that_is_said() -> None:
    world = NodeGroupWorld(min=2)
    world.add_nodes(2)
    for _ in range(360):
        for pod in world.placeholders.values():
            pod["status"] = EVICTED
        world.wait(10)
    made = [write for write in world.writes if write.startswith("create")]
    assert len(made) <= 2 * 12
    says = "place-holders failed 11 times in a row, the last one: Evicted: The node was low on"
    assert world.condition("Stalled")[:2] == ("True", "PlaceholdersFail")
    assert world.condition("Stalled")[2].startswith(says)
    assert world.condition("Ready")[:2] == ("False", "Stalled")
    assert [e.reason for e in world.events if e.type == "Warning"] == ["Stalled"]
    world.edit(max=5)
    assert world.settle()[:2] == ["create gpu-placeholder-0", "create gpu-placeholder-1"]
    assert world.condition("Stalled")[0] == "False", "an edit is a new try"


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({"reason": "OutOfpods", "message": "no\nroom"}, "OutOfpods: no room"),
        (
            {
                "containerStatuses": [
                    {"name": "placeholder", "state": {"terminated": {"exitCode": 127}}}
                ]
            },
            "it ended with code 127",
        ),
        ({}, "it ended with code unknown"),
    ],
)
def test_a_placeholder_says_in_its_own_words_why_it_failed(status: Any, why: str) -> None:
    world = NodeGroupWorld(min=1)
    world.settle()
    world.placeholders["gpu-placeholder-0"]["status"] = {"phase": "Failed", **status}
    world.settle()
    assert world.status["placeholderFailures"] == {"count": 1, "at": stamp(), "why": why}


def test_placeholders_that_somebody_takes_away_are_made_anew_so_often_and_no_more() -> None:
    world = NodeGroupWorld(min=1)
    for _ in range(2 * DECISIONS_AN_HOUR):
        world.placeholders.clear()
        world.wait(1)
    assert world.writes.count("create gpu-placeholder-0") == DECISIONS_AN_HOUR
    assert world.condition("Stalled")[:2] == ("True", "TooManyDecisions")
    assert world.condition("Ready")[:2] == ("False", "Stalled")
    assert "create gpu-placeholder-0" in world.wait(HOUR)


def test_a_run_that_pushes_a_placeholder_aside_is_no_loop_of_somebodys() -> None:
    world = NodeGroupWorld(min=1)
    world.settle()
    for n in range(DECISIONS_AN_HOUR + 5):
        world.autoscale()
        world.schedule()
        world.settle()
        world.waiting[f"run-{n}"] = dict(REQUESTS)
        world.wait(1)
        world.schedule()
        world.wait(1)
        world.end(f"run-{n}")
        world.settle()
    assert world.writes.count("create gpu-placeholder-0") > DECISIONS_AN_HOUR
    assert world.condition("Stalled")[0] == "False"


def test_a_slot_is_a_placeholder_of_its_own_where_its_size_is_told() -> None:
    slot = {"cpu": "1", "memory": "2Gi"}
    world = NodeGroupWorld(
        min=2, queue={"runsPerNode": 4}, provider={"capacity": {"resources": slot}}
    )
    world.settle()
    assert len(world.placeholders) == 8
    pod = world.placeholders["gpu-placeholder-0"]["spec"]
    assert pod["containers"][0]["resources"]["requests"] == slot
    assert "affinity" not in pod


def test_a_placeholder_of_a_node_is_alone_there_and_pulls_images_without_running_them() -> None:
    world = NodeGroupWorld(min=1, gpu={"count": 1}, taints=[{"key": "gpu"}])
    world.images = ["first@sha256:0a", "second", "third", "fourth"]
    world.settle()
    pod = world.placeholders["gpu-placeholder-0"]["spec"]
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"] == [
        {"key": "gpu", "operator": "Equal", "value": "", "effect": "NoSchedule"}
    ]
    holder, *pulls = pod["containers"]
    assert holder["resources"] == {
        "requests": {"cpu": "10m", "memory": "16Mi", "nvidia.com/gpu": "1"},
        "limits": {"nvidia.com/gpu": "1"},
    }
    assert [(p["image"], p["command"]) for p in pulls] == [
        (image, ["/labfunctions/pull-only"]) for image in world.images[:3]
    ]
    [term] = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"] == {"matchLabels": {"labfunctions.io/node-group": "gpu"}}
    assert pod["priorityClassName"] == "labfunctions-placeholder"


def test_a_placeholder_is_made_anew_for_an_image_that_takes_the_place_of_another() -> None:
    world = NodeGroupWorld(min=1)
    world.settle()
    pulled = [("first", ["a@1"]), ("built anew", ["a@2"]), ("four", ["a@2", "b", "c", "d"])]
    for what, images in pulled:
        world.images = images
        made = world.settle()
        assert [m.split()[0] for m in made] == ["delete", "create", "status"], what
    for images in (["d", "c", "b", "a@2"], ["a@2", "b", "c"]):
        world.images = images
        assert world.settle() == [], "the order of ticks, and less to pull, are no reason"
    [pod] = world.placeholders.values()
    assert [c["image"] for c in pod["spec"]["containers"][1:]] == ["a@2", "b", "c"]


def test_a_capacity_buffer_takes_the_place_of_pods() -> None:
    group = make_node_group(min=2, provider={"capacity": {"capacityBuffer": True}})
    settings = make_settings(autoscaling={"enabled": True})
    plan = reconcile_node_group(group, NodeGroupObserved(), settings, NOW).plan
    template, buffer = plan.apply
    assert template["kind"] == "PodTemplate"
    assert buffer["spec"] == {
        "provisioningStrategy": "buffer.x-k8s.io/active-capacity",
        "podTemplateRef": {"name": template["metadata"]["name"]},
        "replicas": 2,
    }
    assert plan.status is not None
    before = make_node_group(min=2, status=plan.status)
    plan = reconcile_node_group(before, NodeGroupObserved(), settings, NOW).plan
    assert [(r.kind, r.name) for r in plan.delete] == [
        ("PodTemplate", "gpu-placeholder"),
        ("CapacityBuffer", "gpu-placeholder"),
    ]
    assert [m["kind"] for m in plan.apply] == ["Pod", "Pod"]
    assert plan.status is not None
    after = make_node_group(min=2, status=plan.status)
    assert reconcile_node_group(after, NodeGroupObserved(), settings, NOW).plan.delete == ()


def test_placeholders_go_when_the_provider_changes() -> None:
    world = NodeGroupWorld(min=1)
    world.settle()
    world.edit(provider={"static": {}})
    assert "delete gpu-placeholder-0" in world.settle()


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


def test_too_many_decisions_in_an_hour_are_no_demand() -> None:
    world = NodeGroupWorld(max=1, cooldown={"up": "1s", "down": "1s"}, idle={"after": "1s"})
    for _ in range(DECISIONS_AN_HOUR + 5):
        world.waiting = {} if world.waiting else {"flapping": dict(REQUESTS)}
        world.wait(10)
    assert world.condition("Stalled")[:2] == ("True", "TooManyDecisions")
    assert world.condition("Ready")[:2] == ("False", "Stalled")
    assert len(world.status["recentDecisions"]) == DECISIONS_AN_HOUR
    world.waiting = {"run": dict(REQUESTS)}
    world.wait(HOUR)
    assert world.condition("Stalled")[0] == "False"
    assert world.status["desired"] == 1


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


# Nodes that no autoscaler looks after.


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
