"""Jobs that a Workflow's CronJob made, seen as the first attempts of Runs.

Such a Job carries no name of a Run: it has the Run's own name, as the tick gives one name to both.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from labfunctions_operator.api import labels
from labfunctions_operator.api.run import Outputs, Run
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.desired.names import owner_reference
from labfunctions_operator.desired.scheduled_run import build_scheduled_run, tick_of_name
from labfunctions_operator.reconcile.plan import Manifest, Ref
from labfunctions_operator.reconcile.scheduled_run import ScheduledRun, scheduled_run

Object = Mapping[str, Any]


def ticking_workflow(job: Object) -> str | None:
    """Return the name of the Workflow whose CronJob made a Job for a tick, None for any other Job.

    A Job whose CronJob was deleted from around it has no owner any more.
    """
    meta = job["metadata"]
    names = meta.get("labels") or {}
    workflow = names.get(labels.WORKFLOW)
    if names.get(labels.COMPONENT) != labels.COMPONENT_RUN or labels.RUN in names:
        return None
    if not workflow or labels.PROJECT not in names:
        return None
    owner = _controller(meta)
    if owner and (owner.get("kind"), owner.get("name")) != ("CronJob", workflow):
        return None
    return str(workflow) if tick_of_name(workflow, meta["name"]) else None


def is_left_behind(job: Object) -> bool:
    """Whether nothing deletes a Job when its Workflow goes."""
    return _controller(job["metadata"]) is None


def as_attempt(job: Object, run: Run, outputs: Outputs) -> Object:
    """Return a CronJob's Job as the one that the operator would have made for a Run."""
    meta = job["metadata"]
    annotations = dict(meta.get("annotations") or {})
    annotations[labels.OUTPUTS_ANNOTATION] = json.dumps(outputs.wire())
    tick = tick_of_name(meta["labels"][labels.WORKFLOW], meta["name"])
    try:
        snapshot = json.loads(annotations[labels.SNAPSHOT_ANNOTATION])
        scheduled_at = rfc3339(tick) if tick else None
        annotations[labels.SNAPSHOT_ANNOTATION] = json.dumps(
            {**snapshot, "scheduledAt": scheduled_at}
        )
    except (KeyError, TypeError, ValueError):
        pass  # someone has removed it: the Run goes on without
    return {
        **job,
        "metadata": {
            **meta,
            "labels": {**meta["labels"], labels.RUN: run.metadata.name},
            "annotations": annotations,
            "ownerReferences": [
                *(meta.get("ownerReferences") or ()),
                {**owner_reference("Run", run.metadata), "controller": False},
            ],
        },
    }


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """What to do about a Workflow's Jobs without Runs.

    Attributes:
        create: The Runs that they become.
        runs: The same, as the schedule sees them.
        delete: Jobs whose Runs were deleted.
    """

    create: tuple[Manifest, ...] = ()
    runs: tuple[ScheduledRun, ...] = ()
    delete: tuple[Ref, ...] = ()


def adopt(workflow: Workflow, jobs: Iterable[Object], over: Collection[str]) -> Adoption:
    """Tell the Jobs that have no Run yet from those that have none any more.

    Args:
        workflow: As stored: its status says which Runs there were.
        jobs: Those of its CronJob of whose name there is no Run.
        over: The names of those that have ended.
    """
    active = {ref.name for ref in workflow.status.active or ()}
    record = workflow.status.schedule
    since = parse_time(record.since) if record else None
    create: list[Manifest] = []
    delete: list[Ref] = []
    for job in sorted(jobs, key=lambda job: str(job["metadata"]["name"])):
        name = job["metadata"]["name"]
        tick = tick_of_name(workflow.metadata.name, name)
        if tick is None or job["metadata"].get("deletionTimestamp"):
            continue
        if name in active or (name in over and _is_settled(tick, since)):
            delete.append(job_ref(job))
        else:
            create.append(build_scheduled_run(workflow, tick))
    runs = [scheduled_run({**m, "metadata": {**m["metadata"], "uid": ""}}) for m in create]
    return Adoption(
        create=tuple(create), runs=tuple(run for run in runs if run), delete=tuple(delete)
    )


def job_ref(job: Object) -> Ref:
    """Name a Job, and no other one of its name, for deletion."""
    return Ref.to("batch/v1", "Job", job["metadata"])


def _is_settled(tick: datetime, since: datetime | None) -> bool:
    return since is not None and tick <= since


def _controller(meta: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
