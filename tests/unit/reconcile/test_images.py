"""Which image ran, where all that was asked for is a tag."""

from typing import Any

import pytest
from objects import DIGEST, make_pod, make_run, running
from run_world import JOB, RunWorld, ready_project, started
from world import pod_fails, pod_runs, pod_succeeds

from labfunctions_operator.api.run import Run, Snapshot
from labfunctions_operator.reconcile.admission import admit
from labfunctions_operator.reconcile.pods import image_by_digest

TAG = "localhost:30500/team/ready:1"
PINNED = f"localhost:30500/team/ready@{DIGEST}"


@pytest.mark.parametrize(
    ("image", "image_id", "want"),
    [
        (TAG, PINNED, PINNED),
        ("localhost:30500/team/ready", PINNED, PINNED),
        ("python:3.11-slim", f"docker.io/library/python@{DIGEST}", f"python@{DIGEST}"),
        ("python", f"docker-pullable://python@{DIGEST}", f"python@{DIGEST}"),
        (TAG, f"mirror.example.com/other@{DIGEST}", PINNED),
        (TAG, DIGEST, None),
        (TAG, f"docker://{DIGEST}", None),
        (TAG, "d" * 64, None),
        (TAG, f"{PINNED}0", None),
        (TAG, "", None),
        (TAG, None, None),
        (PINNED, PINNED, None),
    ],
)
def test_an_image_is_known_by_digest_where_its_node_knows_it_so(
    image: str, image_id: str | None, want: str | None
) -> None:
    pod = make_pod(notebook=running(), courier=running())
    for status in pod["status"]["containerStatuses"]:
        status["imageID"] = image_id
    assert image_by_digest(pod, "notebook", image) == want
    assert image_by_digest(make_pod(), "notebook", image) is None


def runs() -> RunWorld:
    """A Run of a ready-made image whose notebook runs."""
    world = started(workflowRef={"name": "report"}, retries={"limit": 1})
    image_of(world, JOB)["image"] = TAG
    world.seconds = 2
    pod_runs(world, JOB)
    know_the_image(world)
    assert world.settle() == ["status"]
    return world


def ran() -> RunWorld:
    """The same, once it has ended."""
    world = runs()
    pod_succeeds(world, JOB)
    world.settle()
    return world


def image_of(world: RunWorld, job: str) -> dict[str, Any]:
    container: dict[str, Any] = world.jobs[job]["spec"]["template"]["spec"]["containers"][0]
    return container


def know_the_image(world: RunWorld) -> None:
    [status] = world.pods[JOB]["status"]["containerStatuses"]
    status["imageID"] = PINNED


def test_the_digest_is_put_on_record_with_the_running_notebook_and_stays() -> None:
    world = ran()
    assert [a["image"] for a in world.status["attempts"]] == [PINNED]
    assert world.writes == [f"create Job {JOB}", "status", "status"]


def test_a_repeat_runs_the_image_that_ran_not_what_the_tag_names_by_now() -> None:
    world = ran()
    snapshot = repeated(world.run)
    assert snapshot.image == PINNED
    assert world.run.status.snapshot
    assert snapshot == world.run.status.snapshot.but(image=PINNED)


def test_the_next_attempt_runs_the_image_that_ran() -> None:
    world = runs()
    pod_fails(world, JOB)
    world.settle()
    world.seconds = 60
    world.settle()
    assert image_of(world, "first-2")["image"] == PINNED


def test_a_repeat_of_an_image_by_digest_runs_that() -> None:
    world = RunWorld()
    world.project = ready_project()
    world.settle()
    world.seconds = 2
    pod_runs(world, JOB)
    know_the_image(world)
    world.settle()
    assert "image" not in world.status["attempts"][0]
    assert repeated(world.run) == world.run.status.snapshot


def repeated(origin: Run) -> Snapshot:
    repeat = make_run("again", notebook=None, **{"from": origin.metadata.name})
    admitted = admit(repeat, workflow=None, project=None, source=None, origin=origin)
    assert isinstance(admitted, Snapshot)
    return admitted
