"""Reading pods: what a container does, and why it does not run yet."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Object = Mapping[str, Any]

_PULL_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_CONFIG_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


# What befell a pod from outside, in words for who knows nothing of the API.
_DISRUPTIONS = {
    "PreemptionByScheduler": "preempted by a pod of higher priority",
    "EvictionByEvictionAPI": "evicted on request, as when its node is drained",
    "DeletionByTaintManager": "evicted from a node that is unreachable or was tainted",
    "DeletionByPodGC": "deleted with its node",
}
# What kubelet makes a pod's reason when its machine goes down.
_SHUTDOWNS = {
    "Terminated": "ended because its node was shut down",
    "NodeShutdown": "refused by its node, which was being shut down",
}
# What the scheduler adds after the reasons that count.
_PREEMPTION = re.compile(r" (no new claims to deallocate|preemption: ).*$")
_REFUSED_POD = re.compile(r'^Error creating: pods "[^"]*" is forbidden: ')
_EXCEEDED_QUOTA = re.compile(r"(?P<words>exceeded quota: .*?)( \(403\))?$")
# containerd's and Docker's words; `sha256:…` alone is the id of an image's configuration, by which
# no registry knows it.
_IMAGE_ID = re.compile(r"^(docker-pullable://)?[^@\s]+@(?P<digest>sha256:[0-9a-f]{64})$")
_PULLED_IMAGE = re.compile(r'^Pulling image "(?P<image>[^"]*)"')


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Why an attempt does not run yet: a stable reason and one line for a person."""

    reason: str
    message: str


class PodEvent(NamedTuple):
    """The latest of a pod's Events that tell how far its start has come.

    Attributes:
        failing_since: When a start on its node was first said to fail (RFC 3339).
    """

    reason: str
    message: str
    failing_since: str | None = None


def waiting(pod: Object | None, container: str, event: PodEvent | None = None) -> Waiting | None:
    """Say why a pod does not run one of its containers yet, or None once it does.

    Volumes and the pulling of images show in Events only.
    """
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
    return _starting(pod, event)


def _starting(pod: Object, event: PodEvent | None) -> Waiting:
    if event and event.reason in ("FailedMount", "FailedAttachVolume"):
        text = one_line(event.message)
        # A volume that is still attached elsewhere comes free; one that is not there does not.
        lacks = "not found" in text or "references non-existent" in text
        return Waiting(
            reason="StartError" if lacks else "Starting", message=f"cannot mount a volume: {text}"
        )
    if event and (pulled := _PULLED_IMAGE.match(event.message)):
        return Waiting(reason="Pulling", message=f"pulling image {pulled['image']}")
    if any("running" in status.get("state", {}) for status in container_statuses(pod)):
        return Waiting(reason="Starting", message="starting the container")
    if pod.get("spec", {}).get("nodeName"):
        return Waiting(reason="Starting", message="preparing the pod on its node")
    return Waiting(reason="Starting", message="waiting for the scheduler")


def starts_slowly(pod: Object, container: str) -> bool:
    """Whether a pod is on its node and does not run a container yet."""
    state = container_state(pod, container)
    is_bound = bool(pod.get("spec", {}).get("nodeName"))
    return is_bound and "running" not in state and "terminated" not in state


def disruption(pod: Object) -> str | None:
    """Say what ended a pod from outside, where Kubernetes knows."""
    target = pod_condition(pod, "DisruptionTarget")
    status = pod.get("status", {})
    if shutdown := _SHUTDOWNS.get(status.get("reason", "")):
        return shutdown
    if status.get("reason") != "Evicted" and target.get("status") != "True":
        return None
    known = _DISRUPTIONS.get(target.get("reason", ""))
    text = status.get("message") or known or target.get("message") or "the pod was evicted"
    return one_line(text)


def refused(message: str) -> Waiting:
    """Say why a Job gets no pod, from the Event of its controller.

    The pod's name goes, as each try has another one and the wait is the same.
    """
    text = _REFUSED_POD.sub("", one_line(message))
    reason = "QuotaExceeded" if "exceeded quota" in text else "PodRefused"
    return Waiting(reason=reason, message=text)


def job_refused(message: str) -> Waiting:
    """Say why a Job could not be made, in the words of the API server."""
    text = one_line(message)
    if quota := _EXCEEDED_QUOTA.search(text):
        return Waiting(reason="QuotaExceeded", message=quota["words"])
    return Waiting(reason="Forbidden", message=text)


def is_over(pod: Object) -> bool:
    """Whether all containers of a pod have ended."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def is_refused(pod: Object) -> bool:
    """Whether its node did not let a pod in: nothing of it ever ran."""
    message = pod.get("status", {}).get("message") or ""
    return message.startswith("Pod was rejected") and not container_statuses(pod)


def container_statuses(pod: Object) -> list[Object]:
    """Return the states of all containers, in the order in which they start."""
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def image_by_digest(pod: Object, container: str, image: str) -> str | None:
    """Return the image that a container runs by the digest that its node found for the tag.

    The repository stays the one that was asked for: a node may know the same image by another
    name, where this Run's credentials are none. None where the image has a digest anyway, or the
    node does not say.
    """
    ids = [s.get("imageID") for s in container_statuses(pod) if s.get("name") == container]
    found = _IMAGE_ID.match(ids[0] or "") if ids else None
    if found is None or "@" in image:
        return None
    folder, slash, name = image.rpartition("/")
    return f"{folder}{slash}{name.partition(':')[0]}@{found['digest']}"


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
