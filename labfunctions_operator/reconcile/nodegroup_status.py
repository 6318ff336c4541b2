"""What a NodeGroup's status says: numbers, conditions, and in one line why it has its size."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from labfunctions_operator.api.conditions import find_condition, set_condition
from labfunctions_operator.api.nodegroup import Decision, NodeGroup, NodeGroupStatus, Raise
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.api.types import Condition
from labfunctions_operator.reconcile.bounds import DRIFTED, Wanted
from labfunctions_operator.reconcile.decision import TURNS_AN_HOUR, Decided
from labfunctions_operator.reconcile.demand import NodeGroupObserved
from labfunctions_operator.reconcile.nodes import GroupSize, PoolView
from labfunctions_operator.reconcile.plan import Event, Problem
from labfunctions_operator.reconcile.release import Release

READY = "Ready"
SCALING_ACTIVE = "ScalingActive"
AT_LIMIT = "AtLimit"
STALLED = "Stalled"
# One that fails now and then, as when its node is drained, is nothing to speak of.
FAILURES_IN_A_ROW = 3
NODES_TOLD = 10
_ACTIVE = "Active"
_OBSERVES = "ObserveOnly"
_READING = "Reading"
_DISABLED = "AutoscalingDisabled"


class _Fact(NamedTuple):
    """What a condition says."""

    type: str
    status: bool | None
    reason: str
    message: str


def node_group_status(
    group: NodeGroup,
    seen: NodeGroupObserved,
    decided: Decided,
    wanted: Wanted,
    release: Release,
    *,
    now: datetime,
) -> NodeGroupStatus:
    """Return the whole status of a group that is sized."""
    load = decided.demand.load
    last = group.status.last_decision
    if decided.is_news:
        last = Decision(
            at=rfc3339(now), from_size=decided.before, to=decided.desired, why=decided.size.why
        )
    bounds = _bounds(group, seen.pool, decided, wanted)
    return NodeGroupStatus(
        observed_generation=group.metadata.generation,
        provider=group.spec.provider.name,
        min=bounds.min,
        max=bounds.max,
        desired=decided.desired,
        ready=decided.demand.ready,
        busy=load.busy,
        idle=load.size - load.busy,
        pending_runs=load.pending,
        last_decision=last,
        recent_decisions=decided.recent,
        placeholder_failures=decided.failures,
        wanted=wanted.wanted,
        written=wanted.written,
        node_resources=dict(decided.demand.resources),
        conditions=_with_facts(group, _facts(group, seen, decided, wanted, release), now),
    )


def _bounds(
    group: NodeGroup, pool: PoolView | None, decided: Decided, wanted: Wanted
) -> GroupSize | Raise:
    """Return what is asked for; of a pool that is left as it is, what it has."""
    if pool and pool.settled and not wanted.may_write:
        return pool.settled
    status = group.status
    is_said = not group.is_edited
    if pool and not pool.settled and is_said and status.min is not None and status.max is not None:
        return Raise(min=status.min, max=status.max)
    return wanted.wanted or Raise(min=decided.size.floor.min, max=group.spec.max)


def disabled_status(group: NodeGroup, now: datetime) -> NodeGroupStatus:
    """Say that Runs are placed by the group, and that nobody sizes it."""
    message = "Runs go to these nodes; autoscaling.enabled of the chart would size the group"
    facts = [
        _Fact(READY, True, _DISABLED, message),
        _Fact(SCALING_ACTIVE, False, _DISABLED, message),
    ]
    return NodeGroupStatus(
        observed_generation=group.metadata.generation,
        provider=group.spec.provider.name,
        # What only the operator knows how to undo, once it may again.
        wanted=group.status.wanted,
        written=group.status.written,
        conditions=_with_facts(group, facts, now),
    )


def _with_facts(group: NodeGroup, facts: Sequence[_Fact], now: datetime) -> list[Condition]:
    conditions = group.status.conditions
    for fact in facts:
        conditions = set_condition(
            conditions,
            **fact._asdict(),
            generation=group.metadata.generation,
            now=now,
        )
    return list(conditions)


def _facts(
    group: NodeGroup, seen: NodeGroupObserved, decided: Decided, wanted: Wanted, release: Release
) -> list[_Fact]:
    pool = seen.pool
    problem, unread = _problem(seen, decided, wanted, release), False
    if problem is None and pool is not None and pool.size is None:
        problem, unread = _said_before(group)
    says = _explain(group, decided, release)
    ready = _Fact(READY, True, "Ready", says)
    if problem:
        ready = _Fact(READY, False, problem.reason, f"{problem.message}; {says}")
    elif unread:
        ready = _Fact(READY, None, _READING, says)
    elif group.spec.observe_only:
        ready = _Fact(READY, True, _OBSERVES, says)
    drifted = _Fact(DRIFTED, False, "AsWritten", "")
    if problem and problem.reason == DRIFTED:
        drifted = _Fact(DRIFTED, True, DRIFTED, problem.message)
    limited = _Fact(AT_LIMIT, False, "WithinLimits", "")
    if decided.size.need > group.spec.max:
        text = f"{decided.size.need} nodes are needed, max is {group.spec.max}"
        limited = _Fact(AT_LIMIT, True, "TooManyRuns", text)
    stalled = _Fact(STALLED, False, "Steady", "")
    if brake := _brake(decided, release):
        stalled = _Fact(STALLED, True, brake.reason, brake.message)
    return [ready, _active(group, problem, unread=unread), limited, drifted, stalled]


def _said_before(group: NodeGroup) -> tuple[Problem | None, bool]:
    """Return what was said of a pool that is not read yet, and whether that is nothing."""
    before = find_condition(group.status.conditions, SCALING_ACTIVE)
    if before is None or before.observed_generation != group.metadata.generation:
        return None, True
    if before.reason in (_ACTIVE, _OBSERVES):
        return None, False
    if before.reason in (_READING, STALLED, _DISABLED):
        return None, True
    return Problem(reason=before.reason, message=before.message), False


def _active(group: NodeGroup, problem: Problem | None, *, unread: bool) -> _Fact:
    if problem:
        return _Fact(SCALING_ACTIVE, False, problem.reason, problem.message)
    if group.spec.observe_only:
        message = "spec.observeOnly is set: decisions are made and not carried out"
        return _Fact(SCALING_ACTIVE, False, _OBSERVES, message)
    if unread:
        message = "waiting for the provider's first answer"
        return _Fact(SCALING_ACTIVE, False, _READING, message)
    return _Fact(SCALING_ACTIVE, True, _ACTIVE, "")


def _problem(
    seen: NodeGroupObserved, decided: Decided, wanted: Wanted, release: Release
) -> Problem | None:
    found = [wanted.problem or (seen.pool.problem if seen.pool else None), *seen.denied]
    if problems := list(dict.fromkeys(problem for problem in found if problem)):
        message = "; ".join(problem.message for problem in problems)
        return Problem(reason=problems[0].reason, message=message)
    if brake := _brake(decided, release):
        return Problem(reason=STALLED, message=brake.message)
    return None


def _brake(decided: Decided, release: Release) -> Problem | None:
    """Say what goes round in circles."""
    if decided.is_stalled:
        text = (
            f"grew and shrank again, or lost place-holders, {TURNS_AN_HOUR} times in an hour: "
            "the next time waits until that is over"
        )
        return Problem(reason="TooManyDecisions", message=text)
    failures = decided.failures
    if failures and failures.count >= FAILURES_IN_A_ROW:
        text = f"place-holders failed {failures.count} times in a row, the last one: {failures.why}"
        return Problem(reason="PlaceholdersFail", message=text)
    if release.is_blocked:
        return Problem(reason="DrainBlocked", message="; ".join(release.says))
    return None


def _explain(group: NodeGroup, decided: Decided, release: Release) -> str:
    """Say in one line why a group has the size it has."""
    demand, size, desired = decided.demand, decided.size, decided.desired
    surplus = decided.surplus
    parts = [f"{size.why}: {_count(desired, 'node')} wanted, {demand.load.size} there"]
    if size.need > group.spec.max:
        parts.append(f"max is {group.spec.max}")
    elif size.need < desired and not surplus:
        kept = "the last decision is recent" if size.stands_until else "idle nodes stay for a while"
        parts.append(kept)
    if demand.misfits:
        parts.append(f"{_count(demand.misfits, 'waiting Run')} larger than any node of the group")
    if demand.lost:
        parts.append(f"not ready and not counted: {_names(demand.lost)}")
    static = group.spec.provider.static
    if static and desired > demand.load.size:
        parts.append(_advice(desired - demand.load.size))
    if static and surplus:
        parts.append(f"free to go: {_names(surplus)}")
    if not release.is_blocked:  # else it is said already
        parts += release.says
    if group.spec.observe_only:
        parts.append("observeOnly: nothing is changed")
    return "; ".join(parts)


def _advice(missing: int) -> str:
    return f"add {_count(missing, 'node')}, which no autoscaler does for a static group"


def _names(nodes: Sequence[str]) -> str:
    """List nodes, so many as a line takes."""
    told, more = sorted(nodes)[:NODES_TOLD], len(nodes) - NODES_TOLD
    return ", ".join([*told, f"and {more} more"] if more > 0 else told)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def node_group_events(
    group: NodeGroup, status: NodeGroupStatus, decided: Decided
) -> tuple[Event, ...]:
    """Tell of each decision, and of each change that somebody has to look at."""
    events: list[Event] = []
    last = status.last_decision
    if last and decided.is_news:
        reason = "ScaledUp" if last.to > last.from_size else "ScaledDown"
        if group.spec.observe_only:
            reason = f"Would{reason.replace('Scaled', 'Scale')}"
        there = decided.demand.load.size
        text = f"from {last.from_size} to {last.to}: {last.why}; {there} there"
        if group.spec.provider.static and last.to > there:
            text = f"{text}; {_advice(last.to - there)}"
        events.append(Event(type="Normal", reason=reason, message=text))
    for type in (DRIFTED, STALLED, AT_LIMIT):
        new = find_condition(status.conditions, type)
        old = find_condition(group.status.conditions, type)
        if new and new.status == "True" and not (old and old.status == "True"):
            kind = "Normal" if type == AT_LIMIT else "Warning"
            events.append(Event(type=kind, reason=type, message=new.message))  # type: ignore[arg-type]
    return tuple(events)
