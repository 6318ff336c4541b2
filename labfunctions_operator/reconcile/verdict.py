"""What became of an attempt: from a Pod and its Job to a reason and one line for a person."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import Field, JsonValue

from labfunctions_operator.api.run import Cell, ExceptionInfo, Failure, Progress
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.api.types import Model
from labfunctions_operator.desired.run_pod import COURIER, NOTEBOOK
from labfunctions_operator.reconcile.jobs import end_of
from labfunctions_operator.reconcile.pods import (
    Object,
    container_state,
    disruption,
    is_over,
    is_refused,
    one_line,
)

SUCCEEDED = "Succeeded"
# When a container started that could not be, in the words of the kubelet.
NEVER = "1970-01-01T00:00:00Z"
# What the kubelet says of a container that its node cannot find any more.
_LOST = ("ContainerStatusUnknown", "Unknown")
# A living kubelet needs no longer to notice that a pod is to end, or that its grace is over.
LOST_AFTER = timedelta(seconds=30)


class RunnerResult(Model):
    """What the runner wrote into the notebook container's termination message."""

    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]{1,63}$")]
    message: str = ""
    cell: Cell | None = None
    exception: ExceptionInfo | None = None
    progress: Progress | None = None
    results: dict[str, JsonValue] | None = None
    versions: dict[str, str] | None = None
    notebook_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How an attempt ended.

    Attributes:
        reason: `Succeeded` or one of the failure reasons.
        message: One line for a person.
        failure: Details, unless it succeeded.
        progress: How far the notebook came, where the runner could say.
        started: When the notebook's container started, if it did.
        finished: When it ended.
        stored: The files that reached the store, each with its entity tag; None where no courier
            is left to say it.
        notebook_sha256: Of the notebook that was executed.
        results: What the notebook returned.
        versions: Of what ran it.
    """

    reason: str
    message: str
    failure: Failure | None = None
    progress: Progress | None = None
    started: str | None = None
    finished: str | None = None
    stored: Mapping[str, str] | None = None
    notebook_sha256: str | None = None
    results: Mapping[str, Any] | None = None
    versions: Mapping[str, str] | None = None


def judge(
    job: Object | None, pod: Object | None, now: datetime, *, node_silent: bool = False
) -> Verdict | None:
    """Say how an attempt ended, or None while it has not.

    A pod counts as ended when all its containers are: the courier's last upload belongs to it.

    Args:
        job: Of the attempt.
        pod: Of the Job.
        now: For what only time can tell.
        node_silent: Whether the pod's node is gone, or does not report any more.
    """
    if pod is None:
        return _without_pod(job)
    if is_over(pod):
        return _of_ended_pod(pod)
    left = lost_in(pod, now, node_silent=node_silent)
    if left is not None and left <= 0:
        return _failed(
            "Disrupted",
            "the pod had to end and never did: its node is lost",
            started=notebook_started(pod),
            finished=rfc3339(now),
        )
    return None


def lost_in(pod: Object | None, now: datetime, *, node_silent: bool = False) -> float | None:
    """Return the seconds after which a pod that must end counts as lost with its node.

    A kubelet that does not report cannot know that the pod is to end: its grace period would pass
    without any effect, so that nothing is gained by waiting for it.
    """
    deadline = (pod or {}).get("metadata", {}).get("deletionTimestamp")
    if not deadline:
        return None
    since = asked_to_end(pod) if node_silent else None
    return ((since or parse_time(deadline)) + LOST_AFTER - now).total_seconds()


def asked_to_end(pod: Object | None) -> datetime | None:
    """Return when a pod's deletion was asked for, if it was."""
    metadata = (pod or {}).get("metadata", {})
    if not metadata.get("deletionTimestamp"):
        return None
    grace = timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)
    return parse_time(metadata["deletionTimestamp"]) - grace


def notebook_started(pod: Object | None) -> str | None:
    """Return when the notebook's container started, if it runs or ran."""
    state = container_state(pod, NOTEBOOK) if pod else {}
    started = (state.get("running") or state.get("terminated") or {}).get("startedAt")
    return str(started) if started and started != NEVER else None


def _without_pod(job: Object | None) -> Verdict | None:
    end = end_of(job) if job else None
    if end is None:
        return None
    return _failed(
        "Disrupted",
        "the pod is gone before its result was seen: deleted, or lost with its node",
        finished=end.get("lastTransitionTime"),
    )


def _of_ended_pod(pod: Object) -> Verdict:
    status = pod["status"]
    terminated = container_state(pod, NOTEBOOK).get("terminated", {})
    stored, upload_error = _courier_result(pod)
    times: dict[str, Any] = {
        "started": notebook_started(pod),
        "finished": terminated.get("finishedAt") or status.get("startTime"),
        "stored": stored,
    }
    result = _runner_result(terminated.get("message"))
    if result:
        times |= {
            "results": _storable(result.results),
            "versions": result.versions,
            "notebook_sha256": result.notebook_sha256,
        }
    # What the courier stored while the notebook ran is there whatever came after.
    is_stored = "notebook.ipynb" in stored if stored is not None else times["started"]
    unstored = "its last state " if is_stored else ""
    if result and result.reason == SUCCEEDED:
        if upload_error:
            return _failed(
                "OutputLost",
                f"the notebook ran, but {unstored}could not be stored: {upload_error}",
                progress=result.progress,
                **times,
            )
        return Verdict(reason=SUCCEEDED, message=result.message, progress=result.progress, **times)
    lost = ""
    if upload_error:
        lost = f"; {unstored or 'its notebook '}could not be stored: {upload_error}"
    if result and terminated.get("reason") != "OOMKilled":
        return _failed(
            result.reason,
            result.message + lost,
            cell=result.cell,
            exception=result.exception,
            exit_code=terminated.get("exitCode"),
            progress=result.progress,
            **times,
        )
    reason, message = _without_result(pod, terminated)
    return _failed(
        reason,
        message + lost,
        cell=result.cell if result else None,
        exit_code=terminated.get("exitCode"),
        progress=result.progress if result else None,
        **times,
    )


def _without_result(pod: Object, terminated: Mapping[str, Any]) -> tuple[str, str]:
    """Explain an end of which the runner could say nothing."""
    code = terminated.get("exitCode")
    if terminated.get("reason") == "OOMKilled":
        limit = _memory_limit(pod)
        return "OutOfMemory", f"the notebook used more memory than its limit{limit}"
    if why := disruption(pod):
        return "Disrupted", why
    if why := _lost_container(pod, terminated):
        return "Disrupted", why
    if code == 127:
        return "RunnerMissing", "the image has no python; build it from a project, or add papermill"
    if terminated.get("reason") in ("StartError", "ContainerCannotRun"):
        return "StartError", one_line(terminated.get("message") or "the container did not start")
    if code == 137:
        return "KernelDied", "the notebook's container was killed from outside (SIGKILL)"
    if code is None:
        return "Disrupted", one_line(
            pod["status"].get("message") or "the pod ended before the notebook ran"
        )
    return "InternalError", f"the runner ended with exit code {code} and left no result"


def _lost_container(pod: Object, terminated: Mapping[str, Any]) -> str | None:
    """Say what became of a container that its node had to kill, or cannot find any more."""
    is_lost = terminated.get("reason") in _LOST
    if "deletionTimestamp" in pod["metadata"] and (is_lost or terminated.get("exitCode") == 137):
        ran = "could end" if notebook_started(pod) else "ran"
        return f"the pod was deleted before the notebook {ran}"
    return "the node lost the notebook's container, as when it restarts" if is_lost else None


def _failed(
    reason: str,
    message: str,
    *,
    cell: Cell | None = None,
    exception: ExceptionInfo | None = None,
    exit_code: int | None = None,
    **known: Any,
) -> Verdict:
    failure = Failure(reason=reason, cell=cell, exception=exception, exit_code=exit_code)
    return Verdict(reason=reason, message=message, failure=failure, **known)


def _storable(value: Any) -> Any:
    """Write integers that the API server would turn into other numbers as text."""
    if isinstance(value, dict):
        return {name: _storable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_storable(inner) for inner in value]
    is_large = isinstance(value, int) and not -(2**63) <= value < 2**63
    return str(value) if is_large else value


def _runner_result(text: str | None) -> RunnerResult | None:
    """Read the runner's message; the user's code may have put anything there."""
    try:
        result = RunnerResult.model_validate(json.loads(text or ""))
    except (ValueError, RecursionError):
        return None
    if result.progress and not result.progress.summary:
        p = result.progress
        result = result.but(progress=p.but(summary=f"{p.cell}/{p.cells}"))
    return result


def _courier_result(pod: Object) -> tuple[dict[str, str] | None, str | None]:
    """Return what the courier stored, if it is left to say so, and what went wrong.

    It leaves word as soon as anything is stored: one that ended without has stored nothing.
    """
    if is_refused(pod):
        return {}, None
    terminated = container_state(pod, COURIER).get("terminated", {})
    is_lost = terminated.get("reason") in _LOST or not terminated
    try:
        report = json.loads(terminated.get("message") or "")
        uploads, error = report.get("uploads") or {}, report.get("error")
        stored = {str(name): str(receipt["etag"]) for name, receipt in uploads.items()}
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None if is_lost else {}, "the courier was stopped before it could finish"
    return stored, one_line(str(error)) if error else None


def _memory_limit(pod: Object) -> str:
    for container in pod.get("spec", {}).get("containers", []):
        if container.get("name") == NOTEBOOK:
            limit = container.get("resources", {}).get("limits", {}).get("memory")
            return f" of {limit}" if limit else ""
    return ""
