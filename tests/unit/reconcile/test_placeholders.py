"""Which place-holders there are, and what becomes of those that fail."""

from dataclasses import replace
from typing import Any

import pytest
from nodegroup_world import (
    REQUESTS,
    SETTINGS,
    NodeGroupWorld,
    served,
    with_runs,
)
from objects import NOW, make_node_group, make_settings, stamp

from labfunctions_operator.reconcile.decision import TURNS_AN_HOUR
from labfunctions_operator.reconcile.demand import NodeGroupObserved
from labfunctions_operator.reconcile.nodegroup import reconcile_node_group
from labfunctions_operator.reconcile.placeholders import FIRST_DELAY, STEADY
from labfunctions_operator.reconcile.plan import Problem

HOUR = 3600


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


def test_one_that_always_fails_beside_others_that_run_is_tried_less_and_less() -> None:
    world = NodeGroupWorld(min=2)
    world.add_nodes(1)
    world.settle()
    world.schedule()
    for _ in range(360):
        for pod in world.placeholders.values():
            if pod["status"]["phase"] == "Pending":
                pod["status"] = EVICTED
        world.wait(10)
    assert sum(write.startswith("create") for write in world.writes) < 2 + 12
    assert world.condition("Stalled")[:2] == ("True", "PlaceholdersFail")


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
    for _ in range(2 * TURNS_AN_HOUR):
        world.placeholders.clear()
        world.wait(1)
    assert world.writes.count("create gpu-placeholder-0") == 1 + TURNS_AN_HOUR
    assert world.condition("Stalled")[:2] == ("True", "TooManyDecisions")
    assert world.condition("Ready")[:2] == ("False", "Stalled")
    assert "create gpu-placeholder-0" in world.wait(HOUR)


def test_a_placeholder_that_failed_and_may_not_be_deleted_has_failed_once() -> None:
    world = NodeGroupWorld(min=1)
    world.settle()
    world.placeholders["gpu-placeholder-0"]["status"] = {"phase": "Failed", "reason": "OutOfpods"}
    world.denied = Problem(reason="Forbidden", message="no right to delete pods (403)")
    assert world.settle() == ["status"]
    for _ in range(5):
        assert world.wait(60) == []
    assert world.condition("Ready")[:2] == ("False", "Forbidden")
    world.denied = None
    world.settle()
    assert world.status["placeholderFailures"]["count"] == 1
    assert world.condition("Ready")[:2] == ("True", "Ready")


@pytest.mark.parametrize("is_placing_denied", [False, True])
def test_a_placeholder_made_anew_counts_unless_it_may_not_be_made(is_placing_denied: bool) -> None:
    world = NodeGroupWorld(min=1)
    world.settle()
    world.placeholders.clear()
    denied = Problem(reason="Forbidden", message="no right to patch nodes or create pods (403)")
    seen = replace(world.observed(), denied=(denied,), is_placing_denied=is_placing_denied)
    status = reconcile_node_group(world.group, seen, SETTINGS, NOW).plan.status
    assert status is not None
    assert ("recentDecisions" in status) != is_placing_denied


def test_a_run_that_pushes_a_placeholder_aside_is_no_loop_of_somebodys() -> None:
    world = NodeGroupWorld(min=1)
    world.settle()
    for n in range(TURNS_AN_HOUR + 5):
        world.autoscale()
        world.schedule()
        world.settle()
        world.waiting[f"run-{n}"] = dict(REQUESTS)
        world.wait(1)
        world.schedule()
        world.wait(1)
        world.end(f"run-{n}")
        world.settle()
    assert world.writes.count("create gpu-placeholder-0") > TURNS_AN_HOUR
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
