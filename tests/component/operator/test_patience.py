"""What waits is given up in time, and no earlier: a real API server, the test's clock."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from labfunctions_operator.reconcile.timing import START_PATIENCE

from .api import condition, until
from .kubelet import Kubelet
from .mortal import MortalClient
from .objects import inline_run, project
from .theatre import Theatre, client, operator_config, theatre

__all__ = ["client", "operator_config", "theatre"]


@pytest.mark.parametrize(
    ("said", "text", "reason"),
    [
        ("ErrImagePull", "manifest unknown", "ImagePullFailed"),
        ("CreateContainerConfigError", 'secret "nowhere" not found', "StartError"),
    ],
)
async def test_what_cannot_start_fails_when_patience_ends(  # noqa: PLR0917
    theatre: Theatre, client: MortalClient, kubelet: Kubelet, said: str, text: str, reason: str
) -> None:
    api, namespace = theatre.api, theatre.namespace
    operator = theatre.hire(client)
    theatre.clock.now = datetime.now(UTC)
    api.create(project(namespace, "https://git.test/wine.git", suspend=True))
    await operator.settle(namespace, "wine", "Project")
    api.create(inline_run(namespace))
    await operator.settle(namespace, "first", "Run")
    pod = kubelet.pod(namespace, run="first")
    kubelet.report(pod, "Pending", {"notebook": {"waiting": {"reason": said, "message": text}}})

    async def look(after: timedelta) -> tuple[str, str, str]:
        theatre.clock.now = datetime.now(UTC) + after
        await operator.settle(namespace, "first", "Run")
        run = api.get("Run", namespace, "first")
        assert run is not None
        found = condition(run, "Succeeded")
        assert text in found["message"]
        return run["status"]["phase"], found["status"], found["reason"]

    assert await look(START_PATIENCE / 2) == ("Starting", "Unknown", reason)
    assert await look(START_PATIENCE * 2) == ("Starting", "Unknown", "Stopping")
    await look(START_PATIENCE * 2)
    kubelet.remove(pod)
    until(lambda: not api.list("Job", namespace), "its Job is gone")
    assert await look(START_PATIENCE * 2) == ("Failed", "False", reason)


async def test_a_run_that_its_queue_takes_back_waits_anew(
    theatre: Theatre, client: MortalClient, kubelet: Kubelet
) -> None:
    api, namespace = theatre.api, theatre.namespace
    operator = theatre.hire(client)

    async def look(after: float = 0) -> str:
        theatre.clock.now = datetime.now(UTC) + timedelta(seconds=after)
        await operator.settle(namespace, "first", "Run")
        return str(condition(api.get("Run", namespace, "first"), "Succeeded")["reason"])

    def suspend(suspended: bool) -> None:
        api.patch("Job", namespace, "first-1", {"spec": {"suspend": suspended}})
        until(
            lambda: (
                condition(api.get("Job", namespace, "first-1"), "Suspended").get("status")
                == str(suspended)
            ),
            "the Job says so",
        )

    theatre.clock.now = datetime.now(UTC)
    api.create(project(namespace, "https://git.test/wine.git", suspend=True))
    await operator.settle(namespace, "wine", "Project")
    api.create(inline_run(namespace, queueName="team", pendingTimeoutSeconds=10))
    assert await look() == "Queued"
    suspend(False)
    kubelet.run(kubelet.pod(namespace, run="first"))
    assert await look() == "Running"
    await asyncio.sleep(10)
    suspend(True)
    assert await look() == "Queued"
    suspend(False)
    assert await look(5) in ("Starting", "Unschedulable")
    assert await look(12) == "Stopping"
