"""What a Workflow's schedule needs next: Runs for its ticks, and a record of what came of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from labfunctions_operator.api.schedule import LastRun, ScheduleRecord
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.api.types import Condition, LocalRef
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.desired.scheduled_run import build_scheduled_run, scheduled_run_name
from labfunctions_operator.reconcile.edit import is_edited, schedule_hash
from labfunctions_operator.reconcile.ledger import Ledger, take_stock
from labfunctions_operator.reconcile.missed import Skipped
from labfunctions_operator.reconcile.plan import Manifest, Problem, Ref
from labfunctions_operator.reconcile.schedule_conditions import schedule_conditions
from labfunctions_operator.reconcile.scheduled_run import ScheduledRun
from labfunctions_operator.reconcile.ticks import decide_ticks, put_off

# A clock that was set back by less makes the schedule wait; by more, it was wrong before.
CLOCK_TOLERANCE = timedelta(hours=1)


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


def reconcile_schedule(
    workflow: Workflow,
    runs: Iterable[ScheduledRun],
    now: datetime,
    *,
    handed_over: datetime | None = None,
    edited: datetime | None = None,
) -> Scheduling | None:
    """Decide about a Workflow's ticks; None if it has, and had, no schedule.

    Args:
        workflow: As stored.
        runs: All that its schedule made, and that exist.
        now: The time.
        handed_over: Ticks later than this are a CronJob's, and only kept account of.
        edited: When the schedule was edited, if it was and that is known.
    """
    spec, status = workflow.spec, workflow.status
    if not spec.is_scheduled and status.schedule is None:
        return None
    mine = [run for run in runs if run.owner == workflow.metadata.uid]
    known = parse_time(status.schedule.since) if status.schedule else None
    ledger = take_stock(status, mine, known, now)
    record = _record(workflow, known, ledger, edited or now, now)
    ticks = decide_ticks(workflow, record, ledger, now, handed_over)
    if status.schedule is None and (ticks.run or ticks.missed):
        ticks = put_off(ticks, now)
    live = sorted(
        [
            *((run.tick, run.name) for run in ledger.live),
            *((tick, scheduled_run_name(workflow.metadata.name, tick)) for tick in ticks.run),
        ]
    )
    # What a clock that was far ahead has made is left out: it would stop the schedule.
    settled = [t for t in (ticks.settled, *ledger.ticks) if t and t <= now + CLOCK_TOLERANCE]
    made = [*(t for t in ledger.ticks if t <= now), *ticks.run]
    record = record.but(
        hash=schedule_hash(spec, is_over=ticks.next is None),
        since=rfc3339(max([parse_time(record.since), *settled])),
        runs=record.runs + len(ticks.run),
    )
    return Scheduling(
        create=tuple(build_scheduled_run(workflow, tick) for tick in ticks.run),
        cancel=_replaced(workflow, ledger, [tick for tick, _ in live]),
        fields={
            "schedule": record,
            "last_schedule_time": _latest(status.last_schedule_time, made, now),
            "next_schedule_time": ticks.next and rfc3339(ticks.next),
            "last_successful_time": ledger.last_successful_time,
            "last_failed_time": ledger.last_failed_time,
            "active": [LocalRef(name=name) for _, name in live],
            "succeeded": ledger.succeeded,
            "failed": ledger.failed,
            "missed": (status.missed or 0) + ticks.missed,
            "last_run": _last_run(workflow, ledger),
        },
        conditions=schedule_conditions(workflow, ledger, ticks, now),
        skipped=ticks.skipped,
        problem=ticks.why if ticks.why and ticks.why.reason == "InvalidSpec" else None,
        requeue_after=max(0.0, (ticks.wake - now).total_seconds()) if ticks.wake else None,
    )


def _record(
    workflow: Workflow, known: datetime | None, ledger: Ledger, edited: datetime, now: datetime
) -> ScheduleRecord:
    """Say since when the schedule as it is now counts."""
    old = workflow.status.schedule
    if old is None or known is None:
        created = workflow.metadata.creation_timestamp
        # Whoever lost the status may have lost Runs, too: what exists tells how far it came.
        times = [*ledger.ticks, *([parse_time(created)] if created else [now])]
        return ScheduleRecord(hash="", since=rfc3339(max(times)), runs=ledger.made)
    since = now if known > now + CLOCK_TOLERANCE else known
    if is_edited(workflow):
        since = max(since, min(edited, now))
    return old.but(since=rfc3339(since), runs=old.runs + ledger.made)


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
