"""The end of an attempt: how it ended, whether another one follows, or the Run's final word."""

from dataclasses import replace
from datetime import datetime

from labfunctions_operator.api.conditions import find_condition
from labfunctions_operator.api.run import Failure, Run
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.api.workflow import Retries
from labfunctions_operator.reconcile.attempt import Current, as_ran, with_end
from labfunctions_operator.reconcile.plan import Event, Plan
from labfunctions_operator.reconcile.pods import disruption
from labfunctions_operator.reconcile.retry import (
    DISRUPTED,
    Retry,
    grown_resources,
    next_attempt,
    why_memory_stays,
)
from labfunctions_operator.reconcile.run_observed import RunObserved
from labfunctions_operator.reconcile.run_start import start_attempt
from labfunctions_operator.reconcile.run_status import (
    CANCELLED,
    RETRYING,
    SUCCEEDED_CONDITION,
    ended,
    finish,
    run_status,
    stored_outputs,
)
from labfunctions_operator.reconcile.verdict import SUCCEEDED, Verdict, judge
from labfunctions_operator.settings import Settings


def attempt_verdict(current: Current, now: datetime) -> Verdict | None:
    """Say how the last attempt ended: its own words, corrected by what is known from outside."""
    if current.job is not None and current.job["spec"].get("suspend"):
        return None
    verdict = judge(current.job, current.pod, now, node_silent=current.node_silent)
    if verdict is None and current.job is None and current.pod is None and current.rows:
        verdict = ended(DISRUPTED, "the Job was deleted before its result was seen", now)
    if verdict is None or verdict.reason == SUCCEEDED:
        return verdict
    if current.stopping:
        return replace(
            verdict,
            reason=current.stopping,
            message=f"{current.stopping}: stopped by the operator",
            failure=Failure(reason=current.stopping),
        )
    if verdict.reason == CANCELLED:
        why = (current.pod and disruption(current.pod)) or "the pod was deleted"
        return replace(verdict, reason=DISRUPTED, message=why, failure=Failure(reason=DISRUPTED))
    return verdict


def conclude(
    run: Run, current: Current, verdict: Verdict, seen: RunObserved, now: datetime
) -> Plan:
    """End the Run with its last attempt, or put on record when the next one follows."""
    if verdict.reason == SUCCEEDED:
        return finish(run, current, verdict, seen.progress, now)
    if verdict.finished is None:
        verdict = replace(verdict, finished=rfc3339(now))
    if current.stopping:
        old = find_condition(run.status.conditions, SUCCEEDED_CONDITION)
        verdict = replace(verdict, message=old.message if old else verdict.message)
    outputs = stored_outputs(current, verdict)
    rows = with_end(current.rows, verdict, outputs)
    resources = current.snapshot.resources if current.snapshot else None
    retry = next_attempt(rows, _retries(current), now, resources=resources)
    if retry is None:
        if why := why_memory_stays(rows, _retries(current), resources):
            verdict = replace(verdict, message=f"{verdict.message}; not tried again: {why}")
        return finish(run, current, verdict, seen.progress, now)
    message = f"attempt {rows[-1].number} failed with {verdict.reason}: {verdict.message}"
    status = run_status(
        run,
        None,
        (RETRYING, f"{message}; {retry.why} at {rfc3339(retry.at)}"),
        now,
        phase="Pending",
        snapshot=current.snapshot,
        attempts=rows,
        outputs=outputs,
        failure=verdict.failure,
        progress=None,
    )
    event = Event(type="Warning", reason=verdict.reason, message=message)
    return Plan(status=status, events=(event,), requeue_after=_until(retry, now))


def after_end(
    run: Run, current: Current, seen: RunObserved, settings: Settings, now: datetime
) -> Plan:
    """Start the next attempt when it is due."""
    resources = current.snapshot.resources if current.snapshot else None
    retry = next_attempt(current.rows, _retries(current), now, resources=resources)
    if retry is None or current.snapshot is None:
        last = current.rows[-1]
        verdict = ended(last.reason or DISRUPTED, "no other attempt follows", now)
        return finish(run, current, verdict, seen.progress, now)
    if retry.at > now:
        return Plan(requeue_after=_until(retry, now))
    snapshot = as_ran(current.snapshot, current.rows).but(
        resources=grown_resources(resources, _retries(current).memory, current.rows[-1:])
    )
    due = rfc3339(retry.at)
    return start_attempt(run, snapshot, retry.number, seen, settings, since=due, now=now)


def _retries(current: Current) -> Retries:
    return (current.snapshot and current.snapshot.retries) or Retries()


def _until(retry: Retry, now: datetime) -> float:
    return max(0.1, (retry.at - now).total_seconds())
