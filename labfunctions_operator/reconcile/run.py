"""What a Run needs next."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from labfunctions_operator.api import labels
from labfunctions_operator.api.conditions import set_condition
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.run import (
    Attempt,
    Failure,
    Outputs,
    Phase,
    Progress,
    Run,
    RunStatus,
    Snapshot,
)
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.desired.run_job import Grant, build_run_job
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.admission import Blocked, admit
from labfunctions_operator.reconcile.plan import Event, Plan, Ref
from labfunctions_operator.reconcile.source import SourceSnapshot
from labfunctions_operator.reconcile.verdict import (
    SUCCEEDED,
    Verdict,
    judge,
    notebook_started,
    waiting,
)
from labfunctions_operator.settings import Settings

SUCCEEDED_CONDITION = "Succeeded"
# A pod that starts in this time goes from nothing to Running in one write.
START_GRACE = timedelta(seconds=4)
PROGRESS_INTERVAL = timedelta(seconds=60)
CANCELLED = "Cancelled"

Object = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunObserved:
    """What exists around a Run.

    Attributes:
        workflow: The Workflow it names; InvalidSpec where that cannot be read.
        project: The Project of Workflow or Run.
        source: The project's source as last read, if it was.
        jobs: Jobs with the names of its attempts, whoever owns them.
        pods: Pods of those Jobs.
        progress: The courier's last report.
        grant: What the next attempt's courier may do; None while a Job exists.
    """

    workflow: Workflow | InvalidSpec | None = None
    project: Project | InvalidSpec | None = None
    source: SourceSnapshot | None = None
    jobs: Sequence[Object] = field(default=())
    pods: Sequence[Object] = field(default=())
    progress: Progress | None = None
    grant: Grant | None = None


def reconcile_run(run: Run, seen: RunObserved, settings: Settings, now: datetime) -> Plan:
    """Decide what a Run needs next, from what exists now; never from what happened."""
    if run.is_finished:
        return _expire(run, now)
    job = _own_job(run, seen)
    pod = _newest(p for p in seen.pods if _is_owned_by(p, job) or job is None)
    if run.spec.cancel:
        return _cancel(run, seen, job, pod, now)
    if job is None:
        if run.status.attempts:
            return _finish(run, _job_vanished(now), None, seen, now)
        return _admit(run, seen, settings, now)
    verdict = judge(job, pod, now)
    if verdict:
        return _finish(run, verdict, pod, seen, now, job=job)
    return _follow(run, job, pod, seen, now)


def _expire(run: Run, now: datetime) -> Plan:
    ttl = run.spec.ttl_seconds_after_finished
    if ttl is None or not run.status.completion_time:
        return Plan()
    left = parse_time(run.status.completion_time) + timedelta(seconds=ttl) - now
    if left > timedelta(0):
        return Plan(requeue_after=left.total_seconds())
    me = run.metadata
    return Plan(
        delete=(
            Ref(
                api_version=labels.API_VERSION,
                kind="Run",
                namespace=me.namespace,
                name=me.name,
                uid=me.uid,
            ),
        )
    )


def _admit(run: Run, seen: RunObserved, settings: Settings, now: datetime) -> Plan:
    if seen.jobs:
        return _block(
            run,
            Blocked(reason="Waiting", message="a Job of a deleted Run of this name still ends"),
            now,
        )
    admitted = admit(run, workflow=seen.workflow, project=seen.project, source=seen.source)
    if isinstance(admitted, Blocked):
        return _block(run, admitted, now)
    if seen.grant is None:
        return Plan(requeue_after=1.0)
    job = build_run_job(
        run,
        admitted.snapshot,
        admitted.execution,
        seen.grant,
        settings,
        attempt=1,
        user=admitted.user,
        now=now,
    )
    return Plan(apply=(job,), requeue_after=START_GRACE.total_seconds())


def _block(run: Run, blocked: Blocked, now: datetime) -> Plan:
    if not blocked.final:
        status = _status(run, None, blocked.reason, blocked.message, now, phase=blocked.phase)
        return Plan(status=status.wire())
    verdict = Verdict(
        reason=blocked.reason,
        message=blocked.message,
        failure=Failure(reason=blocked.reason),
        finished=rfc3339(now),
    )
    return _finish(run, verdict, None, RunObserved(), now)


def _follow(run: Run, job: Object, pod: Object | None, seen: RunObserved, now: datetime) -> Plan:
    why = waiting(pod)
    if why is None:
        progress, wait = _throttled(run, seen.progress, now)
        started = notebook_started(pod)
        status = _status(
            run,
            None,
            "Running",
            "the notebook is running",
            now,
            phase="Running",
            **_recorded(run, job, pod),
            start_time=started,
            queued_seconds=_seconds(run.metadata.creation_timestamp, started),
            progress=progress,
        )
        return Plan(status=status.wire(), requeue_after=wait)
    young = parse_time(job["metadata"].get("creationTimestamp") or rfc3339(now)) + START_GRACE
    if why.reason == "Starting" and not run.status.attempts and now < young:
        return Plan(requeue_after=(young - now).total_seconds())
    message = why.message
    old = next((c for c in run.status.conditions if c.type == SUCCEEDED_CONDITION), None)
    if old and old.reason == why.reason == "ImagePullFailed":
        message = old.message  # kubelet words the same failure in two ways, in turn
    status = _status(
        run, None, why.reason, message, now, phase="Starting", **_recorded(run, job, pod)
    )
    return Plan(status=status.wire(), requeue_after=30.0 if why.reason != "Starting" else None)


def _throttled(
    run: Run, reported: Progress | None, now: datetime
) -> tuple[Progress | None, float | None]:
    """Keep progress writes at one a minute: what to show now, and when to look again."""
    shown = run.status.progress
    if reported is None or (shown and shown.but(time=None) == reported.but(time=None)):
        return shown, None
    if shown and shown.time:
        wait = parse_time(shown.time) + PROGRESS_INTERVAL - now
        if wait > timedelta(0):
            return shown, wait.total_seconds()
    return reported.but(time=rfc3339(now)), None


def _cancel(
    run: Run, seen: RunObserved, job: Object | None, pod: Object | None, now: datetime
) -> Plan:
    verdict = judge(job, pod, now)
    if verdict and verdict.reason != "Disrupted":
        return _finish(run, verdict, pod, seen, now, job=job)
    if job and not job["metadata"].get("deletionTimestamp"):
        meta = job["metadata"]
        ref = Ref(
            api_version="batch/v1",
            kind="Job",
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
        )
        status = _status(
            run,
            None,
            "Cancelling",
            "stopping the notebook and storing it as it is",
            now,
            **_recorded(run, job, pod),
        )
        return Plan(delete=(ref,), status=status.wire())
    if pod is not None:
        return Plan()
    cancelled = Verdict(
        reason=CANCELLED,
        message="cancelled by spec.cancel",
        failure=Failure(reason=CANCELLED),
        finished=rfc3339(now),
    )
    return _finish(run, cancelled, None, seen, now)


def _job_vanished(now: datetime) -> Verdict:
    return Verdict(
        reason="Disrupted",
        message="the Job was deleted before its result was seen",
        failure=Failure(reason="Disrupted"),
        finished=rfc3339(now),
    )


def _finish(
    run: Run,
    verdict: Verdict,
    pod: Object | None,
    seen: RunObserved,
    now: datetime,
    *,
    job: Object | None = None,
) -> Plan:
    succeeded = verdict.reason == SUCCEEDED
    started = verdict.started or run.status.start_time
    finished = verdict.finished or rfc3339(now)
    recorded = _recorded(run, job, pod)
    if attempts := recorded.get("attempts"):
        last = attempts[-1].but(finish_time=finished, reason=verdict.reason)
        recorded["attempts"] = [*attempts[:-1], last]
    if outputs := recorded.get("outputs"):
        recorded["outputs"] = _stored(outputs, verdict)
    phase: Phase = "Failed"
    if succeeded or verdict.reason == CANCELLED:
        phase = "Succeeded" if succeeded else "Cancelled"
    status = _status(
        run,
        succeeded,
        verdict.reason,
        verdict.message,
        now,
        phase=phase,
        **recorded,
        start_time=started,
        completion_time=finished,
        queued_seconds=_seconds(run.metadata.creation_timestamp, started),
        duration_seconds=_seconds(started, finished),
        progress=verdict.progress or seen.progress or run.status.progress,
        failure=verdict.failure,
    )
    event = Event(type="Warning", reason=verdict.reason, message=verdict.message)
    return Plan(status=status.wire(), events=() if succeeded else (event,))


def _stored(outputs: Outputs, verdict: Verdict) -> Outputs | None:
    """Name only what lies in the store; without a courier's word, all that may."""
    if not verdict.stored:
        return outputs if verdict.reason in (CANCELLED, "Disrupted") else None
    return outputs.but(
        notebook=outputs.notebook if "notebook.ipynb" in verdict.stored else None,
        html=outputs.html if "notebook.html" in verdict.stored else None,
        result=outputs.result if "result.json" in verdict.stored else None,
    )


def _recorded(run: Run, job: Object | None, pod: Object | None) -> dict[str, Any]:
    """Collect what the Job was started with, or what is known of it from before."""
    if job is None:
        known = run.status
        return {
            "snapshot": known.snapshot,
            "attempts": known.attempts,
            "outputs": known.outputs,
        }
    annotations = job["metadata"].get("annotations", {})
    number = int(job["metadata"].get("labels", {}).get(labels.ATTEMPT, 1))
    attempt = Attempt(
        number=number,
        job=job["metadata"]["name"],
        pod=pod["metadata"]["name"] if pod else None,
        node=pod.get("spec", {}).get("nodeName") if pod else None,
        start_time=notebook_started(pod),
    )
    return {
        "snapshot": Snapshot.model_validate(json.loads(annotations[labels.SNAPSHOT_ANNOTATION])),
        "outputs": Outputs.model_validate(json.loads(annotations[labels.OUTPUTS_ANNOTATION])),
        "attempts": [*(a for a in run.status.attempts if a.number < number), attempt],
    }


def _status(
    run: Run,
    succeeded: bool | None,
    reason: str,
    message: str,
    now: datetime,
    **changes: Any,
) -> RunStatus:
    conditions = set_condition(
        run.status.conditions,
        type=SUCCEEDED_CONDITION,
        status=succeeded,
        reason=reason,
        message=message,
        generation=run.metadata.generation,
        now=now,
    )
    return run.status.but(
        conditions=conditions, observed_generation=run.metadata.generation, **changes
    )


def _own_job(run: Run, seen: RunObserved) -> Object | None:
    return _newest(
        job
        for job in seen.jobs
        if any(o.get("uid") == run.metadata.uid for o in job["metadata"].get("ownerReferences", []))
    )


def _is_owned_by(pod: Object, job: Object | None) -> bool:
    owners = pod["metadata"].get("ownerReferences", [])
    return job is not None and any(o.get("uid") == job["metadata"]["uid"] for o in owners)


def _newest(objects: Any) -> Object | None:
    return max(objects, key=lambda o: o["metadata"].get("creationTimestamp") or "", default=None)


def _seconds(start: str | None, end: str | None) -> int | None:
    if not start or not end:
        return None
    return max(0, round((parse_time(end) - parse_time(start)).total_seconds()))
