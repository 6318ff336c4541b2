"""A Run whose Job Kueue admits, takes back, and admits again."""

import pytest
from objects import make_pod, runner_says, stamp, terminated
from run_world import JOB, RunWorld
from world import pod_runs

from labfunctions_operator.api.run import Progress


def suspend(world: RunWorld, seconds: float, **status: str) -> None:
    """Kueue takes the Job back; what the Job says of it comes a moment later."""
    job = world.jobs[JOB]
    job["spec"]["suspend"] = True
    job["status"]["conditions"] = [
        {"type": "Suspended", "lastTransitionTime": stamp(seconds), "status": "True", **status}
    ]
    world.pods.clear()


def resume(world: RunWorld) -> None:
    job = world.jobs[JOB]
    job["spec"]["suspend"] = False
    job["status"]["conditions"] = [
        {"type": "Suspended", "lastTransitionTime": stamp(world.seconds), "status": "False"}
    ]


def admitted() -> RunWorld:
    world = RunWorld(workflowRef={"name": "report"}, queueName="team", pendingTimeoutSeconds=600)
    world.settle()
    world.seconds = 30
    resume(world)
    pod_runs(world, JOB)
    world.settle()
    return world


def queued_again(seconds: float = 1230) -> RunWorld:
    """A Run that has run for a long time, and lost its place."""
    world = admitted()
    world.seconds = seconds
    suspend(world, seconds)
    world.settle()
    return world


def test_a_run_that_is_suspended_waits_anew() -> None:
    world = queued_again()
    assert world.condition[:2] == ("Unknown", "Queued")
    assert world.decide().requeue_after == 600
    world.seconds += 599
    assert world.settle() == []
    resume(world)
    world.settle()
    assert world.condition[1] == "Starting"
    world.seconds += 600
    world.settle()
    assert world.condition[:2] == ("False", "PendingTimedOut")


def test_a_suspension_that_the_job_does_not_tell_of_yet_is_new() -> None:
    world = queued_again()
    suspend(world, 30, status="False")
    assert world.settle() == []
    assert world.condition[:2] == ("Unknown", "Queued")


@pytest.mark.parametrize("ends", [None, "FailureTarget", "Failed"])
def test_a_pod_of_a_queued_job_that_is_deleted_is_judged_once_the_job_has_failed(
    ends: str | None,
) -> None:
    """Kueue takes a Job back by suspending it, which deletes the pod, and admits it again."""
    world = RunWorld(workflowRef={"name": "report"}, queueName="team")
    world.settle()
    assert world.condition[1] == "Queued"
    world.seconds = 52
    world.jobs[JOB]["spec"]["suspend"] = False
    stopped = terminated(143, runner_says("Cancelled"))
    world.pods[JOB] = make_pod(world.jobs[JOB], phase="Failed", notebook=stopped)
    world.pods[JOB]["metadata"]["deletionTimestamp"] = stamp(30)
    world.jobs[JOB]["status"]["conditions"] = [{"type": ends, "status": "True"}] if ends else []
    world.settle()
    assert world.condition[1] == ("Retrying" if ends else "Starting")


def test_progress_is_forgotten_with_the_pod_that_made_it() -> None:
    reported = Progress(cell=7, cells=10, summary="7/10", time=stamp(1220))
    world = admitted()
    world.seconds = 1220
    world.progress = reported
    world.settle()
    assert world.status["progress"]["summary"] == "7/10"
    world.seconds = 1230
    suspend(world, 1230)
    world.settle()
    assert "progress" not in world.status
    world.seconds = 1300
    resume(world)
    pod_runs(world, JOB)
    world.settle()
    assert world.condition == ("Unknown", "Running", "starting the kernel")
    assert "progress" not in world.status
    assert world.status["startTime"] == stamp(30), "it is the Run's, whatever becomes of its pods"
    world.seconds = 1310
    world.progress = reported.but(cell=1, summary="1/10", time=stamp(1305))
    world.settle()
    assert world.status["progress"]["summary"] == "1/10"
