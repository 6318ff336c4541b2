"""What a Run needs next: a start, its notebook followed, an end, or nothing any more."""

from dataclasses import replace
from datetime import datetime, timedelta

from labfunctions_operator.api import labels
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.times import parse_time
from labfunctions_operator.reconcile.attempt import Current, find_current, unrecorded
from labfunctions_operator.reconcile.notify import announce, is_pending, with_outcomes
from labfunctions_operator.reconcile.plan import Plan, Ref
from labfunctions_operator.reconcile.record import is_recorded
from labfunctions_operator.reconcile.retry import DISRUPTED
from labfunctions_operator.reconcile.run_end import after_end, attempt_verdict, conclude
from labfunctions_operator.reconcile.run_follow import follow
from labfunctions_operator.reconcile.run_observed import RunObserved
from labfunctions_operator.reconcile.run_start import admit_run
from labfunctions_operator.reconcile.run_status import (
    CANCELLED,
    ended,
    finish,
    recorded,
    run_status,
)
from labfunctions_operator.reconcile.timing import of_a_lost_node, of_this_pod
from labfunctions_operator.settings import Settings


def reconcile_run(run: Run, seen: RunObserved, settings: Settings, now: datetime) -> Plan:
    """Decide what a Run needs next, from what exists now; never from what happened."""
    if run.is_finished:
        return _after_all(run, seen, now)
    current = replace(
        find_current(run, seen.jobs, seen.pods), event=seen.event, node_silent=seen.node_silent
    )
    seen = replace(seen, progress=of_this_pod(seen.progress, current))
    plan = announce(
        _decide(run, current, seen, settings, now),
        run,
        workflow=seen.workflow,
        project=seen.project,
        before=seen.before,
        now=now,
    )
    waits = (plan.requeue_after, *of_a_lost_node(current, now))
    return replace(plan, requeue_after=min((t for t in waits if t is not None), default=None))


def _decide(
    run: Run, current: Current, seen: RunObserved, settings: Settings, now: datetime
) -> Plan:
    if run.spec.cancel:
        return _cancel(run, current, seen, now)
    if current.job is None and not current.rows:
        return admit_run(run, seen, settings, now)
    if current.has_ended:
        return after_end(run, current, seen, settings, now)
    verdict = attempt_verdict(current, now)
    if verdict:
        return conclude(run, current, verdict, seen, now)
    if current.stopping or current.job is None:
        # A pod whose Job was deleted still has time to end and to store its notebook.
        return Plan(delete=_delete_job(current))
    return follow(run, current, seen, now)


def _after_all(run: Run, seen: RunObserved, now: datetime) -> Plan:
    """Finish what is left to do about a Run that has ended."""
    unknown = unrecorded(run, seen.jobs)
    if unknown:
        # Of an operator that had not seen the end.
        return Plan(delete=tuple(Ref.to("batch/v1", "Job", job["metadata"]) for job in unknown))
    return with_outcomes(run, seen.outcomes, now) if is_pending(run) else _expire(run, now)


def _cancel(run: Run, current: Current, seen: RunObserved, now: datetime) -> Plan:
    cancelled = ended(CANCELLED, "cancelled by spec.cancel", now)
    if current.has_ended:
        return finish(run, current, cancelled, seen.progress, now)
    verdict = attempt_verdict(current, now)
    if verdict and verdict.reason != DISRUPTED:
        # It was over before: only the attempts that would follow are cancelled.
        return conclude(run, current, verdict, seen, now)
    if current.stopping:
        return Plan(delete=_delete_job(current))
    if current.job is not None and not (verdict and current.pod):
        message = "stopping the notebook and storing it as it is"
        status = run_status(run, None, ("Cancelling", message), now, **recorded(current))
        if list(current.rows) != run.status.attempts:
            return Plan(status=status)  # without the Job there would be no sign of its pod
        return Plan(delete=_delete_job(current), status=status)
    if verdict is None and current.pod is not None:
        return Plan()
    if verdict:
        cancelled = replace(
            verdict,
            reason=cancelled.reason,
            message=cancelled.message,
            failure=cancelled.failure,
        )
    return finish(run, current, cancelled, seen.progress, now)


def _delete_job(current: Current) -> tuple[Ref, ...]:
    if current.job is None or current.job["metadata"].get("deletionTimestamp"):
        return ()
    return (Ref.to("batch/v1", "Job", current.job["metadata"]),)


def _expire(run: Run, now: datetime) -> Plan:
    ttl = run.spec.ttl_seconds_after_finished
    if ttl is None and run.status.snapshot:
        ttl = run.status.snapshot.ttl_seconds_after_finished
    if ttl is None or not run.status.completion_time:
        return Plan()
    left = parse_time(run.status.completion_time) + timedelta(seconds=ttl) - now
    if left > timedelta(0):
        return Plan(requeue_after=left.total_seconds())
    if not is_recorded(run.status.conditions):
        return Plan()  # whoever stores the record brings it back
    return Plan(delete=(Ref.to(labels.API_VERSION, "Run", run.metadata.model_dump()),))
