"""Whether a Workflow has a CronJob, and from when on that has the ticks.

While there is none the ticks are the operator's: until the first image is built, until a Run that
Forbid waits for has ended, and in the moment of a switch. A CronJob runs no tick from before its
creation. So the time of that, which the API server alone says, tells whose a tick is; where both
should think it theirs, it is one Job by its name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from labfunctions_operator.api.labels import REPAIRED_ANNOTATION
from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.run import Run, RunSpec, Snapshot
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.api.types import LocalRef, Metadata
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.desired.cron_job import build_cron_job
from labfunctions_operator.desired.names import SPEC_HASH, spec_hash
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.admission import admit
from labfunctions_operator.reconcile.attempt import is_owned_by
from labfunctions_operator.reconcile.plan import Manifest, Ref
from labfunctions_operator.reconcile.scheduled_run import ScheduledRun, parse_tick
from labfunctions_operator.reconcile.source import SourceSnapshot
from labfunctions_operator.reconcile.timetable import timetable
from labfunctions_operator.settings import Settings

Object = Mapping[str, Any]

# Whoever changes it again and again has it changed for so long.
PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class CronObserved:
    """What there is of a Workflow's CronJob.

    Attributes:
        cron_job: The one with the Workflow's name.
        without_run: Its Jobs of whose name there is no Run.
        over: The names of those Jobs that have ended.
        node_group: The NodeGroup that Workflow or Project name.
        claim: Where couriers ask for what their Job may do.
        settings: The operator's.
    """

    cron_job: Object | None = None
    without_run: Sequence[Object] = ()
    over: frozenset[str] = field(default_factory=frozenset)
    node_group: NodeGroup | InvalidSpec | None = None
    claim: str
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class Handover:
    """What to do about the CronJob.

    Attributes:
        since: Later ticks are the CronJob's; None if all are the operator's.
    """

    apply: tuple[Manifest, ...] = ()
    delete: tuple[Ref, ...] = ()
    since: datetime | None = None


def hand_over(
    workflow: Workflow,
    seen: CronObserved,
    *,
    project: Project | InvalidSpec | None,
    source: SourceSnapshot | None,
    runs: Iterable[ScheduledRun],
    now: datetime,
) -> Handover:
    """Decide about the CronJob from the Workflow as it is now and the Runs of its schedule."""
    existing = seen.cron_job
    if existing and not is_owned_by(existing, workflow.metadata.uid):
        existing = None  # of an earlier Workflow of this name; or a user's, and never touched
    if existing and existing["metadata"].get("deletionTimestamp"):
        return Handover()
    if not _is_wanted(workflow) or (existing and _is_another(existing, workflow)):
        return Handover(delete=_without_its_jobs(existing) if existing else ())
    if existing is None and _must_wait(workflow, runs):
        return Handover()
    since = parse_time(existing["metadata"]["creationTimestamp"]) if existing else None
    admitted = admit(
        _next_run(workflow),
        workflow=workflow,
        project=project,
        source=source,
        node_group=seen.node_group,
    )
    if not isinstance(admitted, Snapshot):
        return Handover(since=since)
    manifest: Manifest = build_cron_job(workflow, admitted, seen.claim, seen.settings)
    if existing:
        manifest = _with_repair(manifest, existing, now)
    return Handover(apply=(manifest,), since=since)


def _is_wanted(workflow: Workflow) -> bool:
    """Whether it is to have one; not while suspended, as a CronJob makes up for the last tick."""
    spec, created = workflow.spec, workflow.metadata.creation_timestamp
    if not created:
        return False
    if spec.scheduler != "CronJob" or not spec.schedule or spec.suspend:
        return False
    try:
        timetable(spec, parse_time(created))
    except InvalidSpec:
        return False
    return True


def _is_another(cron_job: Object, workflow: Workflow) -> bool:
    """Whether its times were edited: a CronJob would run the last tick of the new ones at once."""
    spec = cron_job["spec"]
    zone = workflow.spec.time_zone or "Etc/UTC"
    return (spec.get("schedule"), spec.get("timeZone")) != (workflow.spec.schedule, zone)


def _with_repair(manifest: Manifest, existing: Object, now: datetime) -> Manifest:
    """Have a CronJob that somebody has changed applied again, by a note of its generation.

    Once for each change and seldom, as it may be an admission webhook or another controller that
    will not have it otherwise.
    """
    meta = existing["metadata"]
    notes = meta.get("annotations") or {}
    as_before = _noted(manifest, notes.get(REPAIRED_ANNOTATION))
    if spec_hash(as_before) != notes.get(SPEC_HASH) or _holds(existing["spec"], manifest["spec"]):
        return as_before
    generation = str(meta.get("generation"))
    repaired, _, time = str(notes.get(REPAIRED_ANNOTATION)).partition(" ")
    last = parse_tick(time)
    if last and (repaired == generation or now - last < PATIENCE):
        return as_before
    return _noted(manifest, f"{generation} {rfc3339(now)}")


def _noted(manifest: Manifest, note: str | None) -> Manifest:
    if note is None:
        return manifest
    meta = manifest["metadata"]
    annotations = {**(meta.get("annotations") or {}), REPAIRED_ANNOTATION: note}
    return {**manifest, "metadata": {**meta, "annotations": annotations}}


def _holds(stored: Any, wanted: Any) -> bool:
    """Whether what is stored has all that is wanted; the API server adds defaults to that."""
    if not wanted and not stored:
        return True
    if isinstance(wanted, Mapping) and isinstance(stored, Mapping):
        return all(_holds(stored.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(stored, list):
        return len(stored) == len(wanted) and all(map(_holds, stored, wanted))
    return bool(stored == wanted)


def _must_wait(workflow: Workflow, runs: Iterable[ScheduledRun]) -> bool:
    """Whether a Run is live that a CronJob would know nothing of, and start another beside it."""
    if workflow.spec.concurrency_policy != "Forbid":
        return False
    return any(run.is_live and run.owner == workflow.metadata.uid for run in runs)


def _next_run(workflow: Workflow) -> Run:
    meta = workflow.metadata
    return Run(
        metadata=Metadata(name=meta.name, namespace=meta.namespace, uid=""),
        spec=RunSpec(workflow_ref=LocalRef(name=meta.name)),
    )


def _without_its_jobs(cron_job: Object) -> tuple[Ref, ...]:
    return (Ref.to("batch/v1", "CronJob", cron_job["metadata"], orphan=True),)
