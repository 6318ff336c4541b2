"""What a Run needs next: admission, one attempt after another, and the final word."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from labfunctions_operator.api import labels
from labfunctions_operator.api.conditions import find_condition
from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.run import Failure, Phase, Progress, Run, Snapshot
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.api.workflow import DEFAULT_TIMEOUT_SECONDS, Retries, Workflow
from labfunctions_operator.desired.run_job import NOTEBOOK, Grant, build_run_job
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.admission import Blocked, admit
from labfunctions_operator.reconcile.attempt import Current, find_current, with_end
from labfunctions_operator.reconcile.execution import merge_execution
from labfunctions_operator.reconcile.notify import Outcome, announce, is_pending, with_outcomes
from labfunctions_operator.reconcile.plan import Event, Plan, Ref
from labfunctions_operator.reconcile.pods import (
    PodEvent,
    Waiting,
    disruption,
    is_over,
    refused,
    waiting,
)
from labfunctions_operator.reconcile.record import is_recorded
from labfunctions_operator.reconcile.retry import (
    DISRUPTED,
    Retry,
    grown_resources,
    next_attempt,
)
from labfunctions_operator.reconcile.run_status import (
    CANCELLED,
    SUCCEEDED_CONDITION,
    ended,
    finish,
    recorded,
    run_status,
    seconds_between,
    stored_outputs,
)
from labfunctions_operator.reconcile.source import SourceSnapshot
from labfunctions_operator.reconcile.timing import (
    look_again,
    of_a_lost_node,
    pending_left,
    throttled,
)
from labfunctions_operator.reconcile.verdict import (
    SUCCEEDED,
    Verdict,
    judge,
    notebook_started,
)
from labfunctions_operator.settings import Settings

RETRYING = "Retrying"
# A pod that starts in this time goes from nothing to Running in one write.
START_GRACE = timedelta(seconds=4)
# The runner gives up on a kernel that is not there by then.
KERNEL_PATIENCE = timedelta(seconds=120)
# The runner keeps its own time; the operator steps in where the runner cannot.
TIMEOUT_GRACE = timedelta(seconds=60)

Object = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunObserved:
    """What exists around a Run.

    Attributes:
        workflow: The Workflow it names; InvalidSpec where that cannot be read.
        project: The Project of Workflow or Run.
        source: The project's source as last read, if it was.
        ahead: The live Run of the schedule that comes before this one, if one does.
        node_group: The NodeGroup that Run, Workflow or Project name.
        origin: The Run that this one repeats, if it does.
        refusal: Why the Job gets no pod, in the words of who refuses it.
        jobs: Jobs with the names of its attempts, whoever owns them.
        pods: Pods of those Jobs.
        progress: The courier's last report.
        grant: What the next attempt's courier may do; None while none is due.
        source_pending: Whether the source is being read for the first time.
        event: How far the start of the last pod has come, where that was asked.
        node_silent: Whether the last pod's node is gone, or does not report any more.
        before: How the Workflow's last Run before this one ended.
        outcomes: What became of messages about a Run that has ended, by their place in its status.
    """

    workflow: Workflow | InvalidSpec | None = None
    project: Project | InvalidSpec | None = None
    source: SourceSnapshot | None = None
    ahead: str | None = None
    node_group: NodeGroup | InvalidSpec | None = None
    origin: Run | InvalidSpec | None = None
    refusal: str | None = None
    jobs: Sequence[Object] = field(default=())
    pods: Sequence[Object] = field(default=())
    progress: Progress | None = None
    grant: Grant | None = None
    source_pending: bool = False
    event: PodEvent | None = None
    node_silent: bool = False
    before: Phase | None = None
    outcomes: Mapping[int, Outcome] = field(default_factory=dict)


def reconcile_run(run: Run, seen: RunObserved, settings: Settings, now: datetime) -> Plan:
    """Decide what a Run needs next, from what exists now; never from what happened."""
    if run.is_finished:
        return with_outcomes(run, seen.outcomes, now) if is_pending(run) else _expire(run, now)
    current = replace(
        find_current(run, seen.jobs, seen.pods), event=seen.event, node_silent=seen.node_silent
    )
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
        return _admit(run, seen, settings, now)
    if current.has_ended:
        return _after_end(run, current, seen, settings, now)
    verdict = _verdict(current, now)
    if verdict and _may_still_start(current):
        if current.stopping:
            return Plan(delete=_delete_job(current))
        return _stop(run, current, verdict.reason, verdict.message, now)
    if verdict:
        return _conclude(run, current, verdict, seen, now)
    if current.stopping or current.job is None:
        # A pod whose Job was deleted still has time to end and to store its notebook.
        return Plan(delete=_delete_job(current))
    return _follow(run, current, seen, now)


def _may_still_start(current: Current) -> bool:
    """Whether a pod that was given up would go on trying: its Job has to go first."""
    if current.job is None or current.pod is None or is_over(current.pod):
        return False
    return "deletionTimestamp" not in current.pod["metadata"]


def is_waiting_for_attempt(run: Run) -> bool:
    """Whether the next thing to happen may be a new Job."""
    if not run.status.attempts:
        return True
    condition = find_condition(run.status.conditions, SUCCEEDED_CONDITION)
    return condition is not None and condition.reason == RETRYING


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
    return Plan(delete=(_ref(labels.API_VERSION, "Run", run.metadata.model_dump()),))


def _admit(run: Run, seen: RunObserved, settings: Settings, now: datetime) -> Plan:
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
    return _start(run, admitted, 1, seen, settings, now=now)


def _await_source(run: Run, admitted: Snapshot, seen: RunObserved, now: datetime) -> Plan:
    """Wait for the reading that tells which parameters the notebook takes; it ends either way."""
    created = run.metadata.creation_timestamp or rfc3339(now)
    young = parse_time(created) + START_GRACE - now
    if young > timedelta(0):
        return Plan(requeue_after=young.total_seconds())
    message = f"Project {admitted.project}: reading its source"
    return _block(run, Blocked(reason="SourcePending", message=message), seen, now)


def _start(
    run: Run,
    snapshot: Snapshot,
    number: int,
    seen: RunObserved,
    settings: Settings,
    *,
    now: datetime,
) -> Plan:
    if seen.grant is None:
        return Plan(requeue_after=1.0)
    job = build_run_job(run, snapshot, seen.grant, settings, attempt=number, now=now)
    return Plan(apply=(job,), requeue_after=START_GRACE.total_seconds())


def _block(run: Run, blocked: Blocked, seen: RunObserved, now: datetime) -> Plan:
    """Say which gate is closed, unless the Run can never pass it or has waited too long."""
    workflow = seen.workflow if isinstance(seen.workflow, Workflow) else None
    limit = merge_execution(run, workflow).pending_timeout_seconds
    left = pending_left(run.metadata.creation_timestamp, limit, now)
    if not blocked.final and (left is None or left > 0):
        status = run_status(run, None, (blocked.reason, blocked.message), now, phase=blocked.phase)
        return Plan(status=status, requeue_after=left)
    reason, message = blocked.reason, blocked.message
    if not blocked.final:
        reason, message = "PendingTimedOut", f"not started after {limit} s: {message}"
    verdict = ended(reason, message, now)
    return finish(run, find_current(run, (), ()), verdict, seen.progress, now)


def _follow(run: Run, current: Current, seen: RunObserved, now: datetime) -> Plan:
    assert current.job is not None
    if current.job["spec"].get("suspend"):
        queue = current.snapshot.queue_name if current.snapshot else None
        queued = Waiting(reason="Queued", message=f"waiting in queue {queue}")
        return _wait(run, current, queued, now, phase="Queued")
    why = waiting(current.pod, NOTEBOOK, current.event)
    if current.pod is None and seen.refusal:
        why = refused(seen.refusal)
    if why is not None:
        return _wait(run, current, why, now, phase="Starting")
    return _running(run, current, seen, now)


def _wait(run: Run, current: Current, why: Waiting, now: datetime, *, phase: Phase) -> Plan:
    assert current.job is not None
    created = current.job["metadata"].get("creationTimestamp") or rfc3339(now)
    since = created if len(current.rows) > 1 else run.metadata.creation_timestamp
    limit = current.snapshot.pending_timeout_seconds if current.snapshot else None
    left = pending_left(since, limit, now)
    if left is not None and left <= 0:
        return _stop(
            run, current, "PendingTimedOut", f"not started after {limit} s: {why.message}", now
        )
    young = parse_time(created) + START_GRACE - now
    if why.reason == "Starting" and young > timedelta(0) and not run.status.attempts:
        return Plan(requeue_after=young.total_seconds())
    message = why.message
    old = find_condition(run.status.conditions, SUCCEEDED_CONDITION)
    if old and old.reason == why.reason == "ImagePullFailed":
        message = old.message  # kubelet words the same failure in two ways, in turn
    status = run_status(run, None, (why.reason, message), now, phase=phase, **recorded(current))
    again = [t for t in (left, look_again(why, current)) if t is not None]
    return Plan(status=status, requeue_after=min(again, default=None))


def _running(run: Run, current: Current, seen: RunObserved, now: datetime) -> Plan:
    started = notebook_started(current.pod)
    if started is None:
        return Plan()  # it ended without a start, and its pod is still to follow
    timeout = (current.snapshot and current.snapshot.timeout_seconds) or DEFAULT_TIMEOUT_SECONDS
    left = parse_time(started) + timedelta(seconds=timeout) + TIMEOUT_GRACE - now
    if left <= timedelta(0):
        return _stop(run, current, "TimedOut", f"still running after {timeout} s", now)
    progress, wait = throttled(run, seen.progress, now)
    message = "the notebook is running"
    starting = parse_time(started) + KERNEL_PATIENCE - now
    if progress is None and starting > timedelta(0):
        message = "starting the kernel"
        wait = starting.total_seconds()
    first = current.rows[0].start_time
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


def _stop(run: Run, current: Current, reason: str, message: str, now: datetime) -> Plan:
    """Put on record why an attempt is stopped; its Job is deleted once that is written."""
    rows = [*current.rows[:-1], current.rows[-1].but(reason=reason)]
    known = {**recorded(current), "attempts": rows}
    return Plan(status=run_status(run, None, ("Stopping", message), now, **known))


def _cancel(run: Run, current: Current, seen: RunObserved, now: datetime) -> Plan:
    verdict = _verdict(current, now)
    stopped = verdict is None or verdict.reason == DISRUPTED
    if verdict and not stopped:
        return finish(run, current, verdict, seen.progress, now)
    if current.job is not None and not (verdict and current.pod):
        message = "stopping the notebook and storing it as it is"
        status = run_status(run, None, ("Cancelling", message), now, **recorded(current))
        return Plan(delete=_delete_job(current), status=status)
    if verdict is None and current.pod is not None:
        return Plan()
    known = verdict or Verdict(reason=CANCELLED, message="", finished=rfc3339(now))
    cancelled = replace(
        known,
        reason=CANCELLED,
        message="cancelled by spec.cancel",
        failure=Failure(reason=CANCELLED),
    )
    return finish(run, current, cancelled, seen.progress, now)


def _verdict(current: Current, now: datetime) -> Verdict | None:
    """Say how the last attempt ended: its own words, corrected by what is known from outside."""
    if current.job is not None and current.job["spec"].get("suspend"):
        return None
    verdict = judge(
        current.job,
        current.pod,
        now,
        event=current.event,
        node_silent=current.node_silent,
    )
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


def _conclude(
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
    rows = with_end(current.rows, verdict, stored_outputs(current.outputs, verdict))
    retry = next_attempt(rows, _retries(current), now)
    if retry is None:
        return finish(run, current, verdict, seen.progress, now)
    message = f"attempt {rows[-1].number} failed with {verdict.reason}: {verdict.message}"
    status = run_status(
        run,
        None,
        (RETRYING, f"{message}; {retry.why} at {rfc3339(retry.at)}"),
        now,
        phase="Pending",
        **{**recorded(current), "attempts": rows},
        failure=verdict.failure,
        progress=None,
    )
    event = Event(type="Warning", reason=verdict.reason, message=message)
    return Plan(status=status, events=(event,), requeue_after=_until(retry, now))


def _after_end(
    run: Run, current: Current, seen: RunObserved, settings: Settings, now: datetime
) -> Plan:
    """Start the next attempt when it is due."""
    retry = next_attempt(current.rows, _retries(current), now)
    if retry is None or current.snapshot is None:
        last = current.rows[-1]
        return finish(run, current, ended(last.reason or DISRUPTED, "", now), seen.progress, now)
    if retry.at > now:
        return Plan(requeue_after=_until(retry, now))
    snapshot = current.snapshot.but(
        resources=grown_resources(
            current.snapshot.resources, _retries(current).memory, current.rows[-1:]
        )
    )
    return _start(run, snapshot, retry.number, seen, settings, now=now)


def _retries(current: Current) -> Retries:
    return (current.snapshot and current.snapshot.retries) or Retries()


def _until(retry: Retry, now: datetime) -> float:
    return max(0.1, (retry.at - now).total_seconds())


def _delete_job(current: Current) -> tuple[Ref, ...]:
    if current.job is None or current.job["metadata"].get("deletionTimestamp"):
        return ()
    return (_ref("batch/v1", "Job", current.job["metadata"]),)


def _ref(api_version: str, kind: str, metadata: Mapping[str, Any]) -> Ref:
    return Ref(
        api_version=api_version,
        kind=kind,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
    )
