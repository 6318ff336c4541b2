"""When ticks are: tables for zones and clock changes, and a year's days against a slow oracle."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from labfunctions_operator.api.cron import FIELDS, SCHEDULE
from labfunctions_operator.api.schedule import ScheduleSpec
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.timetable import Timetable, timetable

ROOT = Path(__file__).parents[3]
CREATED = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def table(created: datetime = CREATED, **spec: object) -> Timetable:
    return timetable(ScheduleSpec.model_validate(spec), created)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ticks(made: Timetable, start: str, end: str) -> list[str]:
    """The ticks after a time and up to another, found forwards and again backwards."""
    first, last = utc(start), utc(end)
    ahead, back = [], []
    moment = made.after(first)
    while moment is not None and moment <= last:
        ahead.append(moment)
        moment = made.after(moment)
    moment = made.until(last)
    while moment is not None and moment > first:
        back.insert(0, moment)
        moment = made.until(moment - timedelta(seconds=1))
    assert ahead == back
    return [f"{tick.astimezone(UTC):%m-%d %H:%M}" for tick in ahead]


CLOCK_CHANGES = [
    # New York: 02:00 becomes 03:00 on 8 March 2026, 02:00 becomes 01:00 on 1 November.
    (
        "America/New_York",
        "30 2 * * *",
        "2026-03-07 12:00",
        "2026-03-09 12:00",
        ["03-08 07:00", "03-09 06:30"],
    ),
    (
        "America/New_York",
        "0 2 * * *",
        "2026-03-07 12:00",
        "2026-03-09 12:00",
        ["03-08 07:00", "03-09 06:00"],
    ),
    ("America/New_York", "15,45 2 * * *", "2026-03-07 12:00", "2026-03-09 00:00", ["03-08 07:00"]),
    ("America/New_York", "0 2,3 * * *", "2026-03-07 12:00", "2026-03-09 00:00", ["03-08 07:00"]),
    (
        "America/New_York",
        "30 * * * *",
        "2026-03-08 05:00",
        "2026-03-08 09:00",
        ["03-08 05:30", "03-08 06:30", "03-08 07:30", "03-08 08:30"],
    ),
    (
        "America/New_York",
        "30 1 * * *",
        "2026-10-31 12:00",
        "2026-11-02 12:00",
        ["11-01 05:30", "11-02 06:30"],
    ),
    # Hours that are named one by one, or by a range, are no wildcard.
    (
        "America/New_York",
        "30 0-23 * * *",
        "2026-11-01 04:00",
        "2026-11-01 08:00",
        ["11-01 04:30", "11-01 05:30", "11-01 07:30"],
    ),
    (
        "America/New_York",
        "30 */1 * * *",
        "2026-11-01 04:00",
        "2026-11-01 08:00",
        ["11-01 04:30", "11-01 05:30", "11-01 06:30", "11-01 07:30"],
    ),
    (
        "America/New_York",
        "30 * * * *",
        "2026-11-01 04:00",
        "2026-11-01 08:00",
        ["11-01 04:30", "11-01 05:30", "11-01 06:30", "11-01 07:30"],
    ),
    # London: 01:00 becomes 02:00 on 29 March, 02:00 becomes 01:00 on 25 October.
    (
        "Europe/London",
        "30 1 * * *",
        "2026-03-28 12:00",
        "2026-03-30 12:00",
        ["03-29 01:00", "03-30 00:30"],
    ),
    (
        "Europe/London",
        "0,30 1 * * *",
        "2026-10-24 12:00",
        "2026-10-25 12:00",
        ["10-25 00:00", "10-25 00:30"],
    ),
    (
        "Europe/London",
        "*/30 * * * *",
        "2026-10-24 23:30",
        "2026-10-25 02:00",
        ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00"],
    ),
    # Lord Howe moves by half an hour: 02:00 becomes 02:30 on 4 October, 01:30 on 5 April.
    (
        "Australia/Lord_Howe",
        "15 2 * * *",
        "2026-10-02 18:00",
        "2026-10-04 18:00",
        ["10-03 15:30", "10-04 15:15"],
    ),
    (
        "Australia/Lord_Howe",
        "45 1 * * *",
        "2026-04-03 18:00",
        "2026-04-05 18:00",
        ["04-04 14:45", "04-05 15:15"],
    ),
    (
        "Australia/Lord_Howe",
        "45 * * * *",
        "2026-04-04 13:00",
        "2026-04-04 17:00",
        ["04-04 13:45", "04-04 14:45", "04-04 15:15", "04-04 16:15"],
    ),
    # Casablanca goes back for Ramadan: 03:00 becomes 02:00 on 15 February, 02:00 becomes 03:00 on
    # 22 March.
    (
        "Africa/Casablanca",
        "30 2 * * *",
        "2026-02-13 12:00",
        "2026-02-16 12:00",
        ["02-14 01:30", "02-15 01:30", "02-16 02:30"],
    ),
    (
        "Africa/Casablanca",
        "30 2 * * *",
        "2026-03-21 00:00",
        "2026-03-23 12:00",
        ["03-21 02:30", "03-22 02:00", "03-23 01:30"],
    ),
    (
        "Asia/Kolkata",
        "0 9 * * 1-5",
        "2026-03-06 00:00",
        "2026-03-09 12:00",
        ["03-06 03:30", "03-09 03:30"],
    ),
    (
        "Asia/Kolkata",
        "@hourly",
        "2026-03-08 00:00",
        "2026-03-08 02:00",
        ["03-08 00:30", "03-08 01:30"],
    ),
    ("UTC", "0 0 29 2 *", "2026-01-01 00:00", "2032-12-31 00:00", ["02-29 00:00"] * 2),
    (
        "UTC",
        "0 0 1 * 1",
        "2026-03-01 12:00",
        "2026-04-02 00:00",
        [f"03-{day:02} 00:00" for day in (2, 9, 16, 23, 30)] + ["04-01 00:00"],
    ),
    # A whole day that Samoa left out, and clocks that went back over midnight.
    (
        "Pacific/Apia",
        "0 9 * * *",
        "2011-12-29 12:00",
        "2012-01-01 00:00",
        ["12-29 19:00", "12-30 10:00", "12-30 19:00", "12-31 19:00"],
    ),
    (
        "America/Goose_Bay",
        "30 23 * * *",
        "2010-11-05 12:00",
        "2010-11-08 12:00",
        ["11-06 02:30", "11-07 02:30", "11-08 03:30"],
    ),
]


@pytest.mark.parametrize(("zone", "schedule", "start", "end", "expected"), CLOCK_CHANGES)
def test_ticks_where_clocks_change(
    zone: str, schedule: str, start: str, end: str, expected: list[str]
) -> None:
    assert ticks(table(schedule=schedule, timeZone=zone), start, end) == expected


def test_the_zones_of_the_image_are_those_of_the_locked_package() -> None:
    """Another process, as the folders of the system are looked up when Python starts."""
    assert 'PYTHONTZPATH=""' in (ROOT / "images" / "operator" / "Dockerfile").read_text()
    program = """
import zoneinfo
import test_timetable as tests
assert zoneinfo.TZPATH == ()
for zone in tests.ZONES:
    zoneinfo.ZoneInfo(zone)
for case in tests.CLOCK_CHANGES:
    tests.test_ticks_where_clocks_change(*case)
"""
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    env = {**os.environ, "PYTHONTZPATH": "", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("alias", "fields"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
    ],
)
def test_aliases(alias: str, fields: str) -> None:
    span = ("2026-01-01 00:00", "2026-12-31 00:00")
    assert ticks(table(schedule=alias), *span) == ticks(table(schedule=fields), *span)


def test_a_tick_at_the_very_moment_is_the_last_one_and_not_the_next_one() -> None:
    made = table(schedule="0 * * * *")
    assert made.until(utc("2026-01-01 12:00")) == utc("2026-01-01 12:00")
    assert made.after(utc("2026-01-01 12:00")) == utc("2026-01-01 13:00")
    assert made.after(utc("2026-01-01 11:59:59.999999")) == utc("2026-01-01 12:00")


def test_an_interval_counts_from_the_creation_or_from_start_at() -> None:
    span = ("2026-01-01 00:00", "2026-01-01 15:30")
    assert ticks(table(interval="90m"), *span) == ["01-01 13:30", "01-01 15:00"]
    made = table(interval="90m", startAt="2026-01-01T12:10:00Z")
    assert ticks(made, *span) == ["01-01 12:10", "01-01 13:40", "01-01 15:10"]


@pytest.mark.parametrize(
    ("odd", "plain"),
    [
        ("0 5-5 * * *", "0 5 * * *"),
        ("7-7/2,9 0-0 * * *", "7,9 0 * * *"),
        ("0 22-2 * * *", "0 22,23,0,1,2 * * *"),
        ("0 0 * * fri-mon", "0 0 * * 5,6,0,1"),
        ("0 0 * * 7", "0 0 * * 0"),
        ("0 0 ? JAN ?", "0 0 * 1 *"),
        ("5/20 * * * *", "5,25,45 * * * *"),
        # Day and weekday, as CronJob's library has them: both if one is a wildcard, else either.
        ("0 0 */1 * 1", "0 0 * * 1"),
        ("0 0 */01 * 1", "0 0 * * 1"),
        ("0 0 5,* * 1", "0 0 * * 1"),
        ("0 0 5 * */1", "0 0 5 * *"),
        ("0 0 5 * 1,*/1", "0 0 5 * *"),
        ("0 0 1-31 * 1", "0 0 * * *"),
        ("0 0 1-31/1 * 1", "0 0 * * *"),
        ("0 0 1/1 * 1", "0 0 * * *"),
        ("0 0 5 * 0-6", "0 0 * * *"),
        ("0 0 */16 * 1", "0 0 1,17 * 1"),
        ("0 0 5 * */3", "0 0 5 * 0,3,6"),
        ("0 */1 */1 */1 */1", "0 * * * *"),
        ("? ?/1 9 * *", "* * 9 * *"),
        ("0 *,5 * * *", "0 * * * *"),
        ("0 0 3,* * 1", "0 0 * * 1"),
        ("0 0 5 * ?", "0 0 5 * *"),
        ("0 0 */2 * 1-7", "0 0 * * *"),
    ],
)
def test_fields_mean_what_they_say(odd: str, plain: str) -> None:
    span = ("2026-01-01 00:00", "2026-02-01 00:00")
    assert ticks(table(schedule=odd), *span) == ticks(table(schedule=plain), *span)


def test_start_and_end_belong_to_it() -> None:
    made = table(
        schedule="0 * * * *", startAt="2026-01-01T14:00:00+01:00", endAt="2026-01-01T15:00:00Z"
    )
    span = ("2026-01-01 00:00", "2026-01-02 00:00")
    assert ticks(made, *span) == ["01-01 13:00", "01-01 14:00", "01-01 15:00"]
    late = table(schedule="0 * * * *", startAt="2026-01-01T13:00:00.5Z")
    assert late.after(CREATED) == utc("2026-01-01 13:00"), "times have whole seconds"
    assert late.until(utc("2026-01-01 12:59")) is None


REFUSED = {
    "spec.schedule: takes no TZ= or CRON_TZ=; name the zone in timeZone": [
        {"schedule": "TZ=UTC 0 * * * *"},
        {"schedule": "CRON_TZ=Europe/Paris 0 * * * *"},
    ],
    "spec.schedule: has 6 fields and needs five: minute hour day month weekday; "
    "there is none for seconds": [{"schedule": "0 0 * * * *"}],
    "spec.schedule: '@often' is none of @yearly, @annually, @monthly, @weekly, @daily, "
    "@midnight, @hourly": [{"schedule": "@often"}],
    "spec.schedule: day 'L' is not a cron field": [{"schedule": "0 0 L * *"}],
    "spec.schedule: minute 'H' is not a cron field": [{"schedule": "H * * * *"}],
    "spec.schedule: weekday '5#2' is not a cron field": [{"schedule": "0 0 * * 5#2"}],
    "spec.schedule: names a day that no year has": [{"schedule": "0 0 31 2 *"}],
    "spec.schedule: minute '60' is not a cron field": [{"schedule": "60 * * * *"}],
    "spec.schedule: month '0-2' is not a cron field": [{"schedule": "0 0 * 0-2 *"}],
    "spec.schedule: hour '*/0' is not a cron field": [{"schedule": "0 */0 * * *"}],
    "spec.schedule: weekday '*;' is not a cron field": [{"schedule": "* * * * *;"}],
    "spec.timeZone: the tz database has no zone 'Mars'": [
        {"schedule": "0 * * * *", "timeZone": "Mars"}
    ],
    "spec.timeZone: the tz database has no zone 'Europe'": [
        {"schedule": "0 * * * *", "timeZone": "Europe"}
    ],
    "spec.timeZone: the tz database has no zone '../UTC'": [
        {"schedule": "0 * * * *", "timeZone": "../UTC"}
    ],
    "spec.endAt: is before spec.startAt": [
        {
            "schedule": "0 * * * *",
            "startAt": "2026-01-02T00:00:00Z",
            "endAt": "2026-01-01T00:00:00Z",
        }
    ],
}


@pytest.mark.parametrize(("message", "specs"), REFUSED.items())
def test_what_cannot_be_worked_with_is_refused_by_its_path(
    message: str, specs: list[dict[str, str]]
) -> None:
    for spec in specs:
        with pytest.raises(InvalidSpec) as refused:
            table(**spec)
        assert str(refused.value) == message


@settings(max_examples=settings.default.max_examples // 4)
@given(st.tuples(*(st.from_regex(field, fullmatch=True) for field in FIELDS.values())))
def test_what_the_api_server_takes_is_a_schedule(given: tuple[str, ...]) -> None:
    schedule = " ".join(given)
    assume(len(schedule) <= 200)
    assert re.search(SCHEDULE, schedule)
    try:
        tick = table(schedule=schedule).after(CREATED)
    except InvalidSpec as error:
        assume("names a day that no year has" not in str(error))
        raise
    assert tick is not None


WORDS = st.text("0123456789*/,-?LWH#@ jJanNsunMON=TZ\t", max_size=24)
TIMES = st.sampled_from(
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01T00:00:00Z"]
)


@given(
    schedule=st.one_of(
        WORDS, st.tuples(*[st.text("0123456789*/,-?", max_size=6)] * 5).map(" ".join)
    ),
    zone=st.one_of(st.none(), WORDS, st.sampled_from(["Europe/London", "localtime", "posix"])),
    start=st.one_of(st.none(), TIMES),
    end=st.one_of(st.none(), TIMES),
    moment=st.datetimes(timezones=st.just(UTC)),
)
def test_nothing_that_a_user_types_breaks_it(
    schedule: str, zone: str | None, start: str | None, end: str | None, moment: datetime
) -> None:
    spec = {"schedule": schedule or "?", "timeZone": zone, "startAt": start, "endAt": end}
    try:
        made = table(**{k: v for k, v in spec.items() if v})
    except (InvalidSpec, ValidationError):
        return
    made.after(moment)
    made.until(moment)


def _matches(field: str, value: int, low: int, high: int) -> bool:
    """Whether a value fits a cron field: lists, ranges, steps."""
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            first, last = low, high
        else:
            bounds = [int(b) for b in span.split("-")]
            first, last = bounds[0], bounds[-1]
            if step and len(bounds) == 1:
                last = high
        if first <= value <= last and (value - first) % int(step or 1) == 0:
            return True
    return False


def is_wildcard(field: str) -> bool:
    """As github.com/robfig/cron/v3 has it, which CronJob uses: parser.go, getRange."""
    return any(part in ("*", "?", "*/1", "?/1") for part in field.split(","))


class Reader:
    """Says whether a clock's reading fits an expression."""

    def __init__(self, expression: str) -> None:
        self._fields = expression.split()
        ranges = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
        self._minutes, self._hours, self._days, self._months, self._weekdays = (
            {value for value in range(low, high + 1) if _matches(field, value, low, high)}
            for field, (low, high) in zip(self._fields, ranges, strict=True)
        )

    def fits(self, reading: datetime) -> bool:
        if reading.minute not in self._minutes or reading.hour not in self._hours:
            return False
        return self.fits_date(reading)

    def fits_date(self, day: datetime) -> bool:
        if day.month not in self._months:
            return False
        by_day = day.day in self._days
        by_weekday = day.isoweekday() % 7 in self._weekdays
        if is_wildcard(self._fields[2]) or is_wildcard(self._fields[4]):
            return by_day and by_weekday
        return by_day or by_weekday


@lru_cache(maxsize=512)
def readings(zone: str, day: int, step: int = 1) -> list[datetime]:
    """What a clock on the wall shows in each minute of a day of the year, or every few minutes."""
    tz, midnight = ZoneInfo(zone), YEAR + day * DAY
    times = (midnight + minute * MINUTE for minute in range(0, 1440, step))
    return [time.astimezone(tz).replace(tzinfo=None) for time in times]


@lru_cache
def changes(zone: str) -> list[int]:
    """The days of the year around those on which the zone's clocks change."""
    offsets = [(YEAR + day * DAY).astimezone(ZoneInfo(zone)).utcoffset() for day in range(366)]
    return [day for day in range(365) if offsets[day] != offsets[day + 1]]


def oracle(expression: str, zone: str, first: int, step: int = 1) -> Iterator[datetime]:
    """Watch a clock on the wall, minute by minute, and remember what it has shown.

    Args:
        expression: Five cron fields.
        zone: Whose clocks.
        first: A day of the year.
        step: How many minutes pass from one look to the next; all ticks and all changes of the
            clock are multiples of that.
    """
    by_hour = is_wildcard(expression.split()[1])
    reader = Reader(expression)
    latest = readings(zone, first - 2, step)[-1]
    for day in range(first - 1, 366):
        midnight = YEAR + day * DAY
        if not any(reader.fits_date(midnight + n * DAY) for n in (-1, 0, 1)):
            latest = max(
                latest,
                (midnight + DAY - step * MINUTE).astimezone(ZoneInfo(zone)).replace(tzinfo=None),
            )
            continue
        for place, shown in enumerate(readings(zone, day, step)):
            # For a named hour, all readings that the clock has now reached for the first time.
            new = 1 if by_hour else (shown - latest) // (step * MINUTE)
            if any(reader.fits(shown - ago * step * MINUTE) for ago in range(new)) and day >= first:
                yield midnight + place * step * MINUTE
            latest = max(latest, shown)


def fields(low: int, high: int, *, sparse: bool = False) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    ranges = st.tuples(number, number).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
    steps = st.integers(2, max(2, (high - low) // 2)).map(lambda step: f"*/{step}")
    lists = st.lists(number, min_size=1, max_size=3, unique=True).map(
        lambda values: ",".join(map(str, values))
    )
    stepped = st.tuples(ranges, st.integers(1, 5)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    options = [number.map(str), lists, ranges, steps, stepped]
    return st.one_of(*([] if sparse else [st.just("*")]), *options)


DAYS = st.sampled_from(["*", "*", "*", "1", "15,31", "1-7", "8-14/3", "29"])
MONTHS = st.sampled_from(["*", "*", "*", "3", "10,11", "2-4"])
WEEKDAYS = st.sampled_from(["*", "*", "*", "0", "1-5", "6,0"])
ZONES = [
    "America/New_York",
    "Europe/London",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Asia/Beirut",  # whose clocks change at midnight
    "Asia/Kolkata",
    "UTC",
]


@settings(max_examples=settings.default.max_examples // 2)
@pytest.mark.parametrize("zone", ZONES)
@given(
    expression=st.tuples(fields(0, 59, sparse=True), fields(0, 23), DAYS, MONTHS, WEEKDAYS).map(
        " ".join
    ),
    first=st.integers(0, 364),
    at_a_change=st.booleans(),
)
def test_the_ticks_of_some_days_are_those_of_a_clock_on_the_wall(
    zone: str, expression: str, first: int, at_a_change: bool
) -> None:
    if at_a_change and (known := changes(zone)):
        first = known[first % len(known)] - 1
    start, end = YEAR + first * DAY, YEAR + (first + 4) * DAY
    made = table(schedule=expression, timeZone=zone)
    expected = []
    for tick in oracle(expression, zone, first):
        expected.append(tick)
        if tick >= end:
            break
    found = []
    moment = made.after(start - MINUTE / 2)
    while moment is not None and moment < YEAR + 366 * DAY:
        found.append(moment)
        if moment >= end:
            break
        moment = made.after(moment)
    assert found == expected
    for tick in expected:
        assert made.until(tick + MINUTE / 2) == tick


YEAR_LONG = [
    "0,30 * * * *",
    "15,45 0-4 * * *",
    "30 */2 1-31 * 1",
    "0 0-23 * 3,4,10,11 */1",
]


@pytest.mark.parametrize("zone", ZONES)
def test_the_ticks_of_a_year_are_those_of_a_clock_on_the_wall(zone: str) -> None:
    end = YEAR + 366 * DAY
    for expression in YEAR_LONG:
        made = table(schedule=expression, timeZone=zone)
        expected = list(oracle(expression, zone, 1, step=15))
        ahead, back = [], []
        moment = made.after(YEAR + DAY - MINUTE)
        while moment is not None and moment < end:
            ahead.append(moment)
            moment = made.after(moment)
        assert ahead == expected
        moment = made.until(end - MINUTE)
        while moment is not None and moment >= YEAR + DAY:
            back.append(moment)
            moment = made.until(moment - MINUTE)
        assert back[::-1] == expected
