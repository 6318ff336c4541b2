import dataclasses

import pytest
from objects import (
    COMMIT,
    at,
    created,
)
from project_world import IMAGE, OTHER_COMMIT, OTHER_TREE, ProjectWorld, built, failing
from world import job_gone, pod_gone, pod_succeeds

from labfunctions_operator.reconcile.project import reconcile_project


def build_next(world: ProjectWorld, number: int) -> None:
    world.seconds += 60
    world.read(commit=f"{number:040x}", tree=f"{number + 500:040x}")
    world.settle()
    for job in world.jobs:
        if not world.jobs[job]["status"]:
            pod_succeeds(world, job)
    world.settle()
    assert world.condition()[0] == "True", world.condition()


def test_going_back_to_a_built_commit_needs_no_build() -> None:
    world = failing()
    world.read()
    assert world.settle() == ["status"]
    assert world.runtime()["phase"] == "Ready"
    assert world.runtime()["failures"] == 0


def test_a_build_that_more_code_has_overtaken_is_used_until_the_next_one_ends() -> None:
    world = ProjectWorld()
    world.read()
    world.settle()
    first = world.job
    world.read(commit=OTHER_COMMIT, tree=OTHER_TREE)
    world.settle()
    pod_succeeds(world, first)
    world.settle()
    assert (world.runtime()["image"], world.runtime()["commit"]) == (IMAGE, COMMIT)
    assert world.condition()[2] == (
        f"image default: building {OTHER_COMMIT[:12]}: waiting for the pod to be created "
        "(the last good image stays in use)"
    )


def test_a_build_that_ends_before_the_source_is_read_again_is_used() -> None:
    world = ProjectWorld()
    world.read()
    world.settle()
    world.restart()
    pod_succeeds(world, world.job)
    world.settle()
    assert world.runtime()["image"] == IMAGE


def test_going_back_is_not_undone_by_the_newer_image() -> None:
    world = built()
    build_next(world, 1)
    world.read()
    world.settle()
    world.read(commit=OTHER_COMMIT, tree=OTHER_TREE)
    world.settle()
    assert world.runtime()["commit"] == COMMIT
    assert world.runtime()["phase"] == "Building"


def test_status_remembers_so_many_versions() -> None:
    world = built(versionsHistoryLimit=3)
    for number in range(1, 6):
        build_next(world, number)
    kept = [v["commit"] for v in world.obj["status"]["versions"]]
    assert kept == [f"{number:040x}" for number in (3, 4, 5)]


def test_the_limit_never_forgets_an_image_in_use() -> None:
    runtimes = [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    world = built(versionsHistoryLimit=1, runtimes=runtimes)
    assert world.condition()[0] == "True"
    assert {v["runtime"] for v in world.obj["status"]["versions"]} == {"a", "b", "c"}
    build_next(world, 1)
    assert {(v["runtime"], v["commit"]) for v in world.obj["status"]["versions"]} == {
        (name, f"{1:040x}") for name in "abc"
    }


def test_going_back_further_than_the_limit_uses_the_build_that_is_still_there() -> None:
    world = built(versionsHistoryLimit=1)
    build_next(world, 1)
    world.read()
    assert world.settle() == ["status"]
    assert world.condition()[0] == "True"
    assert world.runtime()["commit"] == COMMIT


def test_a_digest_survives_a_lost_status() -> None:
    world = built()
    status = world.obj.pop("status")
    world.settle()
    assert world.obj["status"]["versions"] == status["versions"]
    assert world.obj["status"]["runtimes"] == status["runtimes"]


def test_a_digest_that_is_lost_for_good_is_built_again() -> None:
    world = built()
    del world.obj["status"]
    pod_gone(world, world.job)
    world.settle()
    assert world.condition()[2] == "image default: the build's pod is gone, and its result with it"
    world.seconds += 61
    assert f"create Job {world.job}" in world.settle()


def test_a_build_that_vanishes_is_started_again() -> None:
    world = ProjectWorld()
    world.read()
    world.settle()
    job = world.job
    job_gone(world, job)
    assert world.settle() == [f"create Job {job}"]


@pytest.mark.parametrize("owner", ["another", None])
def test_the_builds_of_others_neither_count_nor_hold_up(owner: str | None) -> None:
    world = built()
    del world.obj["status"]
    foreign = world.jobs.pop(world.job)
    foreign["metadata"]["ownerReferences"] = [{"uid": owner}] if owner else []
    world.jobs["ended"] = foreign
    world.jobs["active"] = {**foreign, "status": {}}
    assert world.settle()[0].startswith("create Job build-demo-")
    assert world.obj["status"]["versions"] == []


def test_the_job_of_a_run_of_the_project_is_no_build() -> None:
    world = built()
    job = created(world.jobs[world.job], 5)
    job["metadata"] = {**job["metadata"], "name": "first-1", "annotations": {}}
    world.jobs["first-1"] = job
    assert world.settle() == []


def test_children_are_looked_at_in_any_order() -> None:
    world = failing()
    seen = world.observed()
    turned = dataclasses.replace(
        seen, jobs=list(reversed(seen.jobs)), pods=list(reversed(seen.pods))
    )
    assert reconcile_project(world.project, turned, world.settings, at(99)) == reconcile_project(
        world.project, seen, world.settings, at(99)
    )
