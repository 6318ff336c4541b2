"""Which place-holders a group needs, and which of them may go."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from labfunctions_operator.api.labels import PULLS_ANNOTATION
from labfunctions_operator.api.nodegroup import CAPACITY_BUFFER, LARGEST, Failures, NodeGroup
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.desired.placeholder import (
    HOLDER,
    build_buffer,
    build_placeholder,
    placeholder_name,
)
from labfunctions_operator.reconcile.demand import Object
from labfunctions_operator.reconcile.plan import Manifest, Ref
from labfunctions_operator.reconcile.pods import container_state, is_over, one_line
from labfunctions_operator.reconcile.scaling import Load
from labfunctions_operator.settings import Settings

# More images make a node's start longer than the Runs that use them would save.
PULLED = 3
# Between a failure and the next try: longer each time.
FIRST_DELAY = timedelta(seconds=10)
LAST_DELAY = timedelta(minutes=10)
# One that has run for this long does not fail.
STEADY = timedelta(minutes=1)
_FORGOTTEN = timedelta(hours=1)


def room_wanted(group: NodeGroup, desired: int, busy: int, pending: int) -> int:
    """Return how many place-holders stand for the nodes that no Run asks for by itself.

    A Run that waits has a pod, which an autoscaler sees as it sees a place-holder.
    """
    spec = group.spec
    capacity = spec.provider.capacity
    if capacity is None:
        return 0
    spare = max(0, desired - busy)
    per_node = spec.queue.runs_per_node
    if capacity.resources:
        return min(LARGEST, max(0, spare * per_node - pending))
    return max(0, spare - -(-pending // per_node))


def failures_of(group: NodeGroup, existing: Sequence[Object], now: datetime) -> Failures | None:
    """Return how often place-holders failed in a row: all that one look finds count as once."""
    before = None if group.is_edited else group.status.placeholder_failures
    over = sorted(_over(existing), key=_name)
    if over:
        count = before.count + 1 if before else 1
        return Failures(count=count, at=rfc3339(now), why=_why(over[0]))
    return before if before and now < forgotten_at(before, existing) else None


def forgotten_at(failures: Failures, existing: Sequence[Object]) -> datetime:
    """Return when failures are no more: once one made since then runs, as do all others."""
    failed = parse_time(failures.at)
    starts = [_started(pod) for pod in _alive(existing)]
    known = [start for start in starts if start]
    if len(known) == len(starts) and any(start > failed for start in known):
        return max(known) + STEADY
    return failed + _FORGOTTEN


def retry_at(failures: Failures) -> datetime:
    """Return when a place-holder may be made again."""
    delay = FIRST_DELAY * 2.0 ** min(failures.count - 1, 10)
    return parse_time(failures.at) + min(delay, LAST_DELAY)


def are_missing(group: NodeGroup, load: Load, existing: Sequence[Object]) -> bool:
    """Whether place-holders are gone though nothing has changed that would explain it."""
    status = group.status
    if status.desired is None or group.is_edited:
        return False
    before = room_wanted(group, status.desired, status.busy or 0, status.pending_runs or 0)
    room = room_wanted(group, status.desired, load.busy, load.pending)
    return before == room > len(_alive(existing))


def place(
    group: NodeGroup,
    count: int,
    existing: Sequence[Object],
    images: Sequence[str],
    settings: Settings,
    *,
    free: Sequence[str],
    may_create: bool = True,
) -> tuple[tuple[Manifest, ...], tuple[Ref, ...]]:
    """Return the place-holders to create and to delete.

    Args:
        group: Their owner.
        count: How many there should be.
        existing: Those that exist.
        images: To be pulled ahead.
        settings: The operator's.
        free: Nodes that may go: theirs are the first that do.
        may_create: Whether new ones may be made now.
    """
    if group.spec.provider.name == CAPACITY_BUFFER:
        buffer = build_buffer(group, count, settings)
        return tuple(buffer), tuple(_ref(pod) for pod in existing)
    # One that was asked for before would go on asking for nodes.
    left = build_buffer(group, 0, settings) if group.status.provider == CAPACITY_BUFFER else ()
    alive, over = _alive(existing), _over(existing)
    surplus = sorted(alive, key=lambda p: _worth(p, free))[: max(0, len(alive) - count)]
    taken = {p["metadata"]["name"] for p in existing}
    # What failed goes first: the next decision says when others follow.
    wanted = max(0, count - len(alive)) if may_create and not over else 0
    names = (i for i in range(LARGEST * 2) if placeholder_name(group.metadata.name, i) not in taken)
    create = [
        build_placeholder(group, index, images[:PULLED], settings)
        for index, _ in zip(names, range(wanted), strict=False)
    ]
    outdated = [] if wanted or surplus else [p for p in alive if _is_outdated(p, images)]
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


def _alive(pods: Sequence[Object]) -> list[Object]:
    return [p for p in pods if not is_over(p) and not p["metadata"].get("deletionTimestamp")]


def _over(pods: Sequence[Object]) -> list[Object]:
    return [p for p in pods if is_over(p) and not p["metadata"].get("deletionTimestamp")]


def _started(pod: Object) -> datetime | None:
    status = pod.get("status", {})
    started = status.get("startTime") if status.get("phase") == "Running" else None
    return parse_time(started) if started else None


def _why(pod: Object) -> str:
    """Say in a pod's own words why it has ended."""
    status, ended = pod["status"], container_state(pod, HOLDER).get("terminated") or {}
    words = [status.get("reason"), status.get("message") or ended.get("message")]
    told = ": ".join(word for word in words if word)
    return one_line(told or f"it ended with code {ended.get('exitCode', 'unknown')}")


def _name(obj: Object) -> str:
    name: str = obj["metadata"]["name"]
    return name


def _ref(obj: Object) -> Ref:
    return Ref.to(obj.get("apiVersion", "v1"), obj.get("kind", "Pod"), obj["metadata"])
