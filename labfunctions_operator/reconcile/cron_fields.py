"""The five fields of a cron schedule: checked, and written so that croniter reads them right.

A wildcard is what CronJob's library takes for one: a star, also with a step of one or in a list,
but not a range of all values. Where neither day nor weekday is one, either of them suffices.
"""

import re
from datetime import date, datetime, timedelta
from functools import lru_cache

from croniter import croniter

from labfunctions_operator.errors import InvalidSpec

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# What croniter takes beyond cron is refused: @, L, #, W, H and R mean other things elsewhere.
_FIELD = r"[0-9*?,/-]+"
_NAMES = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|sun|mon|tue|wed|thu|fri|sat"
_FIELDS = [re.compile(_FIELD)] * 3 + [re.compile(rf"(?:[0-9*?,/-]|{_NAMES})+", re.IGNORECASE)] * 2
_STAR = re.compile(r"\*(/0*1)?")
_EMPTY_RANGE = re.compile(r"^(\w+)-\1(/\d+)?$", re.IGNORECASE)
_SPANS = ("0-59", "0-23", "1-31", "1-12", "0-6")
_FIELD_NAMES = ("minute", "hour", "day", "month", "weekday")
_DAY = timedelta(days=1)


@lru_cache(maxsize=4096)
def normal_fields(schedule: str) -> str:
    """Return five checked fields."""
    path, text = "spec.schedule", " ".join(schedule.split())
    if "TZ=" in text:
        raise InvalidSpec(path, "takes no TZ= or CRON_TZ=; name the zone in spec.timeZone")
    if text.startswith("@"):
        if text not in _ALIASES:
            raise InvalidSpec(path, f"{text[:40]!r} is none of {', '.join(_ALIASES)}")
        return _ALIASES[text]
    fields = text.split(" ")
    if len(fields) != len(_FIELDS):
        raise InvalidSpec(
            path,
            f"has {len(fields)} fields and needs five: minute hour day month weekday; "
            "there is none for seconds",
        )
    for name, pattern, field in zip(_FIELD_NAMES, _FIELDS, fields, strict=True):
        if not pattern.fullmatch(field):
            raise InvalidSpec(path, f"{name} {field[:40]!r} is not a cron field")
    # The two are one, though croniter knows that of days alone.
    expression = " ".join(_without_empty_ranges(field.replace("?", "*")) for field in fields)
    _check_values(expression)
    parts = zip(expression.split(" "), _SPANS, strict=True)
    expression = " ".join(_with_star(field, span) for field, span in parts)
    if matching_day(expression, date(2000, 1, 1), True) is None:
        raise InvalidSpec("spec.schedule", "names a day that no year has")
    return expression


def _without_empty_ranges(field: str) -> str:
    """Write 5-5 as 5: croniter takes it for a whole round."""
    return ",".join(_EMPTY_RANGE.sub(r"\1", part) for part in field.split(","))


def _with_star(field: str, span: str) -> str:
    """Write a wildcard as a star, and nothing else with one: croniter looks for stars itself."""
    if any(_STAR.fullmatch(part) for part in field.split(",")):
        return "*"
    return field.replace("*", span)


def _check_values(expression: str) -> None:
    try:
        croniter.expand(expression)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InvalidSpec("spec.schedule", _one_line(error)) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or "is not a cron expression"


@lru_cache(maxsize=4096)
def matching_day(expression: str, day: date, forward: bool) -> date | None:
    """Return the first date from a day on, or the last one up to it, that the fields allow."""
    _, _, dates = expression.split(" ", 2)
    noon = datetime(day.year, day.month, day.day, 12)
    moments = croniter(f"0 0 {dates}", noon - _DAY if forward else noon)
    try:
        found: datetime = moments.get_next(datetime) if forward else moments.get_prev(datetime)
    except (ValueError, OverflowError):
        return None
    return found.date()
