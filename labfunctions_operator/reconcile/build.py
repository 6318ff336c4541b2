"""What became of a build: from its Job and pods to a digest or a line that says what is wrong."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labfunctions_operator.api import labels
from labfunctions_operator.desired.build_job import BUILD_CONTAINER, SOURCE_CONTAINER
from labfunctions_operator.reconcile.jobs import end_of
from labfunctions_operator.reconcile.pods import Object, container_state, waiting


@dataclass(frozen=True, kw_only=True)
class BuildOutcome:
    """One build Job as it stands.

    Attributes:
        job: The Job's name.
        uid: The Job's uid.
        runtime: The runtime it builds.
        inputs_hash: What it builds from.
        commit: The commit it fetches.
        tree: Git's id of the folder in that commit.
        is_over: Whether it has ended.
        digest: The pushed image's digest, if it succeeded.
        error: One line for a person, if it failed.
        finished: When it ended.
        step: What it does now, while it lasts.
    """

    job: str
    uid: str
    runtime: str
    inputs_hash: str
    commit: str
    tree: str
    is_over: bool
    digest: str | None = None
    error: str | None = None
    finished: str | None = None
    step: str = ""


def read_build(job: Object, pods: Sequence[Object]) -> BuildOutcome | None:
    """Read a build Job and the pod that ran it; None where the Job is no build of ours."""
    meta = job["metadata"]
    what = _what_is_built(meta)
    if what is None:
        return None
    known = {"job": meta["name"], "uid": meta["uid"], **what}
    end = end_of(job)
    pod = next(
        (
            p
            for p in pods
            if any(o.get("uid") == meta["uid"] for o in p["metadata"].get("ownerReferences", []))
        ),
        None,
    )
    if end is None:
        return BuildOutcome(is_over=False, step=_step(pod), **known)
    finished = end.get("lastTransitionTime")
    messages = _messages(pod) if pod else []
    digest = next((m["digest"] for m in messages if m.get("digest")), None)
    if end["type"] == "Complete" and digest:
        return BuildOutcome(is_over=True, digest=digest, finished=finished, **known)
    error = next((m["error"] for m in messages if m.get("error")), None)
    # The first line says what is wrong; the build's log has the rest.
    line = (error or _without_message(end, pod)).strip().partition("\n")[0]
    return BuildOutcome(is_over=True, error=line, finished=finished, **known)


def _step(pod: Object | None) -> str:
    why = waiting(pod, BUILD_CONTAINER)
    if why is None:
        return "building the image"
    if pod and "running" in container_state(pod, SOURCE_CONTAINER):
        return "fetching the source"
    return why.message


def _what_is_built(metadata: Mapping[str, Any]) -> dict[str, str] | None:
    """Read our annotation; Jobs of Runs carry the project's label too, but not this."""
    try:
        what = json.loads(metadata["annotations"][labels.BUILD_ANNOTATION])
        return {
            "runtime": str(what["runtime"]),
            "inputs_hash": str(what["inputsHash"]),
            "commit": str(what["commit"]),
            "tree": str(what["tree"]),
        }
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _without_message(end: Mapping[str, Any], pod: Object | None) -> str:
    if end.get("reason") == "DeadlineExceeded":
        return "the build took longer than build.timeoutSeconds"
    if pod is None:
        return "the build's pod is gone, and its result with it"
    return f"the build ended without a result: {end.get('message') or end.get('reason')}"


def _messages(pod: Object) -> list[dict[str, str]]:
    """Read what the build's containers left as termination messages."""
    status = pod.get("status", {})
    messages = []
    for container in [
        *status.get("initContainerStatuses", []),
        *status.get("containerStatuses", []),
    ]:
        text = container.get("state", {}).get("terminated", {}).get("message")
        try:
            message = json.loads(text or "")
        except (ValueError, RecursionError):
            continue
        if isinstance(message, dict):
            messages.append({k: v for k, v in message.items() if isinstance(v, str)})
    return messages
