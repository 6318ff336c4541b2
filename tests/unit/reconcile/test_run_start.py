"""A pod that cannot start is given the time in which somebody can mend it."""

from typing import Any

import pytest
from objects import held, make_pod, stamp
from run_world import JOB, RunWorld, started
from world import pod_cannot_pull

from labfunctions_operator.reconcile.pods import PodEvent
from labfunctions_operator.reconcile.timing import START_PATIENCE

PATIENCE = START_PATIENCE.total_seconds()


def test_an_image_that_cannot_be_pulled_ends_the_run_and_its_job() -> None:
    world = started()
    pod_cannot_pull(world, JOB)
    world.settle()
    world.seconds = 400
    writes = world.settle()
    assert world.condition == (
        "False",
        "ImagePullFailed",
        "cannot pull example.com/notebook: no such image",
    )
    assert f"delete Job {JOB}" in writes, "or it would go on trying, and maybe run after all"
    assert world.status["attempts"][0]["reason"] == "ImagePullFailed"


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (held("ImagePullBackOff", "no such image"), "ImagePullFailed"),
        (held("CreateContainerConfigError", "no such secret"), "StartError"),
        (held("PodInitializing"), None),
    ],
)
def test_what_can_still_be_mended_is_given_time(state: dict[str, Any], reason: str | None) -> None:
    world = started()
    world.pods[JOB] = make_pod(world.jobs[JOB], phase="Pending", notebook=state)
    world.seconds = PATIENCE - 1
    world.settle()
    assert not world.run.is_finished
    assert world.decide().requeue_after == (1 if reason else 10)
    world.seconds = PATIENCE
    world.settle()
    if reason is None:
        assert not world.run.is_finished
    else:
        assert world.condition[:2] == ("False", reason)
        assert world.condition[2].endswith(state["waiting"]["message"])
        assert world.status["completionTime"] == stamp(PATIENCE)


def test_a_volume_that_is_not_there_is_given_time() -> None:
    world = started()
    world.event = PodEvent("FailedMount", 'configmap "b" not found')
    world.pods[JOB] = make_pod(world.jobs[JOB], phase="Pending")
    world.seconds = PATIENCE - 1
    world.settle()
    assert world.condition[1] == "StartError"
    world.seconds = PATIENCE
    world.settle()
    assert world.condition[:2] == ("False", "StartError")


def test_what_events_say_of_a_start_is_kept_while_they_are_read_anew() -> None:
    world = started()
    world.event = PodEvent("Pulling", 'Pulling image "x"')
    world.pods[JOB] = make_pod(world.jobs[JOB], phase="Pending")
    world.seconds = 9
    world.settle()
    assert world.condition[1] == "Pulling"
    world.event, world.asking = None, True
    assert world.settle() == []
    pod_cannot_pull(world, JOB)
    world.settle()
    assert world.condition[1] == "ImagePullFailed", "the pod itself says so"


def on_a_node(world: RunWorld, seconds: float, **state: Any) -> None:
    condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(seconds)}
    world.pods[JOB] = make_pod(world.jobs[JOB], phase="Pending", conditions=[condition], **state)


def test_the_wait_for_a_node_takes_nothing_from_the_time_for_the_start() -> None:
    world = started()
    world.seconds = 1200
    on_a_node(world, 1190, notebook=held("ErrImagePull", "i/o timeout"))
    world.settle()
    assert world.condition[:2] == ("Unknown", "ImagePullFailed")
    world.seconds = 1190 + PATIENCE
    world.settle()
    assert world.condition[:2] == ("False", "ImagePullFailed")


def test_a_pull_that_takes_longer_is_tried_again_when_it_fails() -> None:
    world = started()
    failed = PATIENCE + 60
    world.event = PodEvent("Pulling", 'Pulling image "x"', failing_since=stamp(failed))
    on_a_node(world, 1, notebook=held("ErrImagePull", "connection reset"))
    world.seconds = failed + PATIENCE - 1
    world.settle()
    assert world.condition[:2] == ("Unknown", "ImagePullFailed")
    world.event, world.asking = None, True
    world.seconds = failed + PATIENCE
    world.settle()
    assert not world.run.is_finished, "since when it fails is still being asked"
    assert world.decide().requeue_after == 10
    world.event, world.asking = PodEvent("Pulling", "", failing_since=stamp(failed)), False
    world.settle()
    assert world.condition[:2] == ("False", "ImagePullFailed")
