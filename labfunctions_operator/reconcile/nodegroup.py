"""What a NodeGroup needs next: a size by its policy, and the one way its provider has to get it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from labfunctions_operator.api.conditions import find_condition, set_condition
from labfunctions_operator.api.nodegroup import Decision, NodeGroup, NodeGroupStatus
from labfunctions_operator.api.times import parse_duration, parse_time, rfc3339
from labfunctions_operator.api.types import Condition
from labfunctions_operator.reconcile.bounds import DRIFTED, Wanted, bounds_of, wanted_bounds
from labfunctions_operator.reconcile.demand import Demand, NodeGroupObserved, demand_of
from labfunctions_operator.reconcile.nodes import Bounds, PoolView
from labfunctions_operator.reconcile.placeholders import place, room_wanted
from labfunctions_operator.reconcile.plan import Event, Plan, Problem
from labfunctions_operator.reconcile.release import Release, release_nodes
from labfunctions_operator.reconcile.scaling import Size, size_for
from labfunctions_operator.settings import Settings

READY = "Ready"
SCALING_ACTIVE = "ScalingActive"
AT_LIMIT = "AtLimit"
STALLED = "Stalled"
# More decisions than this in an hour are a loop of somebody's, not demand.
DECISIONS_AN_HOUR = 60
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class NodeGroupPlan:
    """What to do for a NodeGroup.

    Attributes:
        plan: For the executor.
        bounds: What the provider is to be told once the plan is carried out, if anything.
    """

    plan: Plan
    bounds: Bounds | None = None


@dataclass(frozen=True, kw_only=True)
class _Decided:
    """A size, and whether that is news."""

    desired: int
    before: int
    size: Size
    demand: Demand
    recent: list[str]
    stalled_until: datetime | None

    @property
    def is_stalled(self) -> bool:
        return self.stalled_until is not None

    @property
    def is_news(self) -> bool:
        return self.desired != self.before


def reconcile_node_group(
    group: NodeGroup, seen: NodeGroupObserved, settings: Settings, now: datetime
) -> NodeGroupPlan:
    """Decide what a NodeGroup needs, from what exists now."""
    if not settings.autoscaling.enabled:
        return NodeGroupPlan(plan=Plan(status=_disabled(group, now).wire()))
    ahead = group.spec.warm_ahead
    demand = demand_of(
        seen,
        known=group.status.node_resources,
        ahead=parse_duration(ahead) if ahead else None,
        now=now,
    )
    decided = _decide(group, demand, now)
    wanted = _wanted(group, seen.pool, decided, now)
    release = _release(group, seen, decided, now)
    plan = _children(group, seen, decided, settings)
    status = _status(group, seen, decided, wanted, now=now)
    waits = [
        decided.size.look_again,
        demand.next_tick,
        release.look_again,
        _raise_ends(wanted, now),
        decided.stalled_until,
    ]
    plan = replace(
        plan,
        apply=(*plan.apply, *release.apply),
        delete=(*plan.delete, *release.delete),
        evict=release.evict,
        status=status.wire(),
        guarded=True,
        events=_events(group, status, decided),
        requeue_after=_seconds_to_first(waits, now),
    )
    if wanted.wanted is None or not wanted.may_write or group.spec.observe_only:
        return NodeGroupPlan(plan=plan)
    return NodeGroupPlan(plan=plan, bounds=bounds_of(group, wanted.wanted, dict(demand.resources)))


def _decide(group: NodeGroup, demand: Demand, now: datetime) -> _Decided:
    status = group.status
    size = size_for(
        group.spec, demand.load, desired=status.desired, last=status.last_decision, now=now
    )
    before = demand.load.size if status.desired is None else status.desired
    # Forgotten only when there is a new one: time alone is no reason to write.
    recent = [t for t in status.recent_decisions if parse_time(t) + _HOUR > now]
    is_news = size.desired != before
    is_stalled = is_news and len(recent) >= DECISIONS_AN_HOUR
    return _Decided(
        desired=before if is_stalled else size.desired,
        before=before,
        size=size,
        demand=demand,
        recent=[*recent, rfc3339(now)] if is_news and not is_stalled else status.recent_decisions,
        stalled_until=parse_time(recent[0]) + _HOUR if is_stalled else None,
    )


def _wanted(group: NodeGroup, pool: PoolView | None, decided: _Decided, now: datetime) -> Wanted:
    if pool is None:
        return Wanted()
    return wanted_bounds(
        group,
        pool,
        desired=decided.desired,
        size=decided.demand.load.size,
        floor=decided.size.floor,
        now=now,
    )


def _children(
    group: NodeGroup, seen: NodeGroupObserved, decided: _Decided, settings: Settings
) -> Plan:
    """Return the place-holders of a group; those that an earlier provider left behind go."""
    if group.spec.observe_only:
        return Plan()
    is_wanted = group.spec.provider.capacity is not None
    apply, delete = place(
        group,
        room_wanted(group, decided.desired, decided.demand.load) if is_wanted else 0,
        seen.placeholders,
        seen.images,
        settings,
        free=decided.size.releasable,
    )
    return Plan(apply=apply, delete=delete)


def _release(
    group: NodeGroup, seen: NodeGroupObserved, decided: _Decided, now: datetime
) -> Release:
    static = group.spec.provider.static
    if static is None or not static.delete_nodes or group.spec.observe_only:
        return Release()
    return release_nodes(
        seen,
        _surplus(decided),
        missing=max(0, decided.desired - decided.demand.load.size),
        now=now,
    )


def _surplus(decided: _Decided) -> Sequence[str]:
    """Return the nodes that may go and are not wanted any more."""
    return decided.size.releasable[: max(0, decided.demand.load.size - decided.desired)]


def _status(
    group: NodeGroup,
    seen: NodeGroupObserved,
    decided: _Decided,
    wanted: Wanted,
    *,
    now: datetime,
) -> NodeGroupStatus:
    load = decided.demand.load
    last = group.status.last_decision
    if decided.is_news:
        last = Decision(
            at=rfc3339(now), from_size=decided.before, to=decided.desired, why=decided.size.why
        )
    return NodeGroupStatus(
        observed_generation=group.metadata.generation,
        provider=group.spec.provider.name,
        min=wanted.wanted.min if wanted.wanted else decided.size.floor.min,
        max=wanted.wanted.max if wanted.wanted else group.spec.max,
        desired=decided.desired,
        ready=decided.demand.ready,
        busy=load.busy,
        idle=load.size - load.busy,
        pending_runs=load.pending,
        last_decision=last,
        recent_decisions=decided.recent,
        wanted=wanted.wanted,
        written=wanted.written,
        node_resources=dict(decided.demand.resources),
        conditions=_conditions(group, seen.pool, decided, wanted, now),
    )


def _conditions(
    group: NodeGroup,
    pool: PoolView | None,
    decided: _Decided,
    wanted: Wanted,
    now: datetime,
) -> list[Condition]:
    conditions = group.status.conditions
    problem = _problem(pool, decided, wanted)
    is_drifted = problem is not None and problem.reason == DRIFTED
    is_limited = decided.size.need > group.spec.max
    says = explain(group, decided.demand, decided.size, decided.desired, _surplus(decided))
    unread = pool is not None and pool.size is None and problem is None
    active = problem is None and not unread and not group.spec.observe_only
    facts: list[tuple[str, bool | None, str, str]] = [
        (
            READY,
            None if unread else problem is None,
            problem.reason if problem else "Reading" if unread else "Ready",
            f"{problem.message}; {says}" if problem else says,
        ),
        (
            SCALING_ACTIVE,
            active,
            "Active" if active else problem.reason if problem else _passive(group),
            problem.message if problem else "" if active else _PASSIVE[_passive(group)],
        ),
        (
            AT_LIMIT,
            is_limited,
            "TooManyRuns" if is_limited else "WithinLimits",
            f"{decided.size.need} nodes are needed, max is {group.spec.max}" if is_limited else "",
        ),
        (
            DRIFTED,
            is_drifted,
            DRIFTED if is_drifted else "AsWritten",
            problem.message if problem and is_drifted else "",
        ),
        (
            STALLED,
            decided.is_stalled,
            "TooManyDecisions" if decided.is_stalled else "Steady",
            _stalled_message() if decided.is_stalled else "",
        ),
    ]
    for type, status, reason, message in facts:
        conditions = set_condition(
            conditions,
            type=type,
            status=status,
            reason=reason,
            message=message,
            generation=group.metadata.generation,
            now=now,
        )
    return list(conditions)


_PASSIVE = {
    "ObserveOnly": "spec.observeOnly is set: decisions are made and not carried out",
    "Reading": "waiting for the provider's first answer",
}


def _passive(group: NodeGroup) -> str:
    return "ObserveOnly" if group.spec.observe_only else "Reading"


def _problem(pool: PoolView | None, decided: _Decided, wanted: Wanted) -> Problem | None:
    if wanted.problem:
        return wanted.problem
    if pool is not None and pool.problem:
        return pool.problem
    if decided.is_stalled:
        return Problem(reason=STALLED, message=_stalled_message())
    return None


def _stalled_message() -> str:
    return f"{DECISIONS_AN_HOUR} decisions in an hour: the next one waits until that is over"


def explain(
    group: NodeGroup, demand: Demand, size: Size, desired: int, surplus: Sequence[str]
) -> str:
    """Say in one line why a group has the size it has."""
    parts = [f"{size.why}: {_count(desired, 'node')} wanted, {demand.load.size} there"]
    if size.need > group.spec.max:
        parts.append(f"max is {group.spec.max}")
    elif size.need < desired and not surplus:
        kept = "the last decision is recent" if size.stands_until else "idle nodes stay for a while"
        parts.append(kept)
    if demand.misfits:
        parts.append(f"{_count(demand.misfits, 'waiting Run')} larger than any node of the group")
    static = group.spec.provider.static
    if static and desired > demand.load.size:
        parts.append(f"add {_count(desired - demand.load.size, 'node')}")
    if static and surplus:
        parts.append(f"free to go: {', '.join(sorted(surplus))}")
    return "; ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _events(group: NodeGroup, status: NodeGroupStatus, decided: _Decided) -> tuple[Event, ...]:
    """Tell of each decision, and of each change that somebody has to look at."""
    events: list[Event] = []
    last = status.last_decision
    if last and decided.is_news:
        reason = "ScaledUp" if last.to > last.from_size else "ScaledDown"
        if group.spec.observe_only:
            reason = f"Would{reason.replace('Scaled', 'Scale')}"
        text = f"from {last.from_size} to {last.to}: {last.why}; {decided.demand.load.size} there"
        events.append(Event(type="Normal", reason=reason, message=text))
    for type in (DRIFTED, STALLED, AT_LIMIT):
        new = find_condition(status.conditions, type)
        old = find_condition(group.status.conditions, type)
        if new and new.status == "True" and not (old and old.status == "True"):
            kind = "Normal" if type == AT_LIMIT else "Warning"
            events.append(Event(type=kind, reason=type, message=new.message))  # type: ignore[arg-type]
    return tuple(events)


def _disabled(group: NodeGroup, now: datetime) -> NodeGroupStatus:
    """Say that Runs are placed by the group, and that nobody sizes it."""
    message = "Runs go to these nodes; autoscaling.enabled of the chart would size the group"
    conditions = group.status.conditions
    for type, status in ((READY, True), (SCALING_ACTIVE, False)):
        conditions = set_condition(
            conditions,
            type=type,
            status=status,
            reason="AutoscalingDisabled",
            message=message,
            generation=group.metadata.generation,
            now=now,
        )
    return NodeGroupStatus(
        observed_generation=group.metadata.generation,
        provider=group.spec.provider.name,
        conditions=list(conditions),
    )


def _raise_ends(wanted: Wanted, now: datetime) -> datetime | None:
    if wanted.wanted is None or wanted.wanted.until is None:
        return None
    until = parse_time(wanted.wanted.until)
    return until if until > now else None


def _seconds_to_first(times: Sequence[datetime | None], now: datetime) -> float | None:
    waits = [(t - now).total_seconds() for t in times if t is not None]
    return max(0.5, min(waits)) if waits else None
