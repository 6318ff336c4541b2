"""When a Workflow runs by itself, and what came of it: a part of the Workflow's spec and status."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from labfunctions_operator.api.times import DURATION_PATTERN, parse_duration, parse_time, rfc3339
from labfunctions_operator.api.types import LocalRef, Model, ObjectName

# Of one Workflow's schedule; bounds its queue, and what its status has to remember.
MAX_ACTIVE = 100
SHORTEST_INTERVAL = timedelta(minutes=1)


def _reachable(text: str) -> str:
    try:
        rfc3339(parse_time(text))
    except OverflowError:
        raise ValueError(f"{text!r} is not a time that can be reached") from None
    return text


Timestamp = Annotated[
    str,
    Field(max_length=40, json_schema_extra={"format": "date-time"}),
    AfterValidator(_reachable),
]


class CatchUp(Model):
    """What to do about ticks that nobody was there to run."""

    policy: Literal["None", "Latest", "All"] = "Latest"
    """None of them, the latest one, or all of them up to max (default Latest)."""
    max: Annotated[int, Field(ge=1, le=MAX_ACTIVE)] = 10
    """For All, how many of the latest ones (default 10)."""


class ScheduleSpec(Model):
    """When to run, in the words of CronJob where it has them."""

    schedule: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Five cron fields (minute hour day month weekday), or one of @hourly to @yearly."""
    time_zone: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """The zone of schedule, by its name in the tz database (default UTC)."""
    interval: Annotated[str, Field(pattern=DURATION_PATTERN, max_length=16)] | None = None
    """Run each time this has passed since startAt or else the creation, instead of schedule."""
    start_at: Timestamp | None = None
    """The first time that a tick may have."""
    end_at: Timestamp | None = None
    """The last time that a tick may have."""
    repeat: Annotated[int, Field(ge=1, le=1000000)] | None = None
    """How many Runs the schedule makes in all (default: no limit)."""
    suspend: bool = False
    """Make no Runs; ticks in this time are not made up for. Live Runs go on."""
    jitter_seconds: Annotated[int, Field(ge=0, le=86400)] = 0
    """Spread the starts: each tick waits up to this long, always less than until the next tick."""
    concurrency_policy: Literal["Allow", "Forbid", "Replace", "Queue"] = "Allow"
    """What a tick does while an earlier Run of the schedule is live (default Allow)."""
    starting_deadline_seconds: Annotated[int, Field(ge=0, le=315360000)] | None = None
    """How late a tick may still start (default: no limit); with 0 none does."""
    catch_up: CatchUp = CatchUp()
    successful_runs_history_limit: Annotated[int, Field(ge=0, le=10000)] = 3
    """How many of the schedule's Runs that succeeded are kept (default 3)."""
    failed_runs_history_limit: Annotated[int, Field(ge=0, le=10000)] = 1
    """How many of the schedule's other Runs are kept (default 1)."""
    scheduler: Literal["Operator", "CronJob"] = "Operator"
    """Who watches the clock (default Operator)."""

    @field_validator("interval")
    @classmethod
    def _interval(cls, duration: str | None) -> str | None:
        if duration is not None and parse_duration(duration) < SHORTEST_INTERVAL:
            raise ValueError("an interval is at least 1m")
        return duration

    @model_validator(mode="after")
    def _one_of_two(self) -> "ScheduleSpec":
        if self.schedule and self.interval:
            raise ValueError("schedule and interval exclude each other")
        return self

    @model_validator(mode="after")
    def _as_cron_job(self) -> "ScheduleSpec":
        beyond = {
            "concurrencyPolicy: Queue": self.concurrency_policy == "Queue",
            "catchUp.policy": self.catch_up.policy != "Latest",
            "jitterSeconds": self.jitter_seconds > 0,
            **{name: value is not None for name, value in self._ours().items()},
        }
        found = [name for name, is_set in beyond.items() if is_set]
        if self.scheduler == "CronJob" and found:
            raise ValueError(f"{found[0]}: a CronJob has no such thing; use scheduler Operator")
        return self

    def _ours(self) -> dict[str, object]:
        return {
            "interval": self.interval,
            "startAt": self.start_at,
            "endAt": self.end_at,
            "repeat": self.repeat,
        }

    @property
    def is_scheduled(self) -> bool:
        """Whether it runs by itself at all."""
        return bool(self.schedule or self.interval)


class ScheduleRecord(Model):
    """What the operator must not forget of a schedule."""

    hash: str
    """Of the fields that say when; another one means that they were edited."""
    since: Timestamp
    """Ticks up to this time are settled: they were run, missed, or are not this schedule's."""
    runs: int = 0
    """Runs made so far."""


class LastRun(Model):
    """The schedule's Run of the latest tick that has ended."""

    name: ObjectName
    phase: str


class ScheduleStatus(Model):
    """What came of the schedule; it is about the Runs that the schedule made, no others."""

    schedule: ScheduleRecord | None = None
    last_schedule_time: Timestamp | None = None
    """The latest tick that has a Run."""
    next_schedule_time: Timestamp | None = None
    """When the next tick is to start: jitterSeconds included."""
    last_successful_time: Timestamp | None = None
    """When a Run last succeeded."""
    last_failed_time: Timestamp | None = None
    """When a Run last failed; one that was cancelled has not."""
    active: list[LocalRef] | None = None
    """Runs that have not ended; there are never more than a hundred."""
    succeeded: int | None = None
    """Runs that succeeded, those deleted since included."""
    failed: int | None = None
    """Runs that failed, those deleted since included."""
    missed: int | None = None
    """Ticks that got no Run."""
    last_run: LastRun | None = None

    @property
    def settled_until(self) -> str | None:
        """Up to when each tick's Run is in the counts, or in `active`."""
        return self.schedule.since if self.schedule else None
