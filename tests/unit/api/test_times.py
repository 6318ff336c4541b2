from datetime import UTC, datetime, timedelta, timezone

import pytest

from labfunctions_operator.api.times import parse_duration, parse_time, rfc3339


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1m", 60), ("1h30m", 5400), ("2h3m4s", 7384), ("0h1s", 1), ("007s", 7)],
)
def test_durations_are_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "1", "1d", "1m1h", "-1s", "1.5h", "1s ", " 1s", "1s\n", "0s", "9" * 30 + "h"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_times_are_written_in_utc_and_whole_seconds() -> None:
    east = timezone(timedelta(hours=2))
    assert rfc3339(datetime(2026, 1, 1, 1, 30, 5, 999999, east)) == "2025-12-31T23:30:05Z"


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T12:00:00Z",
        "2026-01-01T12:00:00.000000Z",
        "2026-01-01T14:00:00+02:00",
        "2026-01-01T12:00:00",
    ],
)
def test_times_are_read(text: str) -> None:
    assert parse_time(text) == datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="Invalid isoformat"):
        parse_time("noon")
