"""Reading pods: what a container does, and why it does not run yet."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]

_PULL_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_CONFIG_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


# What the scheduler adds after the reasons that count.
_PREEMPTION = re.compile(r" (no new claims to deallocate|preemption: ).*$")
_REFUSED_POD = re.compile(r'^Error creating: pods "[^"]*" is forbidden: ')


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Why an attempt does not run yet: a stable reason and one line for a person."""

    reason: str
    message: str


def waiting(pod: Object | None, container: str) -> Waiting | None:
    """Say why a pod does not run one of its containers yet, or None once it does."""
    if pod is None:
        return Waiting(reason="Starting", message="waiting for the pod to be created")
    state = container_state(pod, container)
    if "running" in state or "terminated" in state:
        return None
    for status in container_statuses(pod):
        wait = status.get("state", {}).get("waiting", {})
        if wait.get("reason") in _PULL_REASONS:
            return Waiting(
                reason="ImagePullFailed",
                message=f"cannot pull {status.get('image', 'the image')}:"
                f" {one_line(wait.get('message') or wait['reason'])}",
            )
        if wait.get("reason") in _CONFIG_REASONS:
            text = one_line(wait.get("message") or wait["reason"])
            return Waiting(reason="StartError", message=f"the container cannot start: {text}")
    scheduled = pod_condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        text = one_line(scheduled.get("message") or "no node fits yet")
        return Waiting(reason="Unschedulable", message=_PREEMPTION.sub("", text))
    return Waiting(reason="Starting", message="pulling images and starting the pod")


def refused(message: str) -> Waiting:
    """Say why a Job gets no pod, from the Event of its controller.

    The pod's name goes, as each try has another one and the wait is the same.
    """
    text = _REFUSED_POD.sub("", one_line(message))
    reason = "QuotaExceeded" if "exceeded quota" in text else "PodRefused"
    return Waiting(reason=reason, message=text)


def is_over(pod: Object) -> bool:
    """Whether all containers of a pod have ended."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def container_statuses(pod: Object) -> list[Object]:
    """Return the states of all containers, in the order in which they start."""
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def container_state(pod: Object, container: str) -> Mapping[str, Any]:
    """Return the state of one container: waiting, running or terminated."""
    for status in container_statuses(pod):
        if status.get("name") == container:
            state: Mapping[str, Any] = status.get("state") or {}
            return state
    return {}


def pod_condition(pod: Object, type: str) -> Mapping[str, Any]:
    """Return one condition of a pod, or nothing."""
    conditions = pod.get("status", {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == type), {})


def one_line(text: str) -> str:
    """Make one line of a message, short enough to read."""
    line = " ".join(text.split())
    return line if len(line) <= 400 else line[:399] + "…"
