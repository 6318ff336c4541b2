"""What a NodeGroup needs next: a size by its policy, and the one way its provider has to get it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.times import parse_duration, parse_time
from labfunctions_operator.reconcile.bounds import Wanted, bounds_of, end_raise, wanted_bounds
from labfunctions_operator.reconcile.decision import Decided, decide
from labfunctions_operator.reconcile.demand import NodeGroupObserved, demand_of
from labfunctions_operator.reconcile.nodegroup_status import (
    disabled_status,
    node_group_events,
    node_group_status,
)
from labfunctions_operator.reconcile.nodes import Bounds, PoolView
from labfunctions_operator.reconcile.offers import coming_node
from labfunctions_operator.reconcile.placeholders import place
from labfunctions_operator.reconcile.plan import Plan
from labfunctions_operator.reconcile.release import Release, give_back, held_nodes, release_nodes
from labfunctions_operator.settings import Settings


@dataclass(frozen=True, kw_only=True)
class NodeGroupPlan:
    """What to do for a NodeGroup.

    Attributes:
        plan: For the executor.
        bounds: What the provider is to be told once the plan is carried out, if anything.
    """

    plan: Plan
    bounds: Bounds | None = None


def reconcile_node_group(
    group: NodeGroup, seen: NodeGroupObserved, settings: Settings, now: datetime
) -> NodeGroupPlan:
    """Decide what a NodeGroup needs, from what exists now.

    Raises:
        InvalidSpec: A warm time cannot be worked with.
    """
    if not settings.autoscaling.enabled:
        return NodeGroupPlan(plan=Plan(status=disabled_status(group, now).wire()))
    ahead = group.spec.warm_ahead
    demand = demand_of(
        seen,
        # Whoever gives a group other machines says so by an edit.
        known={} if group.is_edited else group.status.node_resources,
        devices=group.spec.devices,
        ahead=parse_duration(ahead) if ahead else None,
        held=held_nodes(seen.nodes, now),
        now=now,
    )
    decided = decide(group, seen, demand, now)
    wanted = _wanted(group, seen, decided, now)
    release = _release(group, seen, decided, now)
    plan = _children(group, seen, decided, settings)
    status = node_group_status(group, seen, decided, wanted, release, now=now)
    waits = [
        decided.size.look_again,
        demand.next_tick,
        demand.lost_next,
        release.look_again,
        _raise_ends(wanted, now),
        decided.stalled_until,
        decided.held_until,
        decided.forgotten_at,
    ]
    plan = replace(
        plan,
        apply=(*plan.apply, *release.apply),
        delete=(*plan.delete, *release.delete),
        evict=release.evict,
        status=status.wire(),
        events=node_group_events(group, status, decided),
        requeue_after=_seconds_to_first(waits, now),
    )
    return NodeGroupPlan(plan=plan, bounds=_bounds(group, wanted, demand.coming))


def refuse_node_group(
    group: NodeGroup, pool: PoolView, status: Mapping[str, Any], now: datetime
) -> NodeGroupPlan:
    """Decide what is still done for a group whose spec cannot be worked with: its raise ends.

    Args:
        group: As far as it can be read.
        pool: What is known of its pool.
        status: That says why it is refused.
        now: The time.
    """
    wanted = end_raise(group, pool, now)
    records = {"wanted": wanted.wanted, "written": wanted.written}
    status = {name: value for name, value in status.items() if name not in records}
    status |= {name: record.wire() for name, record in records.items() if record}
    plan = Plan(status=status, requeue_after=_seconds_to_first([_raise_ends(wanted, now)], now))
    coming = coming_node(group.status.node_resources, group.spec.devices)
    return NodeGroupPlan(plan=plan, bounds=_bounds(group, wanted, coming))


def _bounds(group: NodeGroup, wanted: Wanted, resources: Mapping[str, str]) -> Bounds | None:
    if wanted.wanted is None or not wanted.may_write:
        return None
    return bounds_of(group, wanted.wanted, dict(resources))


def _wanted(group: NodeGroup, seen: NodeGroupObserved, decided: Decided, now: datetime) -> Wanted:
    if seen.pool is None:
        return Wanted()
    return wanted_bounds(
        group,
        seen.pool,
        desired=decided.desired,
        size=len(seen.nodes),
        floor=decided.size.floor,
        now=now,
    )


def _children(
    group: NodeGroup, seen: NodeGroupObserved, decided: Decided, settings: Settings
) -> Plan:
    """Return the place-holders of a group; those that an earlier provider left behind go."""
    if group.spec.observe_only:
        return Plan()
    apply, delete = place(
        group,
        decided.room,
        seen.placeholders,
        seen.images,
        settings,
        free=decided.size.releasable,
        may_create=decided.may_create,
    )
    return Plan(apply=apply, delete=delete)


def _release(group: NodeGroup, seen: NodeGroupObserved, decided: Decided, now: datetime) -> Release:
    static = group.spec.provider.static
    if group.spec.observe_only:
        return Release()
    if static is None or not static.delete_nodes:
        return Release(apply=give_back(seen.nodes))
    return release_nodes(
        seen,
        decided.surplus,
        missing=max(0, decided.desired - decided.demand.load.size),
        now=now,
    )


def _raise_ends(wanted: Wanted, now: datetime) -> datetime | None:
    if wanted.wanted is None or wanted.wanted.until is None:
        return None
    until = parse_time(wanted.wanted.until)
    return until if until > now else None


def _seconds_to_first(times: Sequence[datetime | None], now: datetime) -> float | None:
    waits = [(t - now).total_seconds() for t in times if t is not None]
    return max(0.5, min(waits)) if waits else None
