from typing import Any

import pytest
from objects import (
    COMMIT,
    TREE,
    held,
    make_pod,
    make_settings,
    make_source,
    running,
    stamp,
    terminated,
)
from project_world import IMAGE, OTHER_COMMIT, OTHER_TREE, ProjectWorld, built, failing, last_job
from world import job_gone, job_too_late, pod_fails, pod_succeeds

from labfunctions_operator.api.project import Runtime
from labfunctions_operator.desired.build_job import BuildInputs
from labfunctions_operator.reconcile.plan import Problem
from labfunctions_operator.reconcile.runtime import build_inputs


def test_a_new_project_resolves_its_ref_first() -> None:
    world = ProjectWorld()
    assert world.settle() == ["status"]
    assert world.condition("SourceReady") == ("Unknown", "Resolving", "resolving main")
    assert world.condition("ImagesReady") == (
        "Unknown",
        "ImagePending",
        "image default: waiting for the source",
    )
    assert world.condition() == ("Unknown", "Resolving", "resolving main")
    assert world.runtime() == {"name": "default", "phase": "Pending", "message": "", "failures": 0}


MADE = {"name": "made", "image": "example.com/made:1"}


def test_a_project_of_ready_made_images_needs_no_source() -> None:
    world = ProjectWorld(source=None, runtimes=[MADE])
    assert world.settle() == ["status"]
    assert world.condition() == ("True", "Ready", "ready to run: made")
    assert world.condition("SourceReady") == (
        "True",
        "NoSource",
        "there is none: every image is ready made",
    )
    assert "source" not in world.obj["status"]


def test_a_source_that_is_needed_no_more_is_forgotten() -> None:
    world = ProjectWorld(runtimes=[MADE])
    world.read()
    world.settle()
    assert "source" in world.obj["status"]
    world.edit(source=None)
    world.settle()
    assert world.condition() == ("True", "Ready", "ready to run: made")
    assert "source" not in world.obj["status"]


def test_the_first_reading_starts_the_first_build() -> None:
    world = ProjectWorld()
    world.read()
    [secret, create, status] = world.settle()
    assert (secret, create, status) == (
        "apply Secret demo-builder",
        f"create Job {world.job}",
        "status",
    )
    assert world.condition("SourceReady") == (
        "True",
        "Resolved",
        f"main is {COMMIT[:12]}: Add the analysis",
    )
    assert world.condition() == (
        "Unknown",
        "ImageBuilding",
        f"image default: building {COMMIT[:12]}: waiting for the pod to be created",
    )
    assert world.obj["status"]["source"] == {
        "ref": "main",
        "commit": COMMIT,
        "author": "Ada",
        "message": "Add the analysis",
        "resolvedAt": stamp(0),
    }
    assert world.secrets["demo-builder"]["stringData"]["tls.key"] == "KEY"


def test_a_builder_of_its_own_needs_no_certificate() -> None:
    world = ProjectWorld(settings=make_settings("perBuild"))
    world.read()
    assert world.settle() == [f"create Job {world.job}", "status"]


def test_a_build_says_what_it_does() -> None:
    world = ProjectWorld()
    world.read()
    world.settle()
    said = []
    steps: list[dict[str, Any]] = [
        {"phase": "Pending"},
        {"phase": "Pending", "others": [("source", running())]},
        {"phase": "Pending", "others": [("source", held("ErrImagePull"))]},
        {"others": [("source", terminated(0)), ("build", running())]},
    ]
    for step in steps:
        world.pods[world.job] = make_pod(world.jobs[world.job], **step)
        assert world.settle() == ["status"]
        assert world.settle() == []
        said.append(world.condition()[2].removeprefix(f"image default: building {COMMIT[:12]}: "))
    assert said == [
        "preparing the pod on its node",
        "fetching the source",
        "cannot pull example.com/source: ErrImagePull",
        "building the image",
    ]


def test_a_finished_build_makes_the_project_ready() -> None:
    world = built()
    assert world.condition() == ("True", "Ready", "ready to run: default")
    inputs = build_inputs(world.project.spec.effective_runtimes[0], make_source())
    assert isinstance(inputs, BuildInputs)
    version = {
        "image": IMAGE,
        "inputsHash": inputs.inputs_hash,
        "commit": COMMIT,
        "tree": TREE,
        "builtAt": stamp(60),
    }
    assert world.obj["status"]["versions"] == [{"runtime": "default", **version}]
    assert world.runtime() == {
        "name": "default",
        "phase": "Ready",
        "message": "",
        "failures": 0,
        **version,
    }


def test_the_same_inputs_need_no_build() -> None:
    world = built()
    job_gone(world, world.job)
    assert world.settle() == []


def test_a_change_of_code_makes_a_new_build_and_keeps_the_old_image_until_then() -> None:
    world = built()
    world.read(commit=OTHER_COMMIT, tree=OTHER_TREE)
    writes = world.settle()
    assert writes == [f"create Job {last_job(world)}", "status"]
    assert world.runtime()["image"] == IMAGE
    assert world.runtime()["commit"] == COMMIT
    assert world.condition() == (
        "Unknown",
        "ImageBuilding",
        f"image default: building {OTHER_COMMIT[:12]}: waiting for the pod to be created "
        "(the last good image stays in use)",
    )
    pod_succeeds(world, last_job(world))
    assert world.settle() == ["status"]
    assert world.runtime()["commit"] == OTHER_COMMIT
    assert [v["commit"] for v in world.obj["status"]["versions"]] == [COMMIT, OTHER_COMMIT]


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"requirements.txt": "pandas==2\n"}},
        {"files": {}},
        {"tree": OTHER_TREE},
    ],
)
def test_whatever_goes_into_the_image_makes_a_new_build(change: dict[str, Any]) -> None:
    world = built()
    world.read(**change)
    assert world.settle()[0].startswith("create Job build-demo-")


@pytest.mark.parametrize(
    "runtime",
    [
        {"python": "3.12"},
        {"packages": ["git"]},
        {"env": {"A": "1"}},
        {"baseImage": "own:1"},
        {"user": {"uid": 5}},
    ],
)
def test_whatever_the_runtime_says_makes_a_new_build(runtime: dict[str, Any]) -> None:
    world = built()
    world.edit(runtimes=[{"name": "default", **runtime}])
    assert world.settle()[0].startswith("create Job build-demo-")


def test_a_commit_outside_of_the_path_moves_the_source_and_builds_nothing() -> None:
    world = built()
    world.seconds = 100
    world.read(commit=OTHER_COMMIT)
    assert world.settle() == ["status"]
    assert world.obj["status"]["source"]["commit"] == OTHER_COMMIT
    assert world.obj["status"]["source"]["resolvedAt"] == stamp(100)
    assert world.runtime()["commit"] == COMMIT
    assert world.condition()[0] == "True"


def test_a_failed_build_keeps_the_last_good_image_and_says_so() -> None:
    world = failing()
    assert world.runtime()["image"] == IMAGE
    assert world.runtime()["phase"] == "Failed"
    assert world.condition() == (
        "False",
        "ImageBuildFailed",
        "image default: pip: no such package (the last good image stays in use)",
    )
    assert world.condition("SourceReady")[0] == "True"


def test_a_first_build_that_fails_has_no_image_to_keep() -> None:
    world = ProjectWorld()
    world.read()
    world.settle()
    pod_fails(world, world.job)
    world.settle()
    assert "image" not in world.runtime()
    assert world.condition() == ("False", "ImageBuildFailed", "image default: pip: no such package")


def test_a_build_out_of_time_says_so() -> None:
    world = ProjectWorld()
    world.read()
    world.settle()
    job_too_late(world, world.job)
    world.settle()
    assert world.condition()[2] == "image default: the build took longer than build.timeoutSeconds"


def test_a_failed_build_is_tried_again_each_time_twice_as_late_up_to_an_hour() -> None:
    world = failing()
    waits = []
    for failures in range(1, 10):
        job = last_job(world)
        start = world.seconds
        wait = world.step().requeue_after
        assert wait is not None
        waits.append(wait)
        world.seconds = start + wait - 1
        assert world.settle() == [], "not before it is due"
        world.seconds = start + wait
        assert world.settle()[:2] == [f"delete Job {job}", f"create Job {job}"]
        assert world.runtime()["phase"] == "Building"
        pod_fails(world, job)
        assert world.settle() == ["status"]
        assert world.runtime()["failures"] == failures + 1
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_since_when_an_image_cannot_be_built_is_told_until_it_can() -> None:
    world = failing()
    first = stamp(world.seconds)
    assert world.runtime()["failedSince"] == first
    for _ in range(2):
        world.seconds += 600
        world.settle()
        assert (world.runtime()["phase"], world.runtime()["failedSince"]) == ("Building", first)
        pod_fails(world, last_job(world))
        world.settle()
        assert (world.runtime()["phase"], world.runtime()["failedSince"]) == ("Failed", first)
    world.read(commit="c" * 40, tree="d" * 40)
    world.settle()
    assert "failedSince" not in world.runtime()
    world.seconds += 10
    pod_fails(world, last_job(world))
    world.settle()
    assert world.runtime()["failedSince"] == stamp(world.seconds)


def test_a_good_build_ends_the_count_of_failures() -> None:
    world = failing()
    world.seconds += 60
    world.settle()
    pod_succeeds(world, last_job(world))
    world.settle()
    assert world.runtime()["failures"] == 0
    assert "failedSince" not in world.runtime()
    assert world.condition()[0] == "True"


def test_new_code_after_a_failure_is_built_at_once_and_counted_anew() -> None:
    world = failing()
    world.read(commit="c" * 40, tree="d" * 40)
    assert world.settle()[0].startswith("create Job")
    pod_fails(world, last_job(world))
    world.settle()
    assert world.runtime()["failures"] == 1


@pytest.mark.parametrize("make", [built, failing])
def test_a_restart_with_an_empty_memory_writes_nothing(make: Any) -> None:
    world = make()
    world.restart()
    world.seconds += 1000
    plan = world.decide()
    assert plan.status == world.obj["status"]
    assert (plan.apply, plan.delete) == ((), ())


def test_a_restart_while_the_source_cannot_be_read_writes_nothing() -> None:
    world = built()
    world.cannot_read()
    world.settle()
    assert world.condition() == ("False", "RefNotFound", "no branch main")
    world.restart()
    assert world.decide().status == world.obj["status"]


def test_a_source_that_cannot_be_read_leaves_images_alone() -> None:
    world = built()
    world.cannot_read("GitUnreachable", "cannot reach git.example.com")
    assert world.settle() == ["status"]
    assert world.condition() == ("False", "GitUnreachable", "cannot reach git.example.com")
    assert world.condition("ImagesReady")[0] == "True"
    assert world.runtime()["image"] == IMAGE
    world.read()
    world.settle()
    assert world.condition()[0] == "True"


def test_a_new_spec_is_not_called_resolved_by_the_word_for_the_old_one() -> None:
    world = built()
    world.edit(source={"git": {"url": "https://git.example.com/x.git", "ref": "v2"}})
    world.restart()
    world.settle()
    assert world.condition("SourceReady") == ("Unknown", "Resolving", "resolving v2")


def test_each_runtime_has_its_own_build_and_both_must_be_good() -> None:
    world = ProjectWorld(runtimes=[{"name": "cpu"}, {"name": "gpu", "template": "gpu"}])
    world.read()
    world.settle()
    assert len(world.jobs) == 2
    cpu, gpu = world.jobs
    pod_succeeds(world, cpu)
    world.settle()
    assert world.condition() == (
        "Unknown",
        "ImageBuilding",
        f"image gpu: building {COMMIT[:12]}: waiting for the pod to be created",
    )
    pod_succeeds(world, gpu)
    world.settle()
    assert world.condition() == ("True", "Ready", "ready to run: cpu, gpu")


def test_another_runtime_leaves_the_images_of_the_others_alone() -> None:
    world = built()
    world.edit(
        runtimes=[{"name": "default"}, {"name": "extra", "requirements": "extra/requirements.txt"}]
    )
    files = {"requirements.txt": "pandas\n", "extra/requirements.txt": "torch\n"}
    world.read(files=files)
    world.settle()
    assert world.runtime()["phase"] == "Ready"
    assert world.runtime("extra")["phase"] == "Building"
    assert len(world.jobs) == 2


def test_a_runtime_builds_one_commit_at_a_time() -> None:
    world = ProjectWorld()
    world.read()
    world.settle()
    first = world.job
    world.read(commit=OTHER_COMMIT, tree=OTHER_TREE)
    assert world.settle() == ["status"]
    assert world.condition()[2].startswith(f"image default: building {COMMIT[:12]}")
    pod_succeeds(world, first)
    assert world.settle()[0].startswith("create Job")
    assert world.condition()[2].startswith(f"image default: building {OTHER_COMMIT[:12]}")


def test_a_ready_made_image_is_not_built() -> None:
    world = ProjectWorld(runtimes=[{"name": "ready", "image": "example.com/ready:1"}])
    world.read()
    assert world.settle() == ["status"]
    assert world.runtime("ready")["image"] == "example.com/ready:1"
    assert world.condition() == ("True", "Ready", "ready to run: ready")


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ({"dockerfile": "images/Dockerfile"}, "images/Dockerfile is not in the source at "),
        ({"requirements": "all.txt"}, "all.txt is not in the source at "),
    ],
)
def test_a_file_that_is_missing_is_named(runtime: dict[str, Any], message: str) -> None:
    world = ProjectWorld(runtimes=[{"name": "default", **runtime}])
    world.read()
    assert world.settle() == ["status"]
    assert world.condition()[2] == f"image default: {message}{COMMIT[:12]}"
    world.read(files={next(iter(runtime.values())): "FROM python\n"}, tree=OTHER_TREE)
    assert world.settle()[1].startswith("create Job")


def test_a_dockerfile_of_ones_own_is_used_as_it_is() -> None:
    text = "FROM python:3.12\n"
    runtime = Runtime(name="own", dockerfile="Dockerfile")
    inputs = build_inputs(runtime, make_source(files={"Dockerfile": text}))
    assert isinstance(inputs, BuildInputs)
    assert inputs.dockerfile == text


def test_since_when_a_file_is_missing_is_told() -> None:
    world = ProjectWorld()
    world.edit(runtimes=[{"name": "default", "dockerfile": "D"}])
    world.seconds = 20
    world.read(files={})
    world.settle()
    world.seconds = 90
    world.settle()
    assert world.runtime()["failedSince"] == stamp(20)


def test_problems_of_the_files_have_reasons() -> None:
    source = make_source(files={})
    for runtime, reason in (
        (Runtime(name="a", dockerfile="D"), "DockerfileNotFound"),
        (Runtime(name="a", requirements="r.txt"), "RequirementsNotFound"),
    ):
        problem = build_inputs(runtime, source)
        assert isinstance(problem, Problem)
        assert problem.reason == reason


def test_suspend_builds_nothing_and_keeps_what_is_built() -> None:
    world = built()
    world.edit(suspend=True)
    world.read(commit=OTHER_COMMIT, tree=OTHER_TREE)
    assert world.settle() == ["status"]
    assert world.condition() == (
        "False",
        "Suspended",
        "spec.suspend is set: neither ref nor images are followed",
    )
    assert world.runtime()["image"] == IMAGE
    world.edit(suspend=False)
    assert world.settle()[0].startswith("create Job")
