"""What a group has to do, counted from what exists: nodes, Runs on them, Runs that wait."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from labfunctions_operator.api import labels
from labfunctions_operator.api.times import parse_time
from labfunctions_operator.reconcile.fitting import match
from labfunctions_operator.reconcile.nodes import PoolView
from labfunctions_operator.reconcile.offers import coming_node, joined, newest_offer, offer
from labfunctions_operator.reconcile.plan import Problem
from labfunctions_operator.reconcile.pods import is_over
from labfunctions_operator.reconcile.scaling import Load, Node

Object = Mapping[str, Any]

# Between a Workflow's tick and the Run that it makes.
TICK_GRACE = timedelta(seconds=60)
# A start takes less; a node that is not ready for longer is as good as none.
UNREADY = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """That a pod may not leave its node.

    Attributes:
        count: How often it was asked in a row.
        at: When it was asked last.
        why: The API server's words.
    """

    count: int
    at: datetime
    why: str


@dataclass(frozen=True, kw_only=True)
class NodeGroupObserved:
    """What exists around a NodeGroup.

    Attributes:
        nodes: Node objects with the group's labels.
        pods: The operator's pods on those nodes.
        waiting: What each Run asks for that waits for a node of the group, and for nothing else:
            resource name to quantity.
        ends: When the last Run on a node ended, by the node's name, RFC 3339.
        ticks: When Workflows of the group run next.
        images: What Runs of the group use, the one needed first in front.
        placeholders: The group's place-holder pods.
        pool: What the provider reports, where it is asked.
        drained: All pods on nodes that are being released, by the node's name.
        refusals: Of those pods that may not leave, by their uid.
        denied: Why the operator may not look at, or write, some of it.
        is_placing_denied: Whether that concerns place-holders: they are not as they were left.
    """

    nodes: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    waiting: Sequence[Mapping[str, str]] = ()
    ends: Mapping[str, str] = field(default_factory=dict)
    ticks: Sequence[datetime] = ()
    images: Sequence[str] = ()
    placeholders: Sequence[Object] = ()
    pool: PoolView | None = None
    drained: Mapping[str, Sequence[Object]] = field(default_factory=dict)
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    denied: Sequence[Problem] = ()
    is_placing_denied: bool = False


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a group has to do.

    Attributes:
        load: What the policy looks at.
        ready: Nodes that take pods.
        misfits: Runs that wait but are larger than any node of the group.
        lost: Nodes without a Run or build that have not been ready for too long to count.
        lost_next: When the next one that is not ready counts no more.
        resources: What a node of the group offers, as last seen.
        coming: What the next node will offer, as far as that can be told.
        next_tick: When a Workflow's tick comes into sight.
    """

    load: Load
    ready: int
    misfits: int
    lost: tuple[str, ...]
    lost_next: datetime | None
    resources: Mapping[str, str]
    coming: Mapping[str, str]
    next_tick: datetime | None


def demand_of(
    seen: NodeGroupObserved,
    *,
    known: Mapping[str, str],
    devices: Mapping[str, str],
    ahead: timedelta | None,
    held: Container[str] = (),
    now: datetime,
) -> Demand:
    """Count what a group has to do.

    Args:
        seen: What exists.
        known: What a node of the group offers, as seen before; empty if none was.
        devices: What its nodes are said to have.
        ahead: How long before a Workflow's tick its Run counts; None means never.
        held: Nodes that something of others keeps.
        now: The time.
    """
    runs = _runs_by_node(seen.pods)
    counted = _counted(seen.nodes, runs, now)
    staying = counted.nodes
    offers = [joined(node, offer(node), coming_node(known, devices), now) for node in staying]
    resources = newest_offer(staying, offers, known)
    coming = coming_node(resources, devices)
    fitting = match(seen.waiting, [*offers, coming] if resources else offers)
    nodes = [
        Node(
            name=_name(node),
            ready=_is_ready(node),
            runs=runs.get(_name(node), 0),
            idle_since=_idle_since(node, seen.ends.get(_name(node))),
            is_awaited=is_awaited,
            is_held=_name(node) in held,
        )
        for node, is_awaited in zip(staying, fitting.awaited, strict=False)
    ]
    due, next_tick = _ticks(seen.ticks, ahead, now)
    return Demand(
        load=Load(nodes=nodes, pending=fitting.runs, ahead=due),
        ready=sum(node.ready for node in nodes),
        misfits=len(seen.waiting) - fitting.runs,
        lost=counted.lost,
        lost_next=counted.lost_next,
        resources=resources,
        coming=coming,
        next_tick=next_tick,
    )


class _Counted(NamedTuple):
    """The nodes that count, and those that do not as they have not been ready for long."""

    nodes: list[Object]
    lost: tuple[str, ...]
    lost_next: datetime | None


def _counted(nodes: Iterable[Object], runs: Mapping[str, int], now: datetime) -> _Counted:
    """Leave out what takes no more pods and has no Run: nodes that leave, and lost ones."""
    staying: list[Object] = []
    lost: list[str] = []
    limits: list[datetime] = []
    for node in nodes:
        limit = _lost_at(node)
        if _name(node) in runs:
            staying.append(node)
        elif limit is not None and limit <= now:
            lost.append(_name(node))
        elif not is_cordoned(node):
            staying.append(node)
            limits += [limit] if limit else []
    return _Counted(staying, tuple(sorted(lost)), min(limits, default=None))


def is_cordoned(node: Object) -> bool:
    """Whether a node takes no more pods."""
    return bool(node.get("spec", {}).get("unschedulable")) or (
        "deletionTimestamp" in node["metadata"]
    )


def _runs_by_node(pods: Iterable[Object]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for pod in pods:
        node = pod.get("spec", {}).get("nodeName")
        if node and is_work(pod) and not is_over(pod):
            counts[node] = counts.get(node, 0) + 1
    return counts


def is_work(pod: Object) -> bool:
    """Whether a pod would lose something with its node: a notebook's, or a build's."""
    component = (pod["metadata"].get("labels") or {}).get(labels.COMPONENT)
    return component in (labels.COMPONENT_RUN, labels.COMPONENT_BUILD)


def _ready_condition(node: Object) -> Mapping[str, Any]:
    conditions = node.get("status", {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == "Ready"), {})


def _is_ready(node: Object) -> bool:
    return _ready_condition(node).get("status") == "True" and not is_cordoned(node)


def _lost_at(node: Object) -> datetime | None:
    """Return when a node that is not ready counts no more; one that leaves counts already not."""
    condition = _ready_condition(node)
    if condition.get("status") == "True" or is_cordoned(node):
        return None
    since = condition.get("lastTransitionTime") or node["metadata"]["creationTimestamp"]
    return parse_time(since) + UNREADY


def _idle_since(node: Object, ended: str | None) -> datetime:
    times = (
        node["metadata"]["creationTimestamp"],
        _ready_condition(node).get("lastTransitionTime"),
        ended,
    )
    return max(parse_time(t) for t in times if t)


def _ticks(
    ticks: Iterable[datetime], ahead: timedelta | None, now: datetime
) -> tuple[int, datetime | None]:
    """Return how many ticks are in sight, and when that number changes."""
    if ahead is None:
        return 0, None
    seen = [tick for tick in ticks if now - TICK_GRACE < tick]
    due = [tick for tick in seen if tick - ahead <= now]
    changes = [*(t + TICK_GRACE for t in due), *(t - ahead for t in seen if t - ahead > now)]
    return len(due), min(changes, default=None)


def _name(obj: Object) -> str:
    name: str = obj["metadata"]["name"]
    return name
