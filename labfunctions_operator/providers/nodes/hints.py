"""What is written beside a pool's bounds: hints for the autoscaler and notes of our own. Pure.

Sources: the cluster-autoscaler's documentation of its providers `aws` and `clusterapi`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from labfunctions_operator.api.labels import BOUNDS_ANNOTATION, GROUP
from labfunctions_operator.desired.names import digest
from labfunctions_operator.errors import Drifted, InvalidSpec
from labfunctions_operator.reconcile.nodes import Bounds, GroupSize, NodeTemplate

RAISED_UNTIL = f"{GROUP}/raised-until"
"""Tag or annotation: when `min` falls back to the group's own, RFC 3339."""
HINTS = f"{GROUP}/hints"
"""Tag: which hints were written last, as a digest."""
ADOPTED = BOUNDS_ANNOTATION
"""Annotation: the bounds are ours; whoever takes them over after that keeps them."""

MIN_SIZE = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-min-size"
MAX_SIZE = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size"

_TAG = "k8s.io/cluster-autoscaler/node-template"
_CAPACITY = "capacity.cluster-autoscaler.kubernetes.io"
_CAPACITY_NAMES = {
    "cpu": "cpu",
    "memory": "memory",
    "ephemeral-storage": "ephemeral-disk",
    "pods": "maxPods",
}


@dataclass(frozen=True, kw_only=True)
class TagChange:
    """How to get from the tags of a pool to those that are wanted."""

    put: Mapping[str, str]
    delete: tuple[str, ...]


def check_bounds(what: str, bounds: Bounds, *, now: GroupSize, seen: GroupSize, size: int) -> None:
    """Refuse bounds that cannot be, or that were decided on what is no longer so.

    Args:
        what: The pool, as a person would name it.
        bounds: To be written.
        now: The pool as it is.
        seen: The pool as it was when the bounds were decided. Its desired may have moved: that is
            the autoscaler's.
        size: How many nodes the pool has, or is about to have.

    Raises:
        InvalidSpec: No pool can have these bounds.
        Drifted: The message says what changed.
    """
    if not 0 <= bounds.min <= bounds.max:
        raise InvalidSpec("spec.min", f"{bounds.min} is not between 0 and max, {bounds.max}")
    if (now.min, now.max) != (seen.min, seen.max):
        raise Drifted(
            f"{what} has min {now.min} and max {now.max}; they were {seen.min} and {seen.max}"
        )
    if dict(now.tags) != dict(seen.tags):
        raise Drifted(f"someone else changed the tags {GROUP}/* of {what}")
    if size > bounds.max and bounds.max < now.max:
        raise Drifted(f"{what} has {size} nodes, more than {bounds.max}: its max is left as it is")


def own_notes(tags: Mapping[str, str]) -> dict[str, str]:
    """Return those of a pool's tags or annotations that only we write."""
    return {key: value for key, value in tags.items() if key.startswith(f"{GROUP}/")}


def asg_tags(bounds: Bounds) -> dict[str, str]:
    """Return the tags that an Auto Scaling group should have, among others.

    CPU, memory and pods are left out: the autoscaler knows them from the instance type, and they
    differ by some bytes from node to node.
    """
    template = bounds.template or NodeTemplate()
    tags = {f"{_TAG}/label/{key}": value for key, value in template.labels.items()}
    for taint in template.taints:
        tags[f"{_TAG}/taint/{taint.key}"] = f"{taint.value or ''}:{taint.effect}"
    for name, quantity in template.resources.items():
        if "/" in name or name == "ephemeral-storage":
            tags[f"{_TAG}/resources/{name}"] = quantity
    if bounds.idle_seconds is not None:
        option = f"{_TAG}/autoscaling-options/scaledownunneededtime"
        tags[option] = f"{bounds.idle_seconds}s"
    notes = {HINTS: digest(tags)[:16]} if tags else {}
    if bounds.raised_until is not None:
        notes[RAISED_UNTIL] = bounds.raised_until
    return tags | notes


def tag_change(wanted: Mapping[str, str], current: Mapping[str, str]) -> TagChange:
    """Return what to write.

    A hint that differs from one of these very hints that was written before is someone else's, who
    keeps it; hints that are no longer wanted stay, as they may be someone else's, too.
    """
    were_written = HINTS in wanted and current.get(HINTS) == wanted[HINTS]
    kept = current.keys() - own_notes(current).keys() if were_written else set()
    return TagChange(
        put={k: v for k, v in sorted(wanted.items()) if current.get(k) != v and k not in kept},
        delete=tuple(sorted(own_notes(current).keys() - wanted.keys())),
    )


def machine_annotations(bounds: Bounds) -> dict[str, str]:
    """Return all annotations that we own on a Cluster API object."""
    annotations = {ADOPTED: "adopted", MIN_SIZE: str(bounds.min), MAX_SIZE: str(bounds.max)}
    if bounds.raised_until is not None:
        annotations[RAISED_UNTIL] = bounds.raised_until
    if bounds.idle_seconds is not None:
        option = "cluster.x-k8s.io/autoscaling-options-scaledownunneededtime"
        annotations[option] = f"{bounds.idle_seconds}s"
    if bounds.template is not None:
        annotations |= _capacity(bounds.template)
    return annotations


def _capacity(template: NodeTemplate) -> dict[str, str]:
    capacity = {
        _CAPACITY_NAMES[name]: quantity
        for name, quantity in template.resources.items()
        if name in _CAPACITY_NAMES
    }
    # There is room for one kind of device only.
    devices = sorted(name for name in template.resources if "/" in name)
    if devices:
        capacity |= {"gpu-type": devices[0], "gpu-count": template.resources[devices[0]]}
    if template.labels:
        capacity["labels"] = ",".join(f"{k}={v}" for k, v in sorted(template.labels.items()))
    if template.taints:
        capacity["taints"] = ",".join(
            sorted(f"{taint.key}={taint.value or ''}:{taint.effect}" for taint in template.taints)
        )
    return {f"{_CAPACITY}/{name}": value for name, value in capacity.items()}
