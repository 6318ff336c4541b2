"""Nodes kept ready ahead of Runs: by schedule, in a time zone, for a while."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, croniter

from labfunctions_operator.api.nodegroup import Warm
from labfunctions_operator.api.times import parse_duration

# A date such as 31 February is looked for no longer than this.
_YEARS = 5


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
    """Return the fewest nodes that a group keeps now."""
    best = Floor(min=least)
    changes: list[datetime] = []
    for window in warm:
        minute = now.replace(second=0, microsecond=0)
        started, follows = _around(window.schedule, window.time_zone, minute)
        end = started + parse_duration(window.duration) if started else None
        changes += [t for t in (end, follows) if t is not None and t > now]
        if end is not None and end > now and window.min > best.min:
            best = Floor(
                min=window.min, why=f"{window.min} kept warm by {window.schedule!r}", until=end
            )
    return Floor(
        min=best.min, why=best.why, until=best.until, changes_at=min(changes, default=None)
    )


@lru_cache(maxsize=1024)
def _around(
    schedule: str, time_zone: str, minute: datetime
) -> tuple[datetime | None, datetime | None]:
    """Return when a window began last, and when it begins next, at any second of a minute."""
    local = minute.astimezone(ZoneInfo(time_zone or "UTC"))

    def find(start: datetime, backwards: bool) -> datetime | None:
        times = croniter(schedule, start, max_years_between_matches=_YEARS)
        try:
            found: datetime = (times.get_prev if backwards else times.get_next)(datetime)
        except CroniterBadDateError:
            return None
        return found

    # The past ends with this very minute.
    return find(local + timedelta(seconds=1), True), find(local, False)
