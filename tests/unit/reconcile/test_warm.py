"""When nodes are kept warm: by the very ticks that a Workflow of that schedule would have."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfunctions_operator.api.cron import ALIASES
from labfunctions_operator.api.nodegroup import Warm
from labfunctions_operator.api.schedule import ScheduleSpec
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.timetable import timetable
from labfunctions_operator.reconcile.warm import Floor, floor_at

HOUR = timedelta(hours=1)


def window(schedule: str, zone: str = "") -> Warm:
    return Warm.model_validate({"schedule": schedule, "timeZone": zone, "duration": "1h", "min": 2})


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "zone", "now", "until"),
    [
        # 1 January 2026 was a Thursday.
        pytest.param("0 12 */1 * 5", "", "2026-01-01 12:30", None, id="a weekday, not any day"),
        pytest.param("0 12 */1 * 4", "", "2026-01-01 12:30", "2026-01-01 13:00", id="that weekday"),
        pytest.param("0 12 1-31 * 5", "", "2026-01-01 12:30", "2026-01-01 13:00", id="any of both"),
        pytest.param(
            "0 *,5 * * *", "", "2026-01-01 12:30", "2026-01-01 13:00", id="a star in a list"
        ),
        pytest.param("@daily", "", "2026-01-01 00:30", "2026-01-01 01:00", id="an alias"),
        pytest.param(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-29 01:00",
            "2026-03-29 02:00",
            id="a time that clocks skip is the first after the gap",
        ),
        pytest.param(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-25 00:45",
            "2026-10-25 01:30",
            id="a time that comes twice is its first",
        ),
        pytest.param(
            "30 2 * * *", "Europe/Berlin", "2026-10-25 01:45", None, id="and not its second"
        ),
    ],
)
def test_a_window_begins_as_a_cron_job_would(
    schedule: str, zone: str, now: str, until: str | None
) -> None:
    floor = floor_at(0, [window(schedule, zone)], utc(now))
    assert (floor.min, floor.until) == ((2, utc(until)) if until else (0, None))


SCHEDULES = st.one_of(
    st.sampled_from([*ALIASES, "0 0 31 2 *", "60 * * * *"]),
    st.tuples(
        st.sampled_from(["*", "*/1", "0", "*/40", "5-5", "30,59"]),
        st.sampled_from(["*", "*/1", "*,5", "0-23", "1,2", "2"]),
        st.sampled_from(["*", "?", "*/1", "*/2", "1-31", "29", "31"]),
        st.sampled_from(["*", "*/5", "mar-apr", "10", "2"]),
        st.sampled_from(["*", "*/1", "0-6", "7", "sun", "1-5"]),
    ).map(" ".join),
)


@given(
    schedule=SCHEDULES,
    zone=st.sampled_from(["", "Europe/London", "Australia/Lord_Howe", "America/New_York"]),
    now=st.datetimes(utc("2026-01-01 00:00").replace(tzinfo=None), datetime(2027, 1, 1)),
)
def test_windows_begin_at_the_ticks_of_a_workflow(schedule: str, zone: str, now: datetime) -> None:
    moment = now.replace(tzinfo=UTC)
    spec = ScheduleSpec.model_validate({"schedule": schedule, "timeZone": zone or None})
    try:
        ticks = timetable(spec, moment)
    except InvalidSpec:
        with pytest.raises(InvalidSpec):
            floor_at(0, [window(schedule, zone)], moment)
        return
    begun, follows = ticks.until(moment), ticks.after(moment)
    floor = floor_at(0, [window(schedule, zone)], moment)
    if begun and begun + HOUR > moment:
        assert (floor.min, floor.until) == (2, begun + HOUR)
        assert floor.changes_at == min(begun + HOUR, follows or begun + HOUR)
    else:
        assert floor == Floor(min=0, changes_at=follows)


@pytest.mark.parametrize(
    ("schedule", "zone", "message"),
    [
        ("0 0 31 2 *", "", "spec.warm[1].schedule: names a day that no year has"),
        ("0 25 * * *", "", "spec.warm[1].schedule: hour '25' is not a cron field"),
        ("0 9 * * 1#2", "", "spec.warm[1].schedule: weekday '1#2' is not a cron field"),
        (
            "0 0 9 * * 1",
            "",
            "spec.warm[1].schedule: has 6 fields and needs five: minute hour day month weekday; "
            "there is none for seconds",
        ),
        ("0 9 * * *", "Berlin", "spec.warm[1].timeZone: the tz database has no zone 'Berlin'"),
    ],
)
def test_what_cannot_be_worked_with_is_refused_by_its_path(
    schedule: str, zone: str, message: str
) -> None:
    windows = [window("0 9 * * *"), window(schedule, zone)]
    with pytest.raises(InvalidSpec) as refused:
        floor_at(0, windows, utc("2026-01-01 12:00"))
    assert str(refused.value) == message
