"""The start of a Run: through the gates, or held by one of them, to the Job of an attempt."""

from datetime import datetime, timedelta

from labfunctions_operator.api.conditions import find_condition
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
    RETRYING,
    SUCCEEDED_CONDITION,
    ended,
    finish,
    run_status,
)
from labfunctions_operator.reconcile.timing import START_GRACE, pending_left
from labfunctions_operator.settings import Settings


def is_waiting_for_attempt(run: Run) -> bool:
    """Whether the next thing to happen may be a new Job."""
    if not run.status.attempts:
        return True
    condition = find_condition(run.status.conditions, SUCCEEDED_CONDITION)
    return condition is not None and condition.reason == RETRYING


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
    return start_attempt(run, admitted, 1, seen, settings, now=now)


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
    now: datetime,
) -> Plan:
    """Make the Job of an attempt."""
    if seen.grant is None:
        return Plan(requeue_after=1.0)
    job = build_run_job(run, snapshot, seen.grant, settings, attempt=number, now=now)
    return Plan(apply=(job,), requeue_after=START_GRACE.total_seconds())


def _block(run: Run, blocked: Blocked, seen: RunObserved, now: datetime) -> Plan:
    """Say which gate is closed, unless the Run can never pass it or has waited too long."""
    workflow = seen.workflow if isinstance(seen.workflow, Workflow) else None
    limit = merge_execution(run, workflow).pending_timeout_seconds
    left = pending_left(run.metadata.creation_timestamp, limit, now)
    patience = (blocked.until - now).total_seconds() if blocked.until else None
    reason, message = blocked.reason, blocked.message
    if not blocked.final and (patience is None or patience > 0):
        if left is None or left > 0:
            status = run_status(run, None, (reason, message), now, phase=blocked.phase)
            waits = [t for t in (left, patience) if t is not None]
            return Plan(status=status, requeue_after=min(waits, default=None))
        reason, message = "PendingTimedOut", f"not started after {limit} s: {message}"
    verdict = ended(reason, message, now)
    return finish(run, find_current(run, (), ()), verdict, seen.progress, now)
