"""What a Workflow's schedule needs next: Runs for its ticks, and a record of what came of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from labfunctions_operator.api.conditions import find_condition, set_condition
from labfunctions_operator.api.schedule import MAX_ACTIVE, LastRun, ScheduleRecord, ScheduleSpec
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.api.types import Condition, LocalRef
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.desired.names import digest
from labfunctions_operator.desired.scheduled_run import build_scheduled_run, scheduled_run_name
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.ledger import SUCCEEDED, Ledger, take_stock
from labfunctions_operator.reconcile.missed import Skipped
from labfunctions_operator.reconcile.plan import Manifest, Problem, Ref
from labfunctions_operator.reconcile.schedule import LOOK_BACK, ON_TIME, Due, due
from labfunctions_operator.reconcile.scheduled_run import ScheduledRun
from labfunctions_operator.reconcile.timetable import timetable

SCHEDULED = "Scheduled"
LAST_RUN_SUCCEEDED = "LastRunSucceeded"
MISSED, ALREADY_ACTIVE, TOO_MANY = "MissedSchedule", "RunAlreadyActive", "TooManyActive"
LATE = "Late"
# A clock that was set back by less makes the schedule wait; by more, it was wrong before.
CLOCK_TOLERANCE = timedelta(hours=1)
_TIMES = (
    "schedule",
    "time_zone",
    "interval",
    "start_at",
    "end_at",
    "repeat",
    "suspend",
)


@dataclass(frozen=True, kw_only=True)
class Scheduling:
    """What to do for a schedule, and what the Workflow's status says of it."""

    create: tuple[Manifest, ...] = ()
    cancel: tuple[Ref, ...] = ()
    fields: dict[str, Any]
    conditions: list[Condition]
    skipped: Skipped | None = None
    problem: Problem | None = None
    requeue_after: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Ticks:
    """What is done about the ticks of this moment.

    Attributes:
        last: The last tick that has come, if it has a Run.
        why: Why there are none to come, or the last one got no Run: reason and message.
        is_over: Whether there are none to come.
    """

    run: tuple[datetime, ...] = ()
    missed: int = 0
    settled: datetime | None = None
    last: datetime | None = None
    next: datetime | None = None
    wake: datetime | None = None
    why: Problem | None = None
    is_over: bool = False
    skipped: Skipped | None = None


def reconcile_schedule(
    workflow: Workflow,
    runs: Iterable[ScheduledRun],
    now: datetime,
    *,
    handed_over: datetime | None = None,
) -> Scheduling | None:
    """Decide about a Workflow's ticks; None if it has, and had, no schedule.

    Args:
        workflow: As stored.
        runs: All that its schedule made, and that exist.
        now: The time.
        handed_over: Ticks later than this are a CronJob's, and only kept account of.
    """
    spec, status = workflow.spec, workflow.status
    if not spec.is_scheduled and status.schedule is None:
        return None
    mine = [run for run in runs if run.owner == workflow.metadata.uid]
    known = parse_time(status.schedule.since) if status.schedule else None
    ledger = take_stock(status, mine, known, now)
    record = _record(workflow, known, ledger, now)
    ticks = _ticks(workflow, record, ledger, now, handed_over)
    if status.schedule is None and (ticks.run or ticks.missed):
        ticks = _put_off(ticks, now)
    live = sorted(
        [
            *((run.tick, run.name) for run in ledger.live),
            *((tick, scheduled_run_name(workflow.metadata.name, tick)) for tick in ticks.run),
        ]
    )
    # What a clock that was far ahead has made is left out: it would stop the schedule.
    settled = [t for t in (ticks.settled, *ledger.ticks) if t and t <= now + CLOCK_TOLERANCE]
    since = max([parse_time(record.since), *settled])
    made = [*(t for t in ledger.ticks if t <= now), *ticks.run]
    return Scheduling(
        create=tuple(build_scheduled_run(workflow, tick) for tick in ticks.run),
        cancel=_replaced(workflow, ledger, [tick for tick, _ in live]),
        fields={
            "schedule": record.but(since=rfc3339(since), runs=record.runs + len(ticks.run)),
            "last_schedule_time": _latest(status.last_schedule_time, made, now),
            "next_schedule_time": ticks.next and rfc3339(ticks.next),
            "last_successful_time": ledger.last_successful_time,
            "active": [LocalRef(name=name) for _, name in live],
            "succeeded": ledger.succeeded,
            "failed": ledger.failed,
            "missed": (status.missed or 0) + ticks.missed,
            "last_run": _last_run(workflow, ledger),
        },
        conditions=_conditions(workflow, ledger, ticks, now),
        skipped=ticks.skipped,
        problem=ticks.why if ticks.why and ticks.why.reason == "InvalidSpec" else None,
        requeue_after=max(0.0, (ticks.wake - now).total_seconds()) if ticks.wake else None,
    )


def _record(
    workflow: Workflow, known: datetime | None, ledger: Ledger, now: datetime
) -> ScheduleRecord:
    """Say since when the schedule as it is now counts."""
    old = workflow.status.schedule
    words = digest(*(getattr(workflow.spec, name) for name in _TIMES))[:16]
    if old is None or known is None:
        created = workflow.metadata.creation_timestamp
        # Whoever lost the status may have lost Runs, too: what exists tells how far it came.
        times = [*ledger.ticks, *([parse_time(created)] if created else [now])]
        return ScheduleRecord(hash=words, since=rfc3339(max(times)), runs=ledger.made)
    runs = old.runs + ledger.made
    if known > now + CLOCK_TOLERANCE:
        known = now
    since = known if old.hash == words else max(known, now)
    return ScheduleRecord(hash=words, since=rfc3339(since), runs=runs)


def _ticks(
    workflow: Workflow,
    record: ScheduleRecord,
    ledger: Ledger,
    now: datetime,
    handed_over: datetime | None,
) -> _Ticks:
    spec, meta = workflow.spec, workflow.metadata
    if stopped := _stopped(spec, record.runs):
        return _Ticks(why=stopped, is_over=True)
    try:
        table = timetable(spec, parse_time(meta.creation_timestamp or rfc3339(now)))
    except InvalidSpec as error:
        return _Ticks(why=Problem(reason="InvalidSpec", message=str(error)), is_over=True)
    identity = f"{meta.namespace}/{meta.name}"
    since = parse_time(record.since)
    if handed_over is None or handed_over > now:
        found = due(spec, table, identity, since, now, ledger.ticks)
        return _admit(workflow, record, ledger, found)
    # Those before the CronJob's last one that have no Run are not made up for.
    until = max(handed_over, *(tick for tick in ledger.ticks if tick <= now), min(since, now))
    found = due(spec, table, identity, since, until, ledger.ticks)
    return _awaited(workflow, ledger, _admit(workflow, record, ledger, found), now)


def _put_off(ticks: _Ticks, now: datetime) -> _Ticks:
    """Leave ticks for the next look.

    Until a status says since when the schedule counts, a Run is the only sign of that: whoever
    made one and died would have the ticks before it forgotten.
    """
    return _Ticks(next=ticks.next, wake=now)


def _stopped(spec: ScheduleSpec, runs: int) -> Problem | None:
    if not spec.is_scheduled:
        return Problem(reason="NoSchedule", message="it has neither schedule nor interval any more")
    if spec.suspend:
        return Problem(reason="Suspended", message="suspended by spec.suspend")
    if spec.repeat is not None and runs >= spec.repeat:
        return Problem(reason="Ended", message=f"it made {runs} Runs, as spec.repeat says")
    return None


def _awaited(workflow: Workflow, ledger: Ledger, ticks: _Ticks, now: datetime) -> _Ticks:
    """Say so when the CronJob has made no Job for its next tick in time."""
    if ticks.next is None:
        return ticks
    late = ticks.next + ON_TIME
    if now < late:
        return replace(ticks, wake=late)
    if ticks.why or (workflow.spec.concurrency_policy == "Forbid" and ledger.live):
        return replace(ticks, wake=None)
    message = f"CronJob {workflow.metadata.name} has made no Job for {rfc3339(ticks.next)} yet"
    return replace(ticks, wake=None, why=Problem(reason=LATE, message=message))


def _admit(workflow: Workflow, record: ScheduleRecord, ledger: Ledger, found: Due) -> _Ticks:
    """Let as many ticks start as the policy and the bounds allow."""
    spec = workflow.spec
    room = MAX_ACTIVE - len(ledger.live)
    reason, message = (
        TOO_MANY,
        f"{len(ledger.live)} Runs of the schedule are live, which is the limit",
    )
    if spec.concurrency_policy == "Forbid" and ledger.live:
        room = 0
        reason = ALREADY_ACTIVE
        message = f"Run {ledger.live[-1].name} is live and spec.concurrencyPolicy is Forbid"
    run = found.run[: max(0, room)]
    refused = found.run[len(run) :]
    if spec.repeat is not None:
        run = run[: spec.repeat - record.runs]
    missed = [*found.missed, *refused]
    result = _Ticks(
        run=run,
        missed=len(missed),
        settled=found.settled,
        last=found.settled if found.settled in {*run, *ledger.ticks} else None,
        next=found.next,
        wake=found.wake,
    )
    if spec.repeat is not None and record.runs + len(run) >= spec.repeat:
        result = replace(result, next=None, wake=None)
    if refused:
        text = f"the tick of {rfc3339(refused[-1])} got no Run: {message}"
    elif missed:
        count = f"more than {LOOK_BACK}" if found.more else str(len(missed))
        reason, message = MISSED, "the scheduler was away or late"
        text = f"{count} ticks up to {rfc3339(missed[-1])} got no Run: {message}"
    else:
        return result
    why = Problem(reason=reason, message=text) if refused or not result.last else None
    skipped = Skipped(
        reason=reason,
        message=text,
        cause=message,
        due=(refused or missed)[-1],
        count=len(missed),
    )
    return replace(result, why=why, skipped=_news(workflow, why, skipped))


def _news(workflow: Workflow, why: Problem | None, skipped: Skipped) -> Skipped | None:
    """Tell of the first tick of several in turn that get no Run for the same reason."""
    old = find_condition(workflow.status.conditions, SCHEDULED)
    return None if why and old and old.reason == why.reason else skipped


def _replaced(workflow: Workflow, ledger: Ledger, ticks: Sequence[datetime]) -> tuple[Ref, ...]:
    """Return the live Runs that a later one replaces and that are not asked to stop yet."""
    if workflow.spec.concurrency_policy != "Replace":
        return ()
    return tuple(run.ref for run in ledger.live if run.tick < ticks[-1] and not run.is_cancelled)


def _latest(recorded: str | None, made: Iterable[datetime], now: datetime) -> str | None:
    times = list(made)
    if recorded and (not times or parse_time(recorded) <= now):
        times.append(parse_time(recorded))
    return rfc3339(max(times)) if times else None


def _last_run(workflow: Workflow, ledger: Ledger) -> LastRun | None:
    if ledger.latest is None:
        return workflow.status.last_run
    return LastRun(name=ledger.latest.name, phase=ledger.latest.phase or "")


def _conditions(
    workflow: Workflow, ledger: Ledger, ticks: _Ticks, now: datetime
) -> list[Condition]:
    generation = workflow.metadata.generation
    scheduled = _scheduled(workflow, ticks, now)
    conditions = set_condition(
        workflow.status.conditions,
        type=SCHEDULED,
        status=scheduled.reason in (SCHEDULED, LATE),
        reason=scheduled.reason,
        message=scheduled.message,
        generation=generation,
        now=now,
    )
    succeeded, last = _outcome(workflow, ledger)
    return set_condition(
        conditions,
        type=LAST_RUN_SUCCEEDED,
        status=succeeded,
        reason=last.reason,
        message=last.message,
        generation=generation,
        now=now,
    )


def _scheduled(workflow: Workflow, ticks: _Ticks, now: datetime) -> Problem:
    """Say whether the schedule is at work, and if not, or late, why."""
    if ticks.is_over and ticks.why:
        return ticks.why
    if ticks.next is None:
        end = workflow.spec.end_at
        message = f"no tick is left until spec.endAt, {end}" if end else "no tick is left"
        return Problem(reason="Ended", message=message)
    following = f"next at {rfc3339(ticks.next)}"
    if ticks.why:
        return Problem(reason=ticks.why.reason, message=f"{ticks.why.message}; {following}")
    if ticks.last:
        late = now - ticks.last - timedelta(seconds=workflow.spec.jitter_seconds)
        if late <= ON_TIME:
            return Problem(reason=SCHEDULED, message=following)
        message = f"the tick of {rfc3339(ticks.last)} started late; {following}"
        return Problem(reason=LATE, message=message)
    # Nothing was due: what was said about the tick before holds until the next one.
    old = find_condition(workflow.status.conditions, SCHEDULED)
    if (
        old
        and old.message.endswith(following)
        and old.reason in (MISSED, ALREADY_ACTIVE, TOO_MANY, LATE)
    ):
        return Problem(reason=old.reason, message=old.message)
    return Problem(reason=SCHEDULED, message=following)


def _outcome(workflow: Workflow, ledger: Ledger) -> tuple[bool | None, Problem]:
    old = find_condition(workflow.status.conditions, LAST_RUN_SUCCEEDED)
    if ledger.latest is None:
        if old and old.status != "Unknown":
            return old.status == "True", Problem(reason=old.reason, message=old.message)
        return None, Problem(reason="NeverRan", message="no Run of the schedule has ended yet")
    run = ledger.latest
    message = f"Run {run.name}: {run.message}"
    if run.phase != SUCCEEDED and ledger.last_successful_time is None:
        message = f"{message}; no Run of the schedule has ever succeeded"
    return run.phase == SUCCEEDED, Problem(reason=run.reason, message=message)
