"""Nodes kept ready ahead of Runs: by schedule, in a time zone, for a while."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from labfunctions_operator.api.nodegroup import Warm
from labfunctions_operator.api.times import parse_duration
from labfunctions_operator.reconcile.timetable import cron


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The fewest nodes at a time.

    Attributes:
        min: How many.
        why: What asks for them, for a person; empty for the group's own minimum.
        until: When that ends, if it does.
        changes_at: When the floor may be another one; None means never.
    """

    min: int
    why: str = ""
    until: datetime | None = None
    changes_at: datetime | None = None


def floor_at(least: int, warm: Iterable[Warm], now: datetime) -> Floor:
    """Return the fewest nodes that a group keeps now.

    Raises:
        InvalidSpec: A schedule or zone cannot be worked with.
    """
    best = Floor(min=least)
    changes: list[datetime] = []
    for index, window in enumerate(warm):
        # As Workflows have it, on days when clocks change, too.
        times = cron(window.schedule, window.time_zone, f"spec.warm[{index}]")
        started = times.until(now)
        end = started + parse_duration(window.duration) if started else None
        changes += [t for t in (end, times.after(now)) if t is not None and t > now]
        if end is not None and end > now and window.min > best.min:
            best = Floor(
                min=window.min, why=f"{window.min} kept warm by {window.schedule!r}", until=end
            )
    return Floor(
        min=best.min, why=best.why, until=best.until, changes_at=min(changes, default=None)
    )
