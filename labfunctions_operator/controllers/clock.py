"""The time, as the reconcilers are given it."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the time now."""
    return datetime.now(UTC)
