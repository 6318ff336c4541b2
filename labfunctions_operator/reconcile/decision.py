"""One decision on a NodeGroup's size: whether it is news, and a brake on loops of somebody's."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.reconcile.demand import Demand
from labfunctions_operator.reconcile.scaling import Size, size_for

# More decisions than this in an hour are a loop of somebody's, not demand.
DECISIONS_AN_HOUR = 60
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Decided:
    """A size, and whether that is news.

    Attributes:
        desired: The size in nodes.
        before: The size that was decided on before.
        size: What the policy says.
        demand: What it says it of.
        recent: When the decisions of the last hour were taken.
        stalled_until: Until when no decision counts, if they come too fast.
    """

    desired: int
    before: int
    size: Size
    demand: Demand
    recent: list[str]
    stalled_until: datetime | None

    @property
    def is_stalled(self) -> bool:
        """Whether the size stays since decisions come too fast."""
        return self.stalled_until is not None

    @property
    def is_news(self) -> bool:
        """Whether the size is another one than before."""
        return self.desired != self.before

    @property
    def surplus(self) -> Sequence[str]:
        """The nodes that may go and are not wanted any more."""
        return self.size.releasable[: max(0, self.demand.load.size - self.desired)]


def decide(group: NodeGroup, demand: Demand, now: datetime) -> Decided:
    """Decide on a size, unless too many decisions were taken in the last hour."""
    status = group.status
    size = size_for(
        group.spec, demand.load, desired=status.desired, last=status.last_decision, now=now
    )
    before = demand.load.size if status.desired is None else status.desired
    # Forgotten only when there is a new one: time alone is no reason to write.
    recent = [t for t in status.recent_decisions if parse_time(t) + _HOUR > now]
    is_news = size.desired != before
    is_stalled = is_news and len(recent) >= DECISIONS_AN_HOUR
    return Decided(
        desired=before if is_stalled else size.desired,
        before=before,
        size=size,
        demand=demand,
        recent=[*recent, rfc3339(now)] if is_news and not is_stalled else status.recent_decisions,
        stalled_until=parse_time(recent[0]) + _HOUR if is_stalled else None,
    )
