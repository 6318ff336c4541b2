"""Which place-holders a group needs, and which of them may go."""

from collections.abc import Sequence

from labfunctions_operator.api.labels import PULLS_ANNOTATION
from labfunctions_operator.api.nodegroup import CAPACITY_BUFFER, LARGEST, NodeGroup
from labfunctions_operator.desired.placeholder import (
    build_buffer,
    build_placeholder,
    placeholder_name,
)
from labfunctions_operator.reconcile.demand import Object
from labfunctions_operator.reconcile.plan import Manifest, Ref
from labfunctions_operator.reconcile.pods import is_over
from labfunctions_operator.reconcile.scaling import Load
from labfunctions_operator.settings import Settings

# More images make a node's start longer than the Runs that use them would save.
PULLED = 3


def room_wanted(group: NodeGroup, desired: int, load: Load) -> int:
    """Return how many place-holders stand for the nodes that no Run asks for by itself.

    A Run that waits has a pod, which an autoscaler sees as it sees a place-holder.
    """
    spec = group.spec
    spare = max(0, desired - load.busy)
    capacity = spec.provider.capacity
    per_node = spec.queue.runs_per_node
    if capacity and capacity.resources:
        return min(LARGEST, max(0, spare * per_node - load.pending))
    return max(0, spare - -(-load.pending // per_node))


def place(
    group: NodeGroup,
    count: int,
    existing: Sequence[Object],
    images: Sequence[str],
    settings: Settings,
    *,
    free: Sequence[str],
) -> tuple[tuple[Manifest, ...], tuple[Ref, ...]]:
    """Return the place-holders to create and to delete.

    Args:
        group: Their owner.
        count: How many there should be.
        existing: Those that exist.
        images: To be pulled ahead.
        settings: The operator's.
        free: Nodes that may go: theirs are the first that do.
    """
    if group.spec.provider.name == CAPACITY_BUFFER:
        buffer = build_buffer(group, count, settings)
        return tuple(buffer), tuple(_ref(pod) for pod in existing)
    # One that was asked for before would go on asking for nodes.
    left = build_buffer(group, 0, settings) if group.status.provider == CAPACITY_BUFFER else ()
    alive = [p for p in existing if not is_over(p) and not p["metadata"].get("deletionTimestamp")]
    over = [p for p in existing if is_over(p)]
    surplus = sorted(alive, key=lambda p: _worth(p, free))[: max(0, len(alive) - count)]
    taken = {p["metadata"]["name"] for p in existing}
    wanted = max(0, count - len(alive))
    names = (i for i in range(LARGEST * 2) if placeholder_name(group.metadata.name, i) not in taken)
    create = [
        build_placeholder(group, index, images[:PULLED], settings)
        for index, _ in zip(names, range(wanted), strict=False)
    ]
    outdated = [] if create or surplus else [p for p in alive if _is_outdated(p, images)]
    return tuple(create), tuple(_ref(obj) for obj in (*left, *over, *surplus, *outdated))


def _is_outdated(pod: Object, images: Sequence[str]) -> bool:
    """Whether there is an image to pull in place of one that no Workflow has any more.

    Which of many images are needed first changes with each tick: that alone is no reason.
    """
    annotations = pod["metadata"].get("annotations") or {}
    pulls = set(annotations.get(PULLS_ANNOTATION, "").split())
    has_room = len(pulls) < PULLED or bool(pulls - set(images))
    return has_room and bool(set(images[:PULLED]) - pulls)


def _worth(pod: Object, free: Sequence[str]) -> tuple[int, str]:
    """Rank place-holders: one without a node goes first, then those whose node may go."""
    node = pod.get("spec", {}).get("nodeName")
    if not node:
        return 0, pod["metadata"]["name"]
    return (1 if node in free else 2), pod["metadata"]["name"]


def _ref(obj: Object) -> Ref:
    return Ref.to(obj.get("apiVersion", "v1"), obj.get("kind", "Pod"), obj["metadata"])
