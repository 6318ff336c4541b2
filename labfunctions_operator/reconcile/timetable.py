"""When a schedule's ticks are: cron fields in a time zone, or every so many minutes.

A tick is an instant. Two rules for the days on which clocks change. Where the hour field names
hours, a time that clocks skip is the first instant after the gap, and a time that comes twice is
its first occurrence. Where the hour field is a wildcard, elapsed time counts: a tick is each
minute whose clock reading fits, so that skipped readings have none and repeated ones have two.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from croniter import croniter

from labfunctions_operator.api.schedule import ScheduleSpec
from labfunctions_operator.api.times import parse_duration, parse_time
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.cron_fields import matching_day, normal_fields

_DAY = timedelta(days=1)


class Timetable(Protocol):
    """The ticks of a schedule; both ends of an interval can be asked for."""

    def after(self, moment: datetime) -> datetime | None:
        """Return the first tick later than a moment."""

    def until(self, moment: datetime) -> datetime | None:
        """Return the last tick not later than a moment."""


def timetable(spec: ScheduleSpec, created: datetime) -> Timetable:
    """Return the ticks that a spec describes.

    Args:
        spec: One that has a schedule or an interval.
        created: From when an interval without startAt counts.

    Raises:
        InvalidSpec: A field has a value that cannot be worked with.
    """
    start = _utc(spec.start_at)
    end = _utc(spec.end_at)
    if start and end and end < start:
        raise InvalidSpec("spec.endAt", "is before spec.startAt")
    if spec.interval and start is None:
        start = created + parse_duration(spec.interval)
    return Bounded(_unbounded(spec, created), start, end)


def timetable_of_range(
    spec: ScheduleSpec, created: datetime, start: datetime, end: datetime
) -> Timetable:
    """Return the ticks that a spec would have had from a time to a time, startAt or not.

    Args:
        spec: One that has a schedule or an interval.
        created: What an interval without startAt counts from, in both directions.
        start: The first time that a tick may have.
        end: The last one.

    Raises:
        InvalidSpec: A field has a value that cannot be worked with.
    """
    return Bounded(_unbounded(spec, created), start, end)


def _unbounded(spec: ScheduleSpec, created: datetime) -> Timetable:
    if spec.interval:
        return Every(_utc(spec.start_at) or created, parse_duration(spec.interval))
    return cron(spec.schedule or "", spec.time_zone, "spec")


def cron(schedule: str, time_zone: str | None, path: str) -> "Cron":
    """Return the ticks of cron fields on the clocks of a zone.

    Args:
        schedule: The fields, as they were typed.
        time_zone: By its name in the tz database; UTC if there is none.
        path: Of what has these two as `schedule` and `timeZone`.

    Raises:
        InvalidSpec: Of one of them.
    """
    zone = time_zone or "UTC"
    _check_zone(zone, f"{path}.timeZone")
    return Cron(normal_fields(schedule, f"{path}.schedule"), zone)


@dataclass(frozen=True)
class Every:
    """A tick at one moment, and each time that an interval has passed since, or will until then."""

    moment: datetime
    interval: timedelta

    def after(self, moment: datetime) -> datetime | None:
        """Return the first tick later than a moment."""
        return self._tick((moment - self.moment) // self.interval + 1)

    def until(self, moment: datetime) -> datetime | None:
        """Return the last tick not later than a moment."""
        return self._tick((moment - self.moment) // self.interval)

    def _tick(self, number: int) -> datetime | None:
        try:
            return self.moment + number * self.interval
        except OverflowError:
            return None


@dataclass(frozen=True)
class Cron:
    """Ticks by cron fields, read on the clocks of a zone."""

    expression: str
    zone: str

    def after(self, moment: datetime) -> datetime | None:
        """Return the first tick later than a moment."""
        wanted = math.floor(moment.timestamp())
        for ticks in self._days(moment, forward=True):
            index = bisect_right(ticks, wanted)
            if index < len(ticks):
                return datetime.fromtimestamp(ticks[index], UTC)
        return None

    def until(self, moment: datetime) -> datetime | None:
        """Return the last tick not later than a moment."""
        wanted = math.floor(moment.timestamp())
        for ticks in self._days(moment, forward=False):
            index = bisect_right(ticks, wanted)
            if index > 0:
                return datetime.fromtimestamp(ticks[index - 1], UTC)
        return None

    def _days(self, moment: datetime, *, forward: bool) -> Iterator[tuple[int, ...]]:
        """Yield the ticks around a moment, then those around the next days that have any.

        Each time with the neighbouring days: where clocks change at midnight, ticks of one date
        may come after some of the next.
        """
        try:
            today = moment.astimezone(ZoneInfo(self.zone)).date()
            yield _around(self.expression, self.zone, today)
            step = _DAY if forward else -_DAY
            # The first one may be a neighbour of today, the second one reach into it by a gap.
            for _ in range(3):
                day = matching_day(self.expression, today + step, forward)
                if day is None:
                    return
                yield _around(self.expression, self.zone, day)
                today = day
        except (OverflowError, ValueError):
            return


@dataclass(frozen=True)
class Bounded:
    """The ticks of another timetable from a time to a time, both included."""

    ticks: Timetable
    start: datetime | None
    end: datetime | None

    def after(self, moment: datetime) -> datetime | None:
        """Return the first tick later than a moment."""
        if self.start and moment < self.start:
            moment = self.start - timedelta(microseconds=1)
        tick = self.ticks.after(moment)
        return None if tick is None or (self.end and tick > self.end) else tick

    def until(self, moment: datetime) -> datetime | None:
        """Return the last tick not later than a moment."""
        if self.end and moment > self.end:
            moment = self.end
        tick = self.ticks.until(moment)
        return None if tick is None or (self.start and tick < self.start) else tick


def _utc(text: str | None) -> datetime | None:
    return parse_time(text).astimezone(UTC).replace(microsecond=0) if text else None


def _check_zone(zone: str, path: str) -> None:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        # OSError: the name of a folder of the tz database, such as Europe.
        raise InvalidSpec(path, f"the tz database has no zone {zone[:60]!r}") from None


@lru_cache(maxsize=256)
def _around(expression: str, zone: str, day: date) -> tuple[int, ...]:
    days = (day - _DAY, day, day + _DAY)
    return tuple(sorted({tick for d in days for tick in _ticks(expression, zone, d)}))


@lru_cache(maxsize=256)
def _ticks(expression: str, zone: str, day: date) -> tuple[int, ...]:
    """Return the ticks of one local date, in Unix seconds."""
    if matching_day(expression, day, True) != day:
        return ()
    (minutes, hours), by_hour = _clock(expression)
    tz = ZoneInfo(zone)
    midnight = datetime(day.year, day.month, day.day)
    readings = (midnight + timedelta(hours=h, minutes=m) for h in hours for m in minutes)
    if _is_plain(midnight, tz):
        start = midnight.replace(tzinfo=tz).timestamp()
        return tuple(int(start + (r - midnight).total_seconds()) for r in readings)
    found: set[int] = set()
    for reading in readings:
        found.update(_every(reading, tz) if by_hour else (_once(reading, tz),))
    return tuple(sorted(found))


@lru_cache(maxsize=4096)
def _clock(expression: str) -> tuple[tuple[list[int], list[int]], bool]:
    """Return the minutes and hours that an expression names, and whether hours are a wildcard."""
    fields, _ = croniter.expand(expression)
    minutes, hours = (
        list(range(size)) if field == ["*"] else [int(n) for n in field]
        for field, size in zip(fields[:2], (60, 24), strict=True)
    )
    return (minutes, hours), expression.split(" ")[1] == "*"


def _is_plain(midnight: datetime, tz: ZoneInfo) -> bool:
    """Whether no clock changes on a date; the day before counts, as its gap may reach over."""
    edges = (midnight - _DAY, midnight, midnight + _DAY, midnight + 2 * _DAY)
    return len({edge.replace(tzinfo=tz).utcoffset() for edge in edges}) == 1


def _every(reading: datetime, tz: ZoneInfo) -> Iterator[int]:
    """Yield each instant at which clocks show a reading: none, one or two."""
    for fold in (0, 1):
        seconds = int(reading.replace(tzinfo=tz, fold=fold).timestamp())
        if datetime.fromtimestamp(seconds, tz).replace(tzinfo=None) == reading:
            yield seconds


def _once(reading: datetime, tz: ZoneInfo) -> int:
    """Return the first instant at which clocks show a reading, or have passed it."""
    for seconds in _every(reading, tz):
        return seconds
    # In a gap: fold 0 reads with the offset before it, so what lies ahead of the gap by that.
    before = reading.replace(tzinfo=tz, fold=0).utcoffset()
    early = int(reading.replace(tzinfo=tz, fold=1).timestamp())
    late = int(reading.replace(tzinfo=tz, fold=0).timestamp())
    while late - early > 1:
        middle = (early + late) // 2
        if datetime.fromtimestamp(middle, tz).utcoffset() == before:
            early = middle
        else:
            late = middle
    return late
