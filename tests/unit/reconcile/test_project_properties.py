"""What must hold for every Project, whatever its cluster does."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from crd_schema import status_errors
from hypothesis import given
from hypothesis import strategies as st
from objects import make_settings
from project_world import ProjectWorld
from world import CLUSTER_EVENTS, World, pod_fails, pod_succeeds

RUNTIMES: list[list[dict[str, Any]]] = [
    [],
    [{"name": "a"}],
    [{"name": "a"}, {"name": "b", "template": "gpu"}],
    [{"name": "a", "image": "example.com/a:1"}, {"name": "b", "requirements": "missing.txt"}],
    [{"name": "b", "dockerfile": "Dockerfile"}, {"name": "a", "env": {"A": '"$'}}],
]
FILES: list[dict[str, str]] = [
    {},
    {"requirements.txt": "pandas\n"},
    {"requirements.txt": "-r x\n", "missing.txt": "", "Dockerfile": "FROM x\n"},
]


def edit(world: World, draw: Callable[[Any], Any]) -> None:
    assert isinstance(world, ProjectWorld)
    world.edit(
        runtimes=draw(st.sampled_from(RUNTIMES)),
        suspend=draw(st.sampled_from([False, False, True])),
        versionsHistoryLimit=draw(st.integers(1, 3)),
    )


def read(world: World, draw: Callable[[Any], Any]) -> None:
    assert isinstance(world, ProjectWorld)
    number = draw(st.integers(0, 2))
    world.read(
        commit=f"{number:040x}",
        tree=f"{number // 2:040x}",
        files=draw(st.sampled_from(FILES)),
    )


def cannot_read(world: World, draw: Callable[[Any], Any]) -> None:
    assert isinstance(world, ProjectWorld)
    world.cannot_read()


def restart(world: World, draw: Callable[[Any], Any]) -> None:
    assert isinstance(world, ProjectWorld)
    world.restart()


def lose_status(world: World, draw: Callable[[Any], Any]) -> None:
    world.obj.pop("status", None)


def cluster(world: World, draw: Callable[[Any], Any]) -> None:
    event = draw(st.sampled_from(CLUSTER_EVENTS))
    if world.jobs:
        event(world, draw(st.sampled_from(sorted(world.jobs))))


EVENTS = (edit, read, read, cannot_read, restart, lose_status, *[cluster] * 8)


@st.composite
def histories(draw: Any) -> ProjectWorld:
    """A Project that has lived through anything; often, but not always, reconciled in between."""
    mode = draw(st.sampled_from(["shared", "perBuild"]))
    world = ProjectWorld(settings=make_settings(mode), runtimes=draw(st.sampled_from(RUNTIMES)))
    for _ in range(draw(st.integers(1, 14))):
        draw(st.sampled_from(EVENTS))(world, draw)
        if draw(st.booleans()):
            world.step()
    return world


@given(world=histories())
def test_reconciling_again_changes_nothing(world: ProjectWorld) -> None:
    world.settle()
    assert world.settle() == []
    plan = world.decide()
    assert plan.status == world.obj["status"]
    assert status_errors("Project", plan.status) == []


@given(world=histories())
def test_time_alone_never_writes_a_status_that_says_the_same(world: ProjectWorld) -> None:
    world.settle()
    before = world.obj["status"]
    world.seconds += 1
    if not any(write != "status" for write in world.settle()):
        assert world.obj["status"] == before


@given(world=histories(), seed=st.integers(0, 2**16))
def test_the_order_in_which_children_are_seen_does_not_matter(
    world: ProjectWorld, seed: int
) -> None:
    turned = world.copy()
    for children in ("jobs", "pods"):
        items = list(getattr(turned, children).items())
        random.Random(seed).shuffle(items)
        setattr(turned, children, dict(items))
    assert turned.decide() == world.decide()


def commit(world: ProjectWorld) -> None:
    world.read(commit="1" * 40, tree="1" * 40)


def suspend_and_resume(world: ProjectWorld) -> None:
    world.edit(suspend=True)
    world.step()
    world.edit(suspend=False)


def first_succeeds(world: ProjectWorld) -> None:
    pod_succeeds(world, FIRST_TWO[0])


def second_fails(world: ProjectWorld) -> None:
    pod_fails(world, FIRST_TWO[1])


def nothing(world: ProjectWorld) -> None:
    world.step()


def two_building() -> ProjectWorld:
    world = ProjectWorld(runtimes=[{"name": "a"}, {"name": "b"}])
    world.read()
    world.settle()
    return world


FIRST_TWO = list(two_building().jobs)


@given(
    orders=st.tuples(
        *[
            st.permutations([commit, suspend_and_resume, first_succeeds, second_fails, nothing])
            for _ in range(2)
        ]
    ),
    pauses=st.lists(st.booleans(), min_size=10, max_size=10),
)
def test_the_order_of_events_does_not_matter(
    orders: tuple[list[Any], list[Any]], pauses: list[bool]
) -> None:
    ends = []
    for number, order in enumerate(orders):
        world = two_building()
        for event, pause in zip(order, pauses[number * 5 :], strict=False):
            event(world)
            if pause:
                world.step()
        world.settle()
        ends.append(world)
    one, other = ends
    assert one.obj["status"] == other.obj["status"]
    assert one.jobs == other.jobs


@given(world=histories())
def test_a_restart_decides_the_same(world: ProjectWorld) -> None:
    assert isinstance(world, ProjectWorld)
    world.settle()
    before = world.obj["status"]
    source = world.source
    world.restart()
    world.settle()
    if world.project.metadata.generation == before["observedGeneration"]:
        kept = {k: v for k, v in before.items() if k not in ("versions", "conditions")}
        assert {k: v for k, v in world.obj["status"].items() if k in kept} == kept
    world.source = source
    world.settle()
    after = world.obj["status"]
    assert after["runtimes"] == before["runtimes"]
    assert after["versions"] == before["versions"]


@given(world=histories())
def test_a_runtime_is_never_built_twice_at_a_time(world: ProjectWorld) -> None:
    plan = world.decide()
    building = [j for j in world.jobs.values() if not j["status"]]
    created = [m for m in plan.apply if m["kind"] == "Job"]
    names = {j["metadata"]["name"] for j in building}
    for manifest in created:
        runtime = manifest["metadata"]["labels"]["labfunctions.io/runtime"]
        others = [
            j["metadata"]["name"]
            for j in building
            if j["metadata"]["labels"]["labfunctions.io/runtime"] == runtime
        ]
        assert others in ([], [manifest["metadata"]["name"]]), names


@given(world=histories())
def test_a_good_image_is_never_lost_to_a_failure(world: ProjectWorld) -> None:
    world.settle()
    good = {r["name"] for r in world.obj["status"]["runtimes"] if "image" in r}
    for job in list(world.jobs):
        if not world.jobs[job]["status"]:
            pod_fails(world, job)
    world.settle()
    assert good <= {r["name"] for r in world.obj["status"]["runtimes"] if "image" in r}


@pytest.mark.parametrize("count", [1, 16])
def test_a_sweep_over_settled_projects_writes_nothing(count: int) -> None:
    runtimes = [{"name": f"r{i}"} for i in range(count)]
    world = ProjectWorld(runtimes=runtimes, versionsHistoryLimit=1)
    world.read()
    world.settle()
    for job in world.jobs:
        pod_succeeds(world, job)
    world.settle()
    world.seconds += 600
    assert world.settle() == []
