"""Which object concerns which other: whom the engine wakes when something has changed."""

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from labfunctions_operator.api import labels
from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.controllers.caches import BY_PROJECT, BY_WORKFLOW
from labfunctions_operator.controllers.world import World, key_of
from labfunctions_operator.reconcile.plan import Key
from labfunctions_operator.reconcile.scheduled_run import ScheduledRun, scheduled_run

Object = Mapping[str, Any]

_NO_GROUP = ("NodeGroupNotFound", "NodeGroupInvalid")


class Dependents:
    """Finds by the caches alone whom a change concerns.

    Args:
        world: What exists.
        autoscaling: Whether NodeGroups count Runs.
    """

    def __init__(self, world: World, *, autoscaling: bool = False) -> None:
        self._world = world
        self._autoscaling = autoscaling

    def concerned(self, obj: Object) -> list[Key]:
        """Return the keys to reconcile when an object has changed or vanished."""
        kind = obj["kind"]
        if kind == "Node":
            return self._world.groups_with(obj)
        groups = self._groups_of(obj) if self._autoscaling else []
        if kind in ("Job", "Pod", "CronJob"):
            return [*(_owner_of_child(obj) or self._of_cron_job(obj)), *groups]
        keys = [key_of(obj)]
        if kind == "Project":
            keys += self.of_project(keys[0])
        elif kind == "Workflow":
            keys += [*self._runs(BY_WORKFLOW, keys[0]), *self._backfills(keys[0])]
        elif kind == "Run":
            keys += self._of_run(obj)
        elif kind == "NodeGroup":
            name = obj["metadata"]["name"]
            keys += [
                *self._waiting_for(name),
                *self._workflows_told(name),
                *self._cron_jobs_on(name),
            ]
        return [*keys, *groups]

    def _groups_of(self, obj: Object) -> list[Key]:
        """Return the NodeGroups that a Run, its pod, a Workflow or a Project's image counts for."""
        kind = obj["kind"]
        names: Iterable[str | None] = ()
        if kind in ("Job", "Pod"):
            names = [(obj["metadata"].get("labels") or {}).get(labels.NODE_GROUP)]
        elif kind == "Run":
            names = [self._world.group_of(obj)]
        elif kind == "Workflow":
            names = [self._world.group_named(obj)]
        elif kind == "Project":
            meta = obj["metadata"]
            workflows = self._world.caches["Workflow"].by_index(
                BY_PROJECT, meta["name"], meta["namespace"]
            )
            names = sorted({name for obj in workflows if (name := self._world.group_named(obj))})
        return [Key("NodeGroup", "", name) for name in names if name]

    def _waiting_for(self, group: str) -> list[Key]:
        """Return the Runs that were told that a NodeGroup is not there."""
        return [
            key_of(run)
            for run in self._world.live_runs()
            if _reason(run, "Succeeded") in _NO_GROUP and self._world.group_of(run) == group
        ]

    def _workflows_told(self, group: str) -> list[Key]:
        """Return the Workflows to tell that a NodeGroup is there, or is there no more."""
        is_there = isinstance(self._world.node_group(group), NodeGroup)
        return [
            key_of(workflow)
            for workflow in self._world.workflows_of(group)
            if not is_there or _reason(workflow, "Ready") in _NO_GROUP
        ]

    def _cron_jobs_on(self, group: str) -> list[Key]:
        """Return the Workflows whose CronJobs send their pods to a NodeGroup."""
        return [
            key
            for cron_job in self._world.caches["CronJob"].objects()
            if (cron_job["metadata"].get("labels") or {}).get(labels.NODE_GROUP) == group
            for key in self._of_cron_job(cron_job)
        ]

    def _backfills(self, workflow: Key) -> list[Key]:
        """Return the Backfills of a Workflow, and one that must not have its name."""
        cache = self._world.caches["Backfill"]
        found = cache.by_index(BY_WORKFLOW, workflow.name, workflow.namespace)
        namesake = cache.get(workflow.namespace, workflow.name)
        return [key_of(obj) for obj in (*found, *filter(None, [namesake]))]

    def _of_run(self, obj: Object) -> list[Key]:
        """Return who made a Run, and whom it concerns that it has gone on or gone."""
        if run := scheduled_run(obj):
            return self._of_schedule(obj, run)
        # By its name: that of somebody else's Run keeps a Backfill from making its own.
        key = key_of(obj)
        maker = Key("Backfill", key.namespace, key.name.rpartition("-")[0])
        return [maker] if self._world.get(maker) else []

    def _of_cron_job(self, obj: Object) -> list[Key]:
        """Return the Run that has the name of a CronJob's Job, and its Workflow until it exists."""
        meta = obj["metadata"]
        namespace, names = meta.get("namespace", ""), meta.get("labels", {})
        if names.get(labels.COMPONENT) != labels.COMPONENT_RUN or labels.WORKFLOW not in names:
            return []
        workflow = Key("Workflow", namespace, names[labels.WORKFLOW])
        if obj["kind"] == "CronJob":
            return [workflow]
        name = names.get(labels.JOB_NAME, "") if obj["kind"] == "Pod" else meta["name"]
        run = Key("Run", namespace, name)
        return [run] if self._world.get(run) else [run, workflow]

    def _of_schedule(self, obj: Object, run: ScheduledRun) -> list[Key]:
        """Return the Workflow that made a Run, and the Run that may follow now."""
        keys = [Key("Workflow", run.namespace, run.maker)]
        if run.is_live and self._world.get(key_of(obj)) is not None:
            return keys
        queue = self._world.queue(run)
        following = [
            min(queue, key=attrgetter("tick"), default=None),
            min((r for r in queue if r.tick > run.tick), key=attrgetter("tick"), default=None),
        ]
        names = {r.name for r in following if r}
        return [*keys, *(Key("Run", run.namespace, name) for name in sorted(names))]

    def of_project(self, project: Key) -> list[Key]:
        """Return the Workflows of a Project, and the live Runs of either."""
        workflows = [
            key_of(obj)
            for obj in self._world.caches["Workflow"].by_index(
                BY_PROJECT, project.name, project.namespace
            )
        ]
        runs = [run for key in workflows for run in self._runs(BY_WORKFLOW, key)]
        return [*workflows, *runs, *self._runs(BY_PROJECT, project)]

    def _runs(self, index: str, key: Key) -> list[Key]:
        found = self._world.caches["Run"].by_index(index, key.name, key.namespace)
        return [key_of(obj) for obj in found]


def _owner_of_child(obj: Object) -> list[Key]:
    namespace, names = obj["metadata"].get("namespace", ""), obj["metadata"].get("labels", {})
    if names.get(labels.COMPONENT) == labels.COMPONENT_RUN and labels.RUN in names:
        return [Key("Run", namespace, names[labels.RUN])]
    if names.get(labels.COMPONENT) == labels.COMPONENT_BUILD and labels.PROJECT in names:
        return [Key("Project", namespace, names[labels.PROJECT])]
    return []


def _reason(obj: Object, type: str) -> str:
    conditions = (obj.get("status") or {}).get("conditions") or []
    return next((str(c.get("reason")) for c in conditions if c.get("type") == type), "")
