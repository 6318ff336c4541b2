"""Times and durations as the API writes them."""

import re
from datetime import UTC, datetime, timedelta

DURATION_PATTERN = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"
# Longer than anybody waits, and short enough to be added to any time.
LONGEST = timedelta(days=36500)
_DURATION = re.compile(r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?")


def rfc3339(moment: datetime) -> str:
    """Write a time as Kubernetes does: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time.

    Raises:
        ValueError: It is not one.
    """
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_duration(text: str) -> timedelta:
    """Read a duration such as `90s`, `1m` or `1h30m`.

    Raises:
        ValueError: It is not one, it is zero, or longer than a hundred years.
    """
    match = _DURATION.fullmatch(text)
    if not match or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration such as 90s, 1m or 1h30m")
    hours, minutes, seconds = (int(g or 0) for g in match.groups())
    if hours * 3600 + minutes * 60 + seconds > LONGEST.total_seconds():
        raise ValueError(f"{text!r} is too long a duration")
    duration = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if not duration:
        raise ValueError("a duration must be longer than zero")
    return duration
