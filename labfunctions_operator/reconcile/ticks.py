"""Which ticks of a Workflow's schedule get a Run now, and why others get none."""

from dataclasses import dataclass, replace
from datetime import datetime

from labfunctions_operator.api.conditions import find_condition
from labfunctions_operator.api.schedule import MAX_ACTIVE, ScheduleRecord, ScheduleSpec
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.ledger import Ledger
from labfunctions_operator.reconcile.missed import Skipped
from labfunctions_operator.reconcile.plan import Problem
from labfunctions_operator.reconcile.schedule import LOOK_BACK, ON_TIME, Due, due
from labfunctions_operator.reconcile.timetable import Timetable, timetable

SCHEDULED = "Scheduled"
MISSED, ALREADY_ACTIVE, TOO_MANY = "MissedSchedule", "RunAlreadyActive", "TooManyActive"
LATE, STALLED = "Late", "CronJobStalled"
# A CronJob that makes no Job for as many ticks in a row is not only late.
STALLED_TICKS = 3
AWAY = "the scheduler was away or late"
TOO_LATE = "more than spec.startingDeadlineSeconds, {}, had passed"


@dataclass(frozen=True, kw_only=True)
class Ticks:
    """What is done about the ticks of this moment.

    Attributes:
        run: Those that get a Run now.
        missed: How many got none, and never will.
        settled: Up to when none is left to decide about; None if that did not change.
        last: The last tick that has come, if it has a Run.
        next: When the next tick that gets one starts, its jitter included.
        wake: When to look again.
        why: Why there are none to come, or the last one got no Run: reason and message.
        before: What is to be said of ticks before the last one, which has its Run.
        is_over: Whether there are none to come.
        skipped: The missed ones, if that is news.
    """

    run: tuple[datetime, ...] = ()
    missed: int = 0
    settled: datetime | None = None
    last: datetime | None = None
    next: datetime | None = None
    wake: datetime | None = None
    why: Problem | None = None
    before: str | None = None
    is_over: bool = False
    skipped: Skipped | None = None


def decide_ticks(
    workflow: Workflow,
    record: ScheduleRecord,
    ledger: Ledger,
    now: datetime,
    handed_over: datetime | None,
) -> Ticks:
    """Decide which of a schedule's ticks get a Run now.

    Args:
        workflow: As stored.
        record: Since when the schedule as it is now counts.
        ledger: What became of its Runs.
        now: The time.
        handed_over: Ticks later than this are a CronJob's; None if none are.
    """
    spec, meta = workflow.spec, workflow.metadata
    if stopped := _stopped(spec, record.runs):
        return Ticks(why=stopped, is_over=True)
    try:
        table = timetable(spec, parse_time(meta.creation_timestamp or rfc3339(now)))
    except InvalidSpec as error:
        return Ticks(why=Problem(reason="InvalidSpec", message=str(error)), is_over=True)
    identity = f"{meta.namespace}/{meta.name}"
    since = parse_time(record.since)
    if handed_over is None or handed_over > now:
        found = due(spec, table, identity, since, now, ledger.ticks)
        return _admit(workflow, record, ledger, found)
    # Those before the CronJob's last one that have no Run are not made up for.
    until = max(handed_over, *(tick for tick in ledger.ticks if tick <= now), min(since, now))
    found = due(spec, table, identity, since, until, ledger.ticks)
    # How late a CronJob was for those that it left out is not known.
    found = replace(found, is_too_late=False)
    return _awaited(workflow, ledger, table, _admit(workflow, record, ledger, found), now)


def put_off(ticks: Ticks, now: datetime) -> Ticks:
    """Leave ticks for the next look.

    Until a status says since when the schedule counts, a Run is the only sign of that: whoever
    made one and died would have the ticks before it forgotten.
    """
    return Ticks(next=ticks.run[0] if ticks.run else ticks.next, wake=now)


def _stopped(spec: ScheduleSpec, runs: int) -> Problem | None:
    if not spec.is_scheduled:
        return Problem(reason="NoSchedule", message="it has neither schedule nor interval any more")
    if spec.suspend:
        return Problem(reason="Suspended", message="suspended by spec.suspend")
    if spec.repeat is not None and runs >= spec.repeat:
        return Problem(reason="Ended", message=f"it made {runs} Runs, as spec.repeat says")
    return None


def _awaited(
    workflow: Workflow, ledger: Ledger, table: Timetable, ticks: Ticks, now: datetime
) -> Ticks:
    """Say so when the CronJob has made no Job for its next tick in time, or for several."""
    if ticks.next is None:
        return ticks
    if now < ticks.next + ON_TIME:
        return replace(ticks, wake=ticks.next + ON_TIME)
    if ticks.why or (workflow.spec.concurrency_policy == "Forbid" and ledger.live):
        return replace(ticks, wake=None)
    last: datetime | None = ticks.next
    for _ in range(STALLED_TICKS - 1):
        last = last and table.after(last)
    name, first = workflow.metadata.name, rfc3339(ticks.next)
    if last is None or now < last + ON_TIME:
        message = f"CronJob {name} has made no Job for {first} yet"
        why = Problem(reason=LATE, message=message)
        return replace(ticks, wake=last and last + ON_TIME, why=why)
    message = f"CronJob {name} has made no Job for {first} and the ticks after it"
    why = Problem(reason=STALLED, message=message)
    skipped = Skipped(reason=STALLED, message=message, cause=message, due=last, count=STALLED_TICKS)
    return replace(ticks, wake=None, why=why, skipped=_news(workflow, why, skipped))


def _admit(workflow: Workflow, record: ScheduleRecord, ledger: Ledger, found: Due) -> Ticks:
    """Let as many ticks start as the policy and the bounds allow: the latest ones."""
    spec = workflow.spec
    room, reason, cause = _room(spec, ledger)
    refused = found.run[: max(0, len(found.run) - room)]
    run = found.run[len(refused) :]
    if spec.repeat is not None:
        run = run[: spec.repeat - record.runs]
    missed = sorted([*found.missed, *refused])
    result = Ticks(
        run=run,
        missed=len(missed),
        settled=found.settled,
        last=found.settled if found.settled in {*run, *ledger.ticks} else None,
        next=found.next,
        wake=found.next,
    )
    if spec.repeat is not None and record.runs + len(run) >= spec.repeat:
        result = replace(result, next=None, wake=None)
    if not missed:
        return result
    count = f"more than {LOOK_BACK}" if found.more else str(len(missed))
    if refused:
        due, named = refused[-1], str(len(refused))
    else:
        due, named, reason = missed[-1], count, MISSED
        cause = TOO_LATE.format(spec.starting_deadline_seconds) if found.is_too_late else AWAY
    subject = (
        f"the tick of {rfc3339(due)}" if named == "1" else f"{named} ticks up to {rfc3339(due)}"
    )
    text = f"{subject} got no Run: {cause}"
    skipped = Skipped(reason=reason, message=text, cause=cause, due=due, count=len(missed))
    if result.last:
        plural = "tick" if count == "1" else "ticks"
        before = f"{count} {plural} before {rfc3339(result.last)} got no Run"
        return replace(result, before=before, skipped=skipped)
    why = Problem(reason=reason, message=text)
    return replace(result, why=why, skipped=_news(workflow, why, skipped))


def _room(spec: ScheduleSpec, ledger: Ledger) -> tuple[int, str, str]:
    """Say how many Runs may start, and why no more: reason and message."""
    if spec.concurrency_policy == "Forbid" and ledger.live:
        message = f"Run {ledger.live[-1].name} is live and spec.concurrencyPolicy is Forbid"
        return 0, ALREADY_ACTIVE, message
    message = f"{MAX_ACTIVE} Runs of the schedule are live, which is the limit"
    return max(0, MAX_ACTIVE - len(ledger.live)), TOO_MANY, message


def _news(workflow: Workflow, why: Problem, skipped: Skipped) -> Skipped | None:
    """Tell of the first tick of several in turn that get no Run for the same reason."""
    old = find_condition(workflow.status.conditions, SCHEDULED)
    return None if old and old.reason == why.reason else skipped
