"""The five fields of a cron schedule: checked, and written so that croniter reads them right.

A wildcard is what CronJob's library takes for one: a star, also with a step of one or in a list,
but not a range of all values. Where neither day nor weekday is one, either of them suffices.
"""

import re
from datetime import date, datetime, timedelta
from functools import lru_cache

from croniter import croniter

from labfunctions_operator.api.cron import ALIASES, FIELDS, SPACE
from labfunctions_operator.errors import InvalidSpec

_STAR = re.compile(r"\*(/0*1)?")
_EMPTY_RANGE = re.compile(r"^(\w+)-\1(/\d+)?$", re.IGNORECASE)
_SPANS = ("0-59", "0-23", "1-31", "1-12", "0-6")
_PATTERNS = {name: re.compile(pattern) for name, pattern in FIELDS.items()}
_DAY = timedelta(days=1)


@lru_cache(maxsize=4096)
def normal_fields(schedule: str, path: str = "spec.schedule") -> str:
    """Return five checked fields.

    Args:
        schedule: As it was typed.
        path: Of the field that has it.

    Raises:
        InvalidSpec: Of that path.
    """
    text = re.sub(f"{SPACE}+", " ", schedule).strip(" ")
    if "TZ=" in text:
        raise InvalidSpec(path, "takes no TZ= or CRON_TZ=; name the zone in timeZone")
    if text.startswith("@"):
        if text not in ALIASES:
            raise InvalidSpec(path, f"{text[:40]!r} is none of {', '.join(ALIASES)}")
        return ALIASES[text]
    fields = text.split(" ")
    if len(fields) != len(FIELDS):
        raise InvalidSpec(
            path,
            f"has {len(fields)} fields and needs five: minute hour day month weekday; "
            "there is none for seconds",
        )
    for field, (name, pattern) in zip(fields, _PATTERNS.items(), strict=True):
        if not pattern.fullmatch(field):
            raise InvalidSpec(path, f"{name} {field[:40]!r} is not a cron field")
    # The two are one, though croniter knows that of days alone.
    expression = " ".join(_without_empty_ranges(field.replace("?", "*")) for field in fields)
    parts = zip(expression.split(" "), _SPANS, strict=True)
    expression = " ".join(_with_star(field, span) for field, span in parts)
    if matching_day(expression, date(2000, 1, 1), True) is None:
        raise InvalidSpec(path, "names a day that no year has")
    return expression


def _without_empty_ranges(field: str) -> str:
    """Write 5-5 as 5: croniter takes it for a whole round."""
    return ",".join(_EMPTY_RANGE.sub(r"\1", part) for part in field.split(","))


def _with_star(field: str, span: str) -> str:
    """Write a wildcard as a star, and nothing else with one: croniter looks for stars itself."""
    if any(_STAR.fullmatch(part) for part in field.split(",")):
        return "*"
    return field.replace("*", span)


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
