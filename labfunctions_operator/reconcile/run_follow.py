"""A Run whose Job exists: why its notebook does not run yet, how far it is, when to stop it."""

from datetime import datetime, timedelta

from labfunctions_operator.api.conditions import find_condition
from labfunctions_operator.api.run import Phase, Run
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.api.workflow import DEFAULT_TIMEOUT_SECONDS
from labfunctions_operator.desired.run_pod import NOTEBOOK
from labfunctions_operator.reconcile.attempt import Current
from labfunctions_operator.reconcile.plan import Plan
from labfunctions_operator.reconcile.pods import Waiting, pod_condition, refused, waiting
from labfunctions_operator.reconcile.run_observed import RunObserved
from labfunctions_operator.reconcile.run_status import (
    SUCCEEDED_CONDITION,
    recorded,
    run_status,
    seconds_between,
)
from labfunctions_operator.reconcile.timing import (
    START_GRACE,
    look_again,
    patience_left,
    pending_left,
    pending_since,
    throttled,
)
from labfunctions_operator.reconcile.verdict import notebook_started

# The runner gives up on a kernel that is not there by then.
KERNEL_PATIENCE = timedelta(seconds=120)
# The runner keeps its own time; the operator steps in where the runner cannot.
TIMEOUT_GRACE = timedelta(seconds=60)


def follow(run: Run, current: Current, seen: RunObserved, now: datetime) -> Plan:
    """Say how far an attempt is, and stop one that takes too long to start or to end."""
    assert current.job is not None
    if current.job["spec"].get("suspend"):
        queue = current.snapshot.queue_name if current.snapshot else None
        queued = Waiting(reason="Queued", message=f"waiting in queue {queue}")
        return _wait(run, current, seen, queued, now, phase="Queued")
    why = waiting(current.pod, NOTEBOOK, current.event)
    if current.pod is None and seen.refusal:
        why = refused(seen.refusal)
    if why is not None:
        return _wait(run, current, seen, why, now, phase="Starting")
    return _running(run, current, seen, now)


def _just_ended(current: Current) -> bool:
    """Whether a pod ran and is gone, of whose end the Job is about to tell."""
    has_run = current.pod is None and current.rows[-1].start_time is not None
    return has_run and not pod_condition(current.job or {}, "Suspended")


def _wait(
    run: Run,
    current: Current,
    seen: RunObserved,
    why: Waiting,
    now: datetime,
    *,
    phase: Phase,
) -> Plan:
    """Say why an attempt waits, unless that is unsure; stop one that has waited too long."""
    assert current.job is not None
    created = current.job["metadata"].get("creationTimestamp") or rfc3339(now)
    limit = current.snapshot.pending_timeout_seconds if current.snapshot else None
    left = pending_left(pending_since(run, current), limit, now)
    if left is not None and left <= 0:
        return stop(
            run, current, "PendingTimedOut", f"not started after {limit} s: {why.message}", now
        )
    patience = None if seen.asking else patience_left(why, current, now)
    if patience is not None and patience <= 0:
        return stop(run, current, why.reason, why.message, now)
    young = parse_time(created) + START_GRACE - now
    if why.reason == "Starting" and young > timedelta(0) and not run.status.attempts:
        return Plan(requeue_after=young.total_seconds())
    waits = (left, patience, look_again(why, current))
    again = min((t for t in waits if t is not None), default=None)
    if why.reason == "Starting" and (seen.asking or _just_ended(current)):
        return Plan(requeue_after=again)
    message = why.message
    old = find_condition(run.status.conditions, SUCCEEDED_CONDITION)
    if old and old.reason == why.reason == "ImagePullFailed":
        message = old.message  # kubelet words the same failure in two ways, in turn
    known = {**recorded(current), "progress": None}
    status = run_status(run, None, (why.reason, message), now, phase=phase, **known)
    return Plan(status=status, requeue_after=again)


def _running(run: Run, current: Current, seen: RunObserved, now: datetime) -> Plan:
    started = notebook_started(current.pod)
    if started is None:
        return Plan()  # it ended without a start, and its pod is still to follow
    timeout = (current.snapshot and current.snapshot.timeout_seconds) or DEFAULT_TIMEOUT_SECONDS
    left = parse_time(started) + timedelta(seconds=timeout) + TIMEOUT_GRACE - now
    if left <= timedelta(0):
        return stop(run, current, "TimedOut", f"still running after {timeout} s", now)
    progress, wait = throttled(run, seen.progress, now)
    message = "the notebook is running"
    starting = parse_time(started) + KERNEL_PATIENCE - now
    if progress is None and starting > timedelta(0):
        message = "starting the kernel"
        wait = starting.total_seconds()
    first = run.status.start_time or current.rows[0].start_time
    status = run_status(
        run,
        None,
        ("Running", message),
        now,
        phase="Running",
        **recorded(current),
        start_time=first,
        queued_seconds=seconds_between(run.metadata.creation_timestamp, first),
        progress=progress,
    )
    waits = [left.total_seconds(), *([wait] if wait is not None else [])]
    return Plan(status=status, requeue_after=min(waits))


def stop(run: Run, current: Current, reason: str, message: str, now: datetime) -> Plan:
    """Put on record why an attempt is stopped; its Job is deleted once that is written."""
    rows = [*current.rows[:-1], current.rows[-1].but(reason=reason)]
    known = {**recorded(current), "attempts": rows}
    return Plan(status=run_status(run, None, ("Stopping", message), now, **known))
