"""What a Backfill needs next: the Runs of past ticks, oldest first, a few at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from labfunctions_operator.api.backfill import MAX_TICKS, Backfill, Phase, PlannedTicks
from labfunctions_operator.api.conditions import find_condition, set_condition
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.api.types import LocalRef
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.desired.scheduled_run import build_backfill_run, scheduled_run_name
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.admission import missing
from labfunctions_operator.reconcile.ledger import FAILED, Tally, tally
from labfunctions_operator.reconcile.past import (
    Past,
    PastRun,
    first_unsettled,
    is_done,
    latest,
    left_of,
    minute_of,
    past_ticks,
)
from labfunctions_operator.reconcile.plan import Event, Manifest, Plan, Problem
from labfunctions_operator.reconcile.scheduled_run import ScheduledRun, scheduled_run

SUCCEEDED = "Succeeded"
READING = Problem(reason="ReadingHistory", message="reading what has run already")
UNREADABLE = "StoreUnavailable"
# How many failed Runs the status names, and how many ticks at each end a dry run shows.
NAMED, SHOWN = 5, 10


@dataclass(frozen=True, kw_only=True)
class BackfillObserved:
    """What exists around a Backfill.

    Attributes:
        workflow: The Workflow it names; InvalidSpec where that cannot be read.
        namesake: Whether a Workflow has the Backfill's own name.
        past: Its ticks and what is known of them; a Problem if that cannot be read, None while it
            is read.
        run: Finds a Run of the namespace by name.
        known: Finds the Runs that exist of a Unix minute of the Workflow.
    """

    workflow: Workflow | InvalidSpec | None
    past: Past | Problem | None = None
    namesake: bool = False
    run: Callable[[str], Mapping[str, Any] | None]
    known: Callable[[int], Sequence[PastRun]]


@dataclass(kw_only=True)
class _Step:
    """What one look at the ticks has come to.

    Attributes:
        found: Runs of ours that the status did not know.
        cursor: The last tick that is settled.
        taken: A name that a Run of somebody else has.
    """

    found: list[ScheduledRun] = field(default_factory=list)
    create: list[Manifest] = field(default_factory=list)
    skipped: int = 0
    cursor: datetime | None = None
    left: int | None = None
    taken: str | None = None


def find_obstacle(backfill: Backfill, seen: BackfillObserved, now: datetime) -> Problem | None:
    """Say what keeps Runs from being made, before anything of the past is read."""
    name = backfill.spec.workflow_ref.name
    if not isinstance(seen.workflow, Workflow):
        blocked = missing("Workflow", name, seen.workflow)
        return Problem(reason=blocked.reason, message=blocked.message)
    if seen.namesake:
        message = "metadata.name: a Workflow has this name, and its Runs would have those of ours"
        return Problem(reason="InvalidSpec", message=message)
    try:
        past_ticks(seen.workflow, backfill.spec)
    except InvalidSpec as error:
        return Problem(reason="WorkflowInvalid", message=f"Workflow {name}: {error}")
    if parse_time(backfill.spec.to_time) > now:
        message = f"spec.to: {backfill.spec.to_time} lies ahead; ticks to come are the schedule's"
        return Problem(reason="InvalidSpec", message=message)
    if backfill.spec.suspend:
        return Problem(reason="Suspended", message="suspended by spec.suspend")
    if tick := first_unsettled(seen.workflow, backfill.spec):
        message = f"the schedule has still to decide about its tick of {rfc3339(tick)}"
        return Problem(reason="AwaitingSchedule", message=message)
    return None


def reconcile_backfill(backfill: Backfill, seen: BackfillObserved, now: datetime) -> Plan:
    """Decide which Runs a Backfill makes now, and what its status says."""
    status = backfill.status
    if status.completion_time:
        return Plan()
    problem = find_obstacle(backfill, seen, now) or _unread(backfill, seen.past)
    active = [_own(backfill, seen.run(ref.name)) for ref in status.active or ()]
    counts = tally(status, [run for run in active if run])
    step = _Step(cursor=parse_time(status.cursor) if status.cursor else None)
    if problem is None and isinstance(seen.past, Past):
        if backfill.spec.dry_run:
            return _finish_dry_run(backfill, seen, seen.past, now)
        _walk(backfill, seen, seen.past, step, len(counts.live))
        counts = tally(status, [*counts.live, *counts.ended, *step.found])
    return _plan(backfill, counts, step, problem or _taken(step), now)


def _unread(backfill: Backfill, past: Past | Problem | None) -> Problem | None:
    if past is None:
        return READING
    if isinstance(past, Problem):
        # Trying again is no news: the first words stay.
        before = find_condition(backfill.status.conditions, SUCCEEDED)
        if before and before.reason == past.reason:
            return Problem(reason=before.reason, message=before.message)
        return past
    if len(past.ticks) > MAX_TICKS:
        message = (
            f"spec.from, spec.to: between them are more than {MAX_TICKS} ticks, which is the "
            f"limit; tick {MAX_TICKS} is at {rfc3339(past.ticks[MAX_TICKS - 1])}"
        )
        return Problem(reason="InvalidSpec", message=message)
    return None


def _own(backfill: Backfill, obj: Mapping[str, Any] | None) -> ScheduledRun | None:
    run = scheduled_run(obj, "Backfill") if obj else None
    return run if run and run.owner == backfill.metadata.uid else None


def _walk(backfill: Backfill, seen: BackfillObserved, past: Past, step: _Step, live: int) -> None:
    """Settle one tick after another until as many Runs are live as may be."""
    places = left_of(past.ticks, step.cursor)
    for place in places:
        tick = past.ticks[place]
        name = scheduled_run_name(backfill.metadata.name, tick)
        existing = seen.run(name)
        # Made by an operator that died, or another one, before the status said so.
        if own := _own(backfill, existing):
            step.found.append(own)
            live += own.is_live
        elif is_done(_known(seen, past, tick), backfill.spec.reprocess):
            step.skipped += 1
        elif live >= backfill.spec.max_active:
            step.left = places.stop - place
            return
        elif existing is not None:
            step.left, step.taken = places.stop - place, name
            return
        else:
            assert isinstance(seen.workflow, Workflow)
            step.create.append(build_backfill_run(backfill.metadata, seen.workflow, tick))
            live += 1
        step.cursor = tick
    step.left = 0


def _known(seen: BackfillObserved, past: Past, tick: datetime) -> PastRun | None:
    minute = minute_of(tick)
    # Of one Run, what it is now comes before what was read of it.
    return latest([*seen.known(minute), past.runs.get(minute)])


def _taken(step: _Step) -> Problem | None:
    if step.taken is None:
        return None
    message = f"Run {step.taken} exists and is none of this Backfill; it waits until that is gone"
    return Problem(reason="NameTaken", message=message)


def _plan(
    backfill: Backfill, counts: Tally, step: _Step, problem: Problem | None, now: datetime
) -> Plan:
    status = backfill.status
    names = [run.name for run in counts.live]
    names += [run["metadata"]["name"] for run in step.create]
    created = (status.created or 0) + len(step.found) + len(step.create)
    skipped = (status.skipped or 0) + step.skipped
    total = status.total if step.left is None else created + skipped + step.left
    failures = [*(status.failed_runs or ()), *_failed(counts)]
    done = created + skipped - len(names)
    fields: dict[str, Any] = {
        "total": total,
        "skipped": skipped,
        "created": created,
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "progress": None if total is None else f"{done}/{total}",
        "active": [LocalRef(name=name) for name in names],
        "failed_runs": failures[:NAMED],
        "cursor": rfc3339(step.cursor) if step.cursor else None,
        "start_time": status.start_time or (None if total is None else rfc3339(now)),
    }
    if total is not None and done == total:
        return _finish(backfill, fields, now)
    return Plan(
        apply=tuple(step.create),
        status=_status(backfill, None, problem or _progress(fields), now, fields),
        requeue_after=_until_passed(backfill, now),
    )


def _failed(counts: Tally) -> list[LocalRef]:
    return [LocalRef(name=run.name) for run in counts.ended if run.phase == FAILED]


def _progress(fields: Mapping[str, Any]) -> Problem:
    words = f"{fields['progress']} ticks are done, {len(fields['active'])} Runs are live"
    if fields["failed"]:
        words += f", {fields['failed']} failed"
    return Problem(reason="Running", message=words)


def _until_passed(backfill: Backfill, now: datetime) -> float | None:
    """Return the seconds until the range lies in the past."""
    left = (parse_time(backfill.spec.to_time) - now).total_seconds()
    return left if left > 0 else None


def _finish(backfill: Backfill, fields: dict[str, Any], now: datetime) -> Plan:
    created, failed = fields["created"], fields["failed"]
    others = created - fields["succeeded"] - failed
    parts = []
    if failed:
        names = ", ".join(ref.name for ref in fields["failed_runs"])
        more = f" and {failed - NAMED} more" if failed > NAMED else ""
        parts.append(f"{failed} of {created} Runs failed: {names}{more}")
    if others:
        parts.append(f"{others} of {created} Runs were cancelled or deleted")
    if not parts:
        parts.append(f"{created} Runs succeeded" if fields["total"] else "the range has no ticks")
    if fields["skipped"]:
        parts.append(f"{fields['skipped']} ticks had run already")
    reason = "RunsFailed" if failed else "Incomplete" if others else "Completed"
    why = Problem(reason=reason, message="; ".join(parts))
    succeeded = reason == "Completed"
    event = Event(type="Warning", reason=reason, message=why.message)
    fields["completion_time"] = rfc3339(now)
    return Plan(
        status=_status(backfill, succeeded, why, now, fields),
        events=() if succeeded else (event,),
    )


def _finish_dry_run(backfill: Backfill, seen: BackfillObserved, past: Past, now: datetime) -> Plan:
    reprocess = backfill.spec.reprocess
    run = [rfc3339(t) for t in past.ticks if not is_done(_known(seen, past, t), reprocess)]
    skip = len(past.ticks) - len(run)
    plan = PlannedTicks(
        run=len(run), skip=skip, first=run[:SHOWN], last=run[max(SHOWN, len(run) - SHOWN) :]
    )
    why = Problem(
        reason="DryRun", message=f"would create {len(run)} Runs; {skip} ticks had run already"
    )
    fields = {"total": len(past.ticks), "plan": plan, "completion_time": rfc3339(now)}
    return Plan(status=_status(backfill, True, why, now, fields))


def _status(
    backfill: Backfill,
    succeeded: bool | None,
    why: Problem,
    now: datetime,
    fields: Mapping[str, Any],
) -> dict[str, Any]:
    generation = backfill.metadata.generation
    conditions = set_condition(
        backfill.status.conditions,
        type=SUCCEEDED,
        status=succeeded,
        reason=why.reason,
        message=why.message,
        generation=generation,
        now=now,
    )
    return backfill.status.but(
        observed_generation=generation,
        phase=_phase(succeeded, why.reason, bool(fields.get("created"))),
        conditions=conditions,
        **fields,
    ).wire()


def _phase(succeeded: bool | None, reason: str, has_begun: bool) -> Phase:
    if succeeded is not None:
        return "Succeeded" if succeeded else "Failed"
    if reason == "Suspended":
        return "Suspended"
    return "Running" if has_begun or reason == "Running" else "Pending"
