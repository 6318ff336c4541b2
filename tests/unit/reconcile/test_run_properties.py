"""What must hold for every Run, whatever its user and its cluster do."""

import random
from collections.abc import Callable
from typing import Any

from crd_schema import status_errors
from hypothesis import given
from hypothesis import strategies as st
from objects import created, make_project, make_source, make_workflow
from run_world import RunWorld, ready_project
from world import CLUSTER_EVENTS, World, job_gone, pod_runs, pod_succeeds

from labfunctions_operator.api.run import Progress
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.pods import PodEvent

Draw = Callable[[Any], Any]

ODD_PARTS: list[dict[str, Any]] = [
    {"resources": {"limits": {"memory": "1Gi"}, "requests": {"memory": "0.5Gi"}}},
    {"resources": {"limits": {"memory": "a lot"}, "claims": [{"name": "x"}]}},
    {"resources": {"limits": "none", "requests": None}},
    {"resources": {"limits": {"memory": {"x": 1}}}},
    {"env": [{"name": ["A"]}, {}]},
    {"gpu": {}, "tolerations": [{}], "volumes": [{}]},
    {"imagePullSecrets": [{"name": f"s{i}"} for i in range(20)]},
    {"parameters": {"day": None}},
    {"parameters": {"unknown": {"a": [1, None]}}, "parametersPolicy": "Permissive"},
    {"pendingTimeoutSeconds": 60},
    {"timeoutSeconds": 1},
    {"runtime": "missing"},
    {"notebook": "/opt/elsewhere.ipynb"},
    {
        "notifications": {
            "onFailure": ["lost", {"webhook": {"url": "http://a"}}],
            "onSuccess": ["x"],
        }
    },
    {"notifications": {}},
]
RETRIES: list[dict[str, Any]] = [
    {},
    {"limit": 2},
    {"limit": 100, "backoff": {"duration": "800000h", "factor": 10, "cap": "1s"}},
    {"limit": 3, "memory": {"factor": 10, "max": "8Gi"}},
    {"limit": 3, "memory": {"max": "1Mi"}, "on": ["OutOfMemory", "NotebookError"]},
]
PROJECTS = [
    None,
    InvalidSpec("spec.source", "Field required"),
    make_project(),
    ready_project(),
    ready_project(runtime={"phase": "Failed", "message": "no such package"}),
    ready_project(runtime={"phase": "Building"}),
    ready_project(registry={"repository": "r.example.com/x", "secretRef": {"name": "login"}}),
    ready_project(defaults={"resources": {"limits": {"memory": "2Gi"}}}),
]
WORKFLOWS = [None, InvalidSpec("spec", "is wrong"), make_workflow(), make_workflow(notebook=None)]


def set_project(world: RunWorld, draw: Draw) -> None:
    world.project = draw(st.sampled_from(PROJECTS))


def set_workflow(world: RunWorld, draw: Draw) -> None:
    world.workflow = draw(st.sampled_from(WORKFLOWS))


def read(world: RunWorld, draw: Draw) -> None:
    world.source = draw(st.sampled_from([make_source(), make_source(notebooks={})]))


def restart(world: RunWorld, draw: Draw) -> None:
    world.restart()


def cancel(world: RunWorld, draw: Draw) -> None:
    world.edit(cancel=True)


def report(world: RunWorld, draw: Draw) -> None:
    cell = draw(st.integers(0, 3))
    world.progress = Progress(cell=cell, cells=3, name="x", summary=f"{cell}/3")


def answer(world: RunWorld, draw: Draw) -> None:
    """What Events and the Node say of a pod."""
    world.node_silent = draw(st.booleans())
    reason = draw(st.sampled_from(["FailedMount", "Pulling", "Pulled", "FailedAttachVolume"]))
    text = draw(st.sampled_from(["", 'Pulling image "x"', 'configmap "x" not found']))
    world.event = PodEvent(reason, text)


def lose_status(world: RunWorld, draw: Draw) -> None:
    world.obj.pop("status", None)


def foreign_job(world: RunWorld, draw: Draw) -> None:
    """A Job of a deleted Run of the same name."""
    if world.jobs:
        job = created(next(iter(world.jobs.values())), 99)
        job["metadata"]["ownerReferences"] = [{"uid": "another"}]
        world.jobs[job["metadata"]["name"]] = job


def strip(world: RunWorld, draw: Draw) -> None:
    """Someone edits the Job's metadata."""
    for job in world.jobs.values():
        job["metadata"]["annotations"] = draw(
            st.sampled_from([{}, {"labfunctions.io/snapshot": "{", "labfunctions.io/outputs": "1"}])
        )


def cluster(world: RunWorld, draw: Draw) -> None:
    event = draw(st.sampled_from(CLUSTER_EVENTS))
    names = sorted({*world.jobs, *world.pods})
    if names:
        event(world, draw(st.sampled_from(names)))


EVENTS = (
    *(
        set_project,
        set_workflow,
        read,
        restart,
        cancel,
        report,
        answer,
        lose_status,
        foreign_job,
        strip,
    ),
    *[cluster] * 12,
)


@st.composite
def histories(draw: Any) -> RunWorld:
    """A Run that has lived through anything, reconciled now and then."""
    spec: dict[str, Any] = {**draw(st.sampled_from(ODD_PARTS))}
    spec["workflowRef"] = {"name": "report"}
    spec["retries"] = draw(st.sampled_from(RETRIES))
    world = RunWorld(**spec)
    if draw(st.booleans()):
        world.step()
    for _ in range(draw(st.integers(0, 14))):
        draw(st.sampled_from(EVENTS))(world, draw)
        if draw(st.sampled_from([True, True, False])):
            world.step()
    return world


@given(world=histories())
def test_reconciling_again_changes_nothing(world: RunWorld) -> None:
    world.settle()
    assert world.settle() == []
    plan = world.decide()
    assert plan.status in (None, world.status)
    assert status_errors("Run", world.status) == []


@given(world=histories(), seed=st.integers(0, 2**16))
def test_the_order_in_which_children_are_seen_does_not_matter(world: RunWorld, seed: int) -> None:
    turned = world.copy()
    for children in ("jobs", "pods"):
        items = list(getattr(turned, children).items())
        random.Random(seed).shuffle(items)
        setattr(turned, children, dict(items))
    assert turned.decide() == world.decide()


@given(world=histories())
def test_a_restart_while_a_job_exists_decides_the_same(world: RunWorld) -> None:
    world.settle()
    if world.jobs:
        world.restart()
        assert world.settle() == []


@given(world=histories())
def test_a_run_that_has_ended_stays_as_it_ended(world: RunWorld) -> None:
    world.settle()
    if world.run.is_finished:
        before = world.status
        world.seconds += 1000
        world.jobs.clear()
        world.pods.clear()
        world.project = None
        assert world.settle() == []
        assert world.status == before
        [condition] = [c for c in before["conditions"] if c["type"] == "Succeeded"]
        assert condition["status"] == ("True" if before["phase"] == "Succeeded" else "False")
        assert "completionTime" in before
        if before["phase"] == "Succeeded":
            assert "failure" not in before


@given(world=histories())
def test_a_run_has_one_job_at_a_time(world: RunWorld) -> None:
    live = [j for j in world.jobs.values() if not j["status"]]
    plan = world.decide()
    if live:
        assert plan.apply == ()
    assert len(plan.apply) <= 1


@given(world=histories())
def test_whatever_happens_a_run_comes_to_an_end(world: RunWorld) -> None:
    """Given a cluster that works from now on."""
    world.project, world.workflow, world.source = ready_project(), make_workflow(), make_source()
    for _ in range(12):
        world.settle()
        if world.run.is_finished:
            return
        for name, job in list(world.jobs.items()):
            if job["metadata"]["ownerReferences"][0]["uid"] == "another":
                job_gone(world, name)
            else:
                pod_succeeds(world, name)
        for name in set(world.pods) - set(world.jobs):
            del world.pods[name]
        world.seconds += 3600
    known = world.condition
    assert known[1] in {"RuntimeNotFound", "Waiting"}, known


def succeed(world: World) -> None:
    if world.jobs:
        pod_succeeds(world, "first-1")


def run(world: World) -> None:
    if "first-1" in world.jobs and "first-1" not in world.pods:
        pod_runs(world, "first-1")


def image_is_ready(world: World) -> None:
    assert isinstance(world, RunWorld)
    world.project = ready_project()


def workflow_appears(world: World) -> None:
    assert isinstance(world, RunWorld)
    world.workflow = make_workflow()


def nothing(world: World) -> None:
    pass


GATES = [image_is_ready, workflow_appears, nothing]


@given(order=st.permutations(GATES), pauses=st.lists(st.booleans(), min_size=3, max_size=3))
def test_the_order_in_which_gates_open_does_not_matter(
    order: list[Any], pauses: list[bool]
) -> None:
    ends = []
    for events, stops in ((GATES, [True] * 3), (order, pauses)):
        world = RunWorld()
        world.workflow = None
        world.project = make_project()
        for event, stop in zip(events, stops, strict=True):
            event(world)
            if stop:
                world.step()
        world.settle()
        run(world)
        world.settle()
        succeed(world)
        world.settle()
        ends.append(world)
    assert ends[0].status == ends[1].status
    assert ends[0].jobs == ends[1].jobs
