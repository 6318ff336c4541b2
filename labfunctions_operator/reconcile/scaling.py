"""How many nodes a group should have: pure policy over counts, for the reconciler and simulation.

LabFunctions lent the words (queue, idle, steps), not the algorithm: sizes are absolute, so that
deciding twice is deciding once, and a node counts as free to go only while nothing needs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from labfunctions_operator.api.nodegroup import Decision, NodeGroupSpec, Steps
from labfunctions_operator.api.times import parse_duration, parse_time
from labfunctions_operator.reconcile.warm import Floor, floor_at


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of a group.

    Attributes:
        name: Of the Node object.
        ready: Whether it takes pods.
        runs: Runs on it that have not ended.
        idle_since: When its last Run ended or it became Ready, whichever is later.
        is_awaited: Whether a Run that waits would fit onto it.
        is_held: Whether something other than a Run keeps it.
    """

    name: str
    ready: bool = True
    runs: int = 0
    idle_since: datetime
    is_awaited: bool = False
    is_held: bool = False


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a group has to do.

    Attributes:
        nodes: Those that exist.
        pending: Runs that wait for a node, and would fit onto one.
        ahead: Scheduled Runs that are about to exist.
    """

    nodes: Sequence[Node] = ()
    pending: int = 0
    ahead: int = 0

    @property
    def size(self) -> int:
        """How many nodes exist."""
        return len(self.nodes)

    @property
    def busy(self) -> int:
        """How many nodes have a Run."""
        return sum(node.runs > 0 for node in self.nodes)


@dataclass(frozen=True, kw_only=True)
class Size:
    """What the policy says.

    Attributes:
        desired: How many nodes the group should have now.
        need: How many it would have without max, maxStep, idle times and cooldowns.
        why: The numbers behind it, in one line.
        floor: The fewest nodes now.
        releasable: The nodes that may go, the longest idle first.
        stands_until: Until when the last decision stands, if that keeps desired from the need.
        look_again: When time alone may change this; None means never.
    """

    desired: int
    need: int
    why: str
    floor: Floor
    releasable: tuple[str, ...]
    stands_until: datetime | None = None
    look_again: datetime | None = None


def size_for(
    spec: NodeGroupSpec, load: Load, *, desired: int | None, last: Decision | None, now: datetime
) -> Size:
    """Decide how many nodes a group should have.

    Args:
        spec: The policy.
        load: What exists and waits.
        desired: What was decided before; None for a group that is seen for the first time.
        last: The last change of it.
        now: The time.
    """
    floor = floor_at(spec.min, spec.warm, now)
    before = load.size if desired is None else desired
    after = _idle_after(spec)
    free = _releasable(load, after, now)
    need, why = _need(spec, load, before, floor, len(free))
    chosen, stands_until = before, None
    if need > before:
        stands_until = _stands_until(spec.cooldown.up, last, now, only_up=True)
        chosen = before if stands_until else _limited(spec, need, before)
    elif need < before:
        stands_until = _stands_until(spec.cooldown.down, last, now, only_up=False)
        # A node that is not free to go is still wanted: else it would go as soon as it may.
        chosen = before if stands_until else min(before, max(need, load.size - len(free)))
    waits = [floor.changes_at, stands_until, *_idle_ends(load, after, now)]
    return Size(
        # The group's own bounds hold at once, whatever was decided a moment ago.
        desired=max(floor.min, min(chosen, spec.max)),
        need=need,
        why=why,
        floor=floor,
        releasable=free,
        stands_until=stands_until,
        look_again=min((t for t in waits if t is not None), default=None),
    )


def _need(spec: NodeGroupSpec, load: Load, before: int, floor: Floor, free: int) -> tuple[int, str]:
    if spec.policy.steps:
        need, why = _by_steps(spec.policy.steps, load, before, free)
    else:
        need, why = _by_demand(spec, load)
    if need < floor.min:
        return floor.min, floor.why or f"the minimum of {floor.min}"
    return need, why


def _by_demand(spec: NodeGroupSpec, load: Load) -> tuple[int, str]:
    """Size by what runs and what waits, so that no Run waits for another one's node."""
    queue = spec.queue
    waiting = load.pending + load.ahead
    if load.pending < queue.scale_up_at and load.busy and not load.ahead:
        return load.busy, f"{load.busy} busy, {load.pending} waiting"
    more = -(-waiting // queue.runs_per_node)
    ahead = f" ({load.ahead} of them due soon)" if load.ahead else ""
    each = f" at {queue.runs_per_node} a node" if queue.runs_per_node > 1 else ""
    return load.busy + more, f"{load.busy} busy, {waiting} waiting{ahead}{each}"


def _by_steps(steps: Steps, load: Load, before: int, free: int) -> tuple[int, str]:
    """Go up or down by fixed steps; a next one only once the nodes of the last one are there."""
    waiting = load.pending + load.ahead
    why = f"{waiting} waiting"
    if waiting > steps.items_gt:
        if load.size >= before:
            return before + steps.increase_by, f"{why}, more than {steps.items_gt}"
        return before, f"{why}, {before - load.size} nodes are on their way"
    if waiting and not before:
        return 1, f"{why}, and no node is there"
    if waiting < steps.items_lt and (free or load.size < before):
        return max(before - steps.decrease_by, load.busy), f"{why}, fewer than {steps.items_lt}"
    return before, why


def _idle_after(spec: NodeGroupSpec) -> timedelta:
    steps = spec.policy.steps
    return parse_duration((steps and steps.idle_time_gt) or spec.idle.after)


def _releasable(load: Load, after: timedelta, now: datetime) -> tuple[str, ...]:
    """Return the nodes that nothing needs, the longest idle first."""
    unneeded = [n for n in load.nodes if not (n.runs or n.is_awaited or n.is_held)]
    idle = [n for n in unneeded if n.idle_since + after <= now]
    return tuple(n.name for n in sorted(idle, key=lambda n: (n.idle_since, n.name)))


def _idle_ends(load: Load, after: timedelta, now: datetime) -> list[datetime]:
    """Say when nodes become free to go."""
    ends = [node.idle_since + after for node in load.nodes if not node.runs]
    return [end for end in ends if end > now]


def _limited(spec: NodeGroupSpec, target: int, before: int) -> int:
    step = spec.queue.max_step
    return target if step is None else min(target, before + step)


def _stands_until(
    cooldown: str, last: Decision | None, now: datetime, *, only_up: bool
) -> datetime | None:
    """Return until when the last decision stands, if it still does."""
    if last is None or (only_up and last.to < last.from_size):
        return None
    until = parse_time(last.at) + parse_duration(cooldown)
    return until if until > now else None
