"""The start of a Run: through the gates, or held by one of them, to the Job of an attempt."""

from datetime import datetime, timedelta

from labfunctions_operator.api.run import Run, Snapshot
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.desired.run_job import build_run_job
from labfunctions_operator.reconcile.admission import Blocked, admit
from labfunctions_operator.reconcile.attempt import find_current
from labfunctions_operator.reconcile.execution import merge_execution
from labfunctions_operator.reconcile.plan import Plan
from labfunctions_operator.reconcile.run_observed import RunObserved
from labfunctions_operator.reconcile.run_status import (
    ended,
    finish,
    run_status,
)
from labfunctions_operator.reconcile.timing import START_GRACE, pending_left
from labfunctions_operator.settings import Settings

# Neither a quota nor somebody else's Job tells that it makes room.
HINDERED_SECONDS = 30.0


def is_waiting_for_attempt(run: Run) -> bool:
    """Whether the next thing to happen may be a new Job."""
    return not run.status.attempts or run.status.attempts[-1].finish_time is not None


def admit_run(run: Run, seen: RunObserved, settings: Settings, now: datetime) -> Plan:
    """Start the first attempt of a Run that every gate lets through; say which one does not."""
    if seen.jobs:
        still = Blocked(reason="Waiting", message="a Job of a deleted Run of this name still ends")
        return _block(run, still, seen, now)
    admitted = admit(
        run,
        workflow=seen.workflow,
        project=seen.project,
        source=seen.source,
        node_group=seen.node_group,
        origin=seen.origin,
        ahead=seen.ahead,
    )
    if isinstance(admitted, Blocked):
        return _block(run, admitted, seen, now)
    if seen.source_pending:
        return _await_source(run, admitted, seen, now)
    since = run.metadata.creation_timestamp
    return start_attempt(run, admitted, 1, seen, settings, since=since, now=now)


def _await_source(run: Run, admitted: Snapshot, seen: RunObserved, now: datetime) -> Plan:
    """Wait for the reading that tells which parameters the notebook takes; it ends either way."""
    created = run.metadata.creation_timestamp or rfc3339(now)
    young = parse_time(created) + START_GRACE - now
    if young > timedelta(0):
        return Plan(requeue_after=young.total_seconds())
    message = f"Project {admitted.project}: reading its source"
    return _block(run, Blocked(reason="SourcePending", message=message), seen, now)


def start_attempt(
    run: Run,
    snapshot: Snapshot,
    number: int,
    seen: RunObserved,
    settings: Settings,
    *,
    since: str | None,
    now: datetime,
) -> Plan:
    """Make the Job of an attempt, or say what hinders it.

    Args:
        run: The Run.
        snapshot: What it is started with.
        number: Of the attempt.
        seen: What exists around it.
        settings: The operator's.
        since: When the attempt was due.
        now: The time.
    """
    if seen.hindrance:
        reason, message = seen.hindrance.reason, seen.hindrance.message
        hindered = Blocked(reason=reason, message=message, again=HINDERED_SECONDS)
        limit = snapshot.pending_timeout_seconds
        return _hold(run, hindered, seen, now, limit=limit, since=since)
    if seen.grant is None:
        return Plan(requeue_after=1.0)
    job = build_run_job(run, snapshot, seen.grant, settings, attempt=number, now=now)
    return Plan(apply=(job,), requeue_after=START_GRACE.total_seconds())


def _block(run: Run, blocked: Blocked, seen: RunObserved, now: datetime) -> Plan:
    """Say which gate is closed, unless the Run can never pass it or has waited too long."""
    workflow = seen.workflow if isinstance(seen.workflow, Workflow) else None
    limit = merge_execution(run, workflow).pending_timeout_seconds
    return _hold(run, blocked, seen, now, limit=limit, since=run.metadata.creation_timestamp)


def _hold(
    run: Run,
    blocked: Blocked,
    seen: RunObserved,
    now: datetime,
    *,
    limit: int | None,
    since: str | None,
) -> Plan:
    left = pending_left(since, limit, now)
    patience = (blocked.until - now).total_seconds() if blocked.until else None
    reason, message = blocked.reason, blocked.message
    if not blocked.final and (patience is None or patience > 0):
        if left is None or left > 0:
            status = run_status(run, None, (reason, message), now, phase=blocked.phase)
            waits = [t for t in (left, patience, blocked.again) if t is not None]
            return Plan(status=status, requeue_after=min(waits, default=None))
        reason, message = "PendingTimedOut", f"not started after {limit} s: {message}"
    verdict = ended(reason, message, now)
    return finish(run, find_current(run, (), ()), verdict, seen.progress, now)
