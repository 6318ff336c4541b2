"""The bounds of a pool at a provider: one writer, an expiry for each raise, no tug of war.

What is wanted is on record before it is written, and what was confirmed stays on record beside it:
a pool that shows either of the two is as we left it, whenever the operator stopped in between.
Anything else is somebody's change, which is said and left alone.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from labfunctions_operator.api.labels import BOUNDS_ANNOTATION
from labfunctions_operator.api.nodegroup import NodeGroup, Provider, Raise
from labfunctions_operator.api.times import parse_duration, parse_time, rfc3339
from labfunctions_operator.reconcile.nodes import Bounds, GroupSize, NodeTemplate, PoolView
from labfunctions_operator.reconcile.plan import Problem
from labfunctions_operator.reconcile.warm import Floor

DRIFTED = "Drifted"
# How long a raise outlives an operator that is gone; a raise still needed is renewed.
RAISE = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to tell a provider.

    Attributes:
        wanted: To put on record before it is written.
        written: What the provider has confirmed.
        problem: Why nothing is written.
        may_write: Whether the provider is to be told, unless it was.
    """

    wanted: Raise | None = None
    written: Raise | None = None
    problem: Problem | None = None
    may_write: bool = False


def wanted_bounds(
    group: NodeGroup, view: PoolView, *, desired: int, size: int, floor: Floor, now: datetime
) -> Wanted:
    """Decide which bounds a pool should have.

    Args:
        group: With what was wanted and confirmed before.
        view: The pool.
        desired: How many nodes the policy wants.
        size: How many nodes exist.
        floor: The fewest nodes now.
        now: The time.
    """
    if group.spec.observe_only:
        return end_raise(group, view, now)
    before = on_record(group)
    pool = view.settled
    if pool is None:
        return replace(before, problem=view.problem)
    shown = Raise(min=pool.min, max=pool.max)
    target = Raise(
        min=desired,
        max=max(group.spec.max, size, pool.desired or 0),
        until=_until(group, before.wanted, desired, floor, now),
        pool=group.spec.provider.pool,
        generation=group.metadata.generation,
    )
    drift = _drift(shown, group, before, target)
    if drift and not _is_handed_back(group, before, pool):
        return replace(before, problem=drift)
    return Wanted(wanted=target, written=shown, problem=view.problem, may_write=True)


def end_raise(group: NodeGroup, view: PoolView, now: datetime) -> Wanted:
    """Undo a raise of ours at its end, and want nothing else.

    This is all that is done for a group that only observes, or whose spec cannot be worked with.
    """
    before = on_record(group)
    raised, written = before.wanted, before.written
    if raised is None or written is None:
        return Wanted(problem=view.problem)
    pool = view.settled
    if pool is None:
        return replace(before, problem=view.problem)
    shown = Raise(min=pool.min, max=pool.max)
    is_ours = shown.min in (raised.min, written.min) and (raised.until or raised.min < shown.min)
    if not is_ours or shown.min <= group.spec.min:
        return Wanted(problem=view.problem)
    if raised.until and parse_time(raised.until) > now:
        return replace(before, problem=view.problem)
    lowered = raised.but(min=min(group.spec.min, shown.max), max=shown.max, until=None)
    return Wanted(wanted=lowered, written=shown, problem=view.problem, may_write=True)


def bounds_of(group: NodeGroup, wanted: Raise, resources: dict[str, str]) -> Bounds:
    """Return what the provider is told, with the hints for autoscalers.

    Args:
        group: The group.
        wanted: The bounds.
        resources: What its next node will offer.
    """
    spec = group.spec
    return Bounds(
        min=wanted.min,
        max=wanted.max,
        raised_until=wanted.until,
        idle_seconds=int(parse_duration(spec.idle.after).total_seconds()),
        template=NodeTemplate(
            labels=dict(spec.labels),
            taints=tuple(spec.taints),
            resources=resources,
        ),
    )


def on_record(group: NodeGroup) -> Wanted:
    """Return what was wanted of this very pool, and confirmed."""
    wanted = group.status.wanted
    if wanted is None or wanted.pool != group.spec.provider.pool:
        return Wanted()
    return Wanted(wanted=wanted, written=group.status.written)


def _drift(shown: Raise, group: NodeGroup, before: Wanted, target: Raise) -> Problem | None:
    """Tell of a change that is not ours; a pool never written to is taken over as it is."""
    last = before.wanted
    if last is None or any(_same(shown, r) for r in (before.written, last, target) if r):
        return None
    return Problem(
        reason=DRIFTED,
        message=f"min and max are {shown.min} and {shown.max} at the provider, not {last.min} and "
        f"{last.max} as written: somebody else changed them; {_way_back(group.spec.provider)}",
    )


def _is_handed_back(group: NodeGroup, before: Wanted, pool: GroupSize) -> bool:
    """Whether somebody has said that the operator may write the bounds again.

    An edit counts until it has come to the pool, however long that is unknown.
    """
    if before.wanted and before.wanted.generation != group.metadata.generation:
        return True
    return group.spec.provider.cluster_api is not None and BOUNDS_ANNOTATION not in pool.tags


def _way_back(provider: Provider) -> str:
    if machines := provider.cluster_api:
        # The API server knows who wrote an annotation: neither an edit of the group nor the old
        # value makes it ours again.
        return (
            f"remove the annotation {BOUNDS_ANNOTATION} of {machines.kind} "
            f"{machines.namespace}/{machines.name} to hand them back"
        )
    return "set them back, or edit the NodeGroup, which writes its own again"


def _same(one: Raise, other: Raise) -> bool:
    return (one.min, one.max) == (other.min, other.max)


def _until(
    group: NodeGroup, before: Raise | None, desired: int, floor: Floor, now: datetime
) -> str | None:
    if desired <= group.spec.min:
        return None
    if floor.until and desired == floor.min:
        return rfc3339(floor.until)
    if before and before.min == desired and before.until and parse_time(before.until) > now:
        return before.until
    return rfc3339(now + RAISE)
