"""One decision on a NodeGroup's size: whether it is news, and brakes on loops of somebody's."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from labfunctions_operator.api.nodegroup import CAPACITY, Failures, NodeGroup
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.reconcile.demand import Demand, NodeGroupObserved
from labfunctions_operator.reconcile.placeholders import (
    are_missing,
    failures_of,
    forgotten_at,
    retry_at,
    room_wanted,
)
from labfunctions_operator.reconcile.scaling import Size, size_for

# More turns than this in an hour are a loop of somebody's, not demand: between two of them lies a
# whole cooldown.down, which is a minute unless somebody has shortened it.
TURNS_AN_HOUR = 60
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Decided:
    """A size, and whether that is news.

    Attributes:
        desired: The size in nodes.
        before: The size that was decided on before.
        size: What the policy says.
        demand: What it says it of.
        recent: When the turns of the last hour were.
        room: How many place-holders there should be.
        failures: Of place-holders, in a row.
        stalled_until: Until when there is no further turn, if they come too fast.
        held_until: Until when no place-holder is made, as the last ones failed.
        forgotten_at: When those failures are no more.
    """

    desired: int
    before: int
    size: Size
    demand: Demand
    recent: list[str]
    room: int
    failures: Failures | None
    stalled_until: datetime | None
    held_until: datetime | None
    forgotten_at: datetime | None

    @property
    def is_stalled(self) -> bool:
        """Whether something stays as it is since turns come too fast."""
        return self.stalled_until is not None

    @property
    def may_create(self) -> bool:
        """Whether place-holders may be made now."""
        return self.stalled_until is None and self.held_until is None

    @property
    def is_news(self) -> bool:
        """Whether the size is another one than before."""
        return self.desired != self.before

    @property
    def surplus(self) -> Sequence[str]:
        """The nodes that may go and are not wanted any more."""
        return self.size.releasable[: max(0, self.demand.load.size - self.desired)]


def decide(group: NodeGroup, seen: NodeGroupObserved, demand: Demand, now: datetime) -> Decided:
    """Decide on a size, unless it has gone back and forth too often in the last hour.

    What counts is a turn: the size falls after it has risen, or place-holders have to be made anew,
    whoever takes them away. Growth alone never does, nor is it held back; nor does what is denied.
    """
    status, placeholders = group.status, seen.placeholders
    size = size_for(
        group.spec, demand.load, desired=status.desired, last=status.last_decision, now=now
    )
    before = demand.load.size if status.desired is None else status.desired
    # Forgotten only when there is a new one: time alone is no reason to write.
    recent = [t for t in status.recent_decisions if parse_time(t) + _HOUR > now]
    has_pods = group.spec.provider.name == CAPACITY and not group.spec.observe_only
    failures = status.placeholder_failures if has_pods else None
    if has_pods and not seen.is_placing_denied:  # else the same ones would count at each look
        failures = failures_of(group, placeholders, now)
    retry = retry_at(failures) if failures else now
    is_due = has_pods and retry <= now and are_missing(group, demand.load, placeholders)
    last = status.last_decision
    falls_back = size.desired < before and last is not None and last.to > last.from_size
    is_turn = falls_back or (is_due and not seen.is_placing_denied)
    is_stalled = is_turn and len(recent) >= TURNS_AN_HOUR
    # The group's own bounds hold all the same.
    desired = min(before, group.spec.max) if is_stalled and falls_back else size.desired
    room = room_wanted(group, desired, demand.load.busy, demand.load.pending)
    return Decided(
        desired=desired,
        before=before,
        size=size,
        demand=demand,
        recent=[*recent, rfc3339(now)] if is_turn and not is_stalled else status.recent_decisions,
        room=room,
        # What nobody wants any more does not fail any more.
        failures=failures if room else None,
        stalled_until=parse_time(recent[0]) + _HOUR if is_stalled else None,
        held_until=retry if room and retry > now else None,
        forgotten_at=forgotten_at(failures, placeholders) if failures else None,
    )
