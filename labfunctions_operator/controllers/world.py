"""Everything the operator holds of the cluster, and which object concerns which other."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from labfunctions_operator.api import labels
from labfunctions_operator.api.backfill import Backfill
from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.run import FINAL_PHASES, Phase, Run
from labfunctions_operator.api.types import Model
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.kube.cache import Cache, Indexer
from labfunctions_operator.reconcile.adoption import ticking_workflow
from labfunctions_operator.reconcile.ledger import is_counted
from labfunctions_operator.reconcile.past import PastRun, read_run, tick_key
from labfunctions_operator.reconcile.plan import Key
from labfunctions_operator.reconcile.scheduled_run import (
    ScheduledRun,
    scheduled_run,
    scheduling_workflow,
)

Object = Mapping[str, Any]
Held = dict[str, Any]
M = TypeVar("M", bound=Model)

_BY_PROJECT = "project"
_BY_WORKFLOW = "workflow"
_BY_NODE = "node"
_LIVE = "live"
_BY_SCHEDULE = "schedule"
_QUEUE = "queue"
_ENDED = "ended"
_NO_GROUP = ("NodeGroupNotFound", "NodeGroupInvalid")
_BY_TICK = "tick"


class WatchedByKopf(Cache):
    """A cache of what kopf watches: it tells of each deletion, but not up to which version.

    So the answer to a write of ours which arrives after the object's deletion is known by its uid.
    """

    def __init__(self, indexers: Mapping[str, Indexer] | None = None) -> None:
        super().__init__(indexers)
        self._deleted: set[str] = set()

    def replace(self, items: Iterable[Held], resource_version: str) -> list[Held]:
        """Take over a list of all objects, which supersedes what is known of deletions."""
        self._deleted.clear()
        return super().replace(items, resource_version)

    def upsert(self, obj: Held) -> bool:
        """Take in an object unless it has been deleted."""
        return obj["metadata"]["uid"] not in self._deleted and super().upsert(obj)

    def remove(self, obj: Object) -> bool:
        """Forget an object for good."""
        self._deleted.add(obj["metadata"]["uid"])
        return super().remove(obj)


class World:
    """The caches by kind, and look-ups across them."""

    def __init__(self, *, autoscaling: bool = False) -> None:
        self._autoscaling = autoscaling
        self.caches: dict[str, Cache] = {
            "Project": WatchedByKopf(),
            "Workflow": WatchedByKopf({_BY_PROJECT: lambda obj: _ref(obj, "projectRef")}),
            "Backfill": WatchedByKopf({_BY_WORKFLOW: _unfinished}),
            "Run": WatchedByKopf(
                {
                    _BY_PROJECT: lambda obj: _ref(obj, "projectRef") if _live(obj) else (),
                    _BY_WORKFLOW: lambda obj: _ref(obj, "workflowRef") if _live(obj) else (),
                    _LIVE: lambda obj: ["live"] if _live(obj) else [],
                    _BY_SCHEDULE: _schedule,
                    _QUEUE: lambda obj: _schedule(obj) if _live(obj) else (),
                    _ENDED: _ended,
                    _BY_NODE: _ended_on,
                    _BY_TICK: _by_tick,
                }
            ),
            "NodeGroup": WatchedByKopf(),
            "Job": Cache({_BY_SCHEDULE: lambda obj: filter(None, [ticking_workflow(obj)])}),
            "CronJob": Cache(),
            "Pod": Cache({_BY_NODE: _bound_to}),
            "Node": Cache(),
        }

    def get(self, key: Key) -> Object | None:
        """Return the object that a key names, if it exists."""
        return self.caches[key.kind].get(key.namespace, key.name)

    def project(self, namespace: str, name: str) -> Project | InvalidSpec | None:
        """Return a Project as others see it."""
        return self._read(Project, "Project", namespace, name)

    def workflow(self, namespace: str, name: str) -> Workflow | InvalidSpec | None:
        """Return a Workflow as others see it."""
        return self._read(Workflow, "Workflow", namespace, name)

    def run(self, namespace: str, name: str) -> Run | InvalidSpec | None:
        """Return a Run as others see it."""
        return self._read(Run, "Run", namespace, name)

    def node_group(self, name: str) -> NodeGroup | InvalidSpec | None:
        """Return a NodeGroup as others see it."""
        return self._read(NodeGroup, "NodeGroup", "", name)

    def nodes(self, wanted: Mapping[str, str]) -> list[Object]:
        """Return the nodes with all of these labels."""
        (label, value), *rest = wanted.items()
        return [
            node
            for node in self.caches["Node"].by_label(label, value)
            if all(node["metadata"]["labels"].get(key) == word for key, word in rest)
        ]

    def pods_on(self, node: str) -> list[Object]:
        """Return the pods of ours that are bound to a node."""
        return list(self.caches["Pod"].by_index(_BY_NODE, node))

    def last_end_on(self, node: str) -> str | None:
        """Return when the last of the Runs on a node ended whose records are still there."""
        runs = self.caches["Run"].by_index(_BY_NODE, node)
        ends = (
            attempt.get("finishTime")
            for run in runs
            for attempt in run["status"]["attempts"]
            if attempt.get("node") == node
        )
        return max((str(end) for end in ends if end), default=None)

    def workflows_of(self, group: str) -> list[Object]:
        """Return the Workflows whose Runs go to a NodeGroup."""
        return [obj for obj in self.caches["Workflow"].objects() if self._group_named(obj) == group]

    def group_of(self, run: Object) -> str | None:
        """Return the name of the NodeGroup that a Run goes to, if it goes to one."""
        snapshot = (run.get("status") or {}).get("snapshot")
        if snapshot:
            return _text(snapshot, "nodeGroup")
        if named := _text(run.get("spec") or {}, "nodeGroup"):
            return named
        for name in _ref(run, "workflowRef"):
            workflow = self.caches["Workflow"].get(run["metadata"]["namespace"], name)
            return self._group_named(workflow) if workflow else None
        return self._group_named(run)

    def _group_named(self, obj: Object) -> str | None:
        """Return the NodeGroup that a Workflow, or a Run without one, or its Project names."""
        if named := _text(obj.get("spec") or {}, "nodeGroup"):
            return named
        for name in _ref(obj, "projectRef"):
            project = self.caches["Project"].get(obj["metadata"]["namespace"], name)
            return _text((project or {}).get("spec", {}).get("defaults") or {}, "nodeGroup")
        return None

    def labelled(self, kind: str, label: str, value: str, namespace: str) -> list[Object]:
        """Return children by one of our labels."""
        return list(self.caches[kind].by_label(label, value, namespace))

    def cron_made(self, workflow: Key) -> list[Object]:
        """Return the Jobs that the CronJob of a Workflow has made."""
        return list(self.caches["Job"].by_index(_BY_SCHEDULE, workflow.name, workflow.namespace))

    def live_runs(self) -> list[Object]:
        """Return the Runs that have not ended."""
        return list(self.caches["Run"].by_index(_LIVE, "live"))

    def scheduled_runs(self, namespace: str, workflow: str) -> list[ScheduledRun]:
        """Return the Runs that the schedules of Workflows of that name have made."""
        return self._scheduled(_BY_SCHEDULE, namespace, workflow)

    def _scheduled(self, index: str, namespace: str, workflow: str) -> list[ScheduledRun]:
        found = self.caches["Run"].by_index(index, workflow, namespace)
        return [run for obj in found if (run := scheduled_run(obj))]

    def ahead(self, obj: Object) -> str | None:
        """Return the name of the live Run that comes just before a scheduled one, if any does."""
        run = scheduled_run(obj)
        if run is None:
            return None
        before = [r for r in self._queue(run) if r.tick < run.tick]
        return max(before, key=_tick).name if before else None

    def last_end(self, namespace: str, workflow: str) -> Phase | None:
        """Return how the last Run of a Workflow ended, unless by being cancelled."""
        ends = [
            (str(obj["status"].get("completionTime") or ""), obj["status"]["phase"])
            for obj in self.caches["Run"].by_index(_ENDED, workflow, namespace)
            if obj["status"]["phase"] in ("Succeeded", "Failed")
        ]
        return max(ends)[1] if ends else None

    def is_awaited(self, obj: Object) -> bool:
        """Whether the schedule or Backfill that made an ended Run has still to count it."""
        return self._awaits(Workflow, "Workflow", obj) or self._awaits(Backfill, "Backfill", obj)

    def _awaits(self, model: type[Workflow] | type[Backfill], kind: str, obj: Object) -> bool:
        run = scheduled_run(obj, kind)
        maker = self.caches[kind].get(run.namespace, run.maker) if run else None
        if run is None or maker is None or maker["metadata"]["uid"] != run.owner:
            return False
        found = self._read(model, kind, run.namespace, run.maker)
        # One that cannot be read counts again once it is mended.
        return not (isinstance(found, Workflow | Backfill) and is_counted(run, found.status))

    def past_runs(self, namespace: str, workflow: str, minute: int) -> list[PastRun]:
        """Return the Runs that exist of one tick of a Workflow, whoever made them."""
        found = self.caches["Run"].by_index(_BY_TICK, f"{workflow}/{minute}", namespace)
        return [read_run(obj) for obj in found]

    def all_keys(self) -> list[Key]:
        """Return the keys of all objects of our kinds; what has dependents comes first."""
        return [
            _key(kind, obj)
            for kind in ("NodeGroup", "Project", "Workflow", "Backfill", "Run")
            for obj in self.caches[kind].objects()
        ]

    def concerned(self, obj: Object) -> list[Key]:
        """Return the keys to reconcile when an object has changed or vanished."""
        kind = obj["kind"]
        if kind == "Node":
            return self._groups_with(obj)
        groups = self._groups_of(obj) if self._autoscaling else []
        if kind in ("Job", "Pod", "CronJob"):
            return [*(_owner_of_child(obj) or self._of_cron_job(obj)), *groups]
        keys = [_key(kind, obj)]
        if kind == "Project":
            keys += self.dependents(keys[0])
        elif kind == "Workflow":
            keys += [*self._runs(_BY_WORKFLOW, keys[0]), *self._backfills(keys[0])]
        elif kind == "Run":
            keys += self._of_run(obj)
        elif kind == "NodeGroup":
            name = obj["metadata"]["name"]
            keys += [*self._waiting_for(name), *self._cron_jobs_on(name)]
        return [*keys, *groups]

    def _groups_with(self, node: Object) -> list[Key]:
        """Return the NodeGroups that a node belongs to."""
        has = node["metadata"].get("labels") or {}
        return [
            _key("NodeGroup", group)
            for group in self.caches["NodeGroup"].objects()
            if (wanted := (group.get("spec") or {}).get("labels"))
            and all(has.get(key) == value for key, value in wanted.items())
        ]

    def _groups_of(self, obj: Object) -> list[Key]:
        """Return the NodeGroup that a Run, its pod or a Workflow counts for."""
        kind = obj["kind"]
        name = None
        if kind in ("Job", "Pod"):
            name = (obj["metadata"].get("labels") or {}).get(labels.NODE_GROUP)
        elif kind == "Run":
            name = self.group_of(obj)
        elif kind == "Workflow":
            name = self._group_named(obj)
        return [Key("NodeGroup", "", name)] if name else []

    def _waiting_for(self, group: str) -> list[Key]:
        """Return the Runs that were told that a NodeGroup is not there."""
        return [
            _key("Run", run)
            for run in self.live_runs()
            if _reason(run) in _NO_GROUP and self.group_of(run) == group
        ]

    def _cron_jobs_on(self, group: str) -> list[Key]:
        """Return the Workflows whose CronJobs send their pods to a NodeGroup."""
        return [
            key
            for cron_job in self.caches["CronJob"].objects()
            if (cron_job["metadata"].get("labels") or {}).get(labels.NODE_GROUP) == group
            for key in self._of_cron_job(cron_job)
        ]

    def _backfills(self, workflow: Key) -> list[Key]:
        """Return the Backfills of a Workflow, and one that must not have its name."""
        cache = self.caches["Backfill"]
        found = cache.by_index(_BY_WORKFLOW, workflow.name, workflow.namespace)
        namesake = cache.get(workflow.namespace, workflow.name)
        return [_key("Backfill", obj) for obj in (*found, *filter(None, [namesake]))]

    def _of_run(self, obj: Object) -> list[Key]:
        """Return who made a Run, and whom it concerns that it has gone on or gone."""
        if run := scheduled_run(obj):
            return self._of_schedule(obj, run)
        # By its name: that of somebody else's Run keeps a Backfill from making its own.
        key = _key("Run", obj)
        maker = Key("Backfill", key.namespace, key.name.rpartition("-")[0])
        return [maker] if self.get(maker) else []

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
        return [run] if self.get(run) else [run, workflow]

    def _of_schedule(self, obj: Object, run: ScheduledRun) -> list[Key]:
        """Return the Workflow that made a Run, and the Run that may follow now."""
        keys = [Key("Workflow", run.namespace, run.maker)]
        if run.is_live and self.get(_key("Run", obj)) is not None:
            return keys
        queue = self._queue(run)
        following = [
            min(queue, key=_tick, default=None),
            min((r for r in queue if r.tick > run.tick), key=_tick, default=None),
        ]
        names = {r.name for r in following if r}
        return [*keys, *(Key("Run", run.namespace, name) for name in sorted(names))]

    def _queue(self, run: ScheduledRun) -> list[ScheduledRun]:
        """Return the live Runs of the schedule that made a Run."""
        found = self._scheduled(_QUEUE, run.namespace, run.maker)
        return [r for r in found if r.owner == run.owner and r.name != run.name]

    def dependents(self, project: Key) -> list[Key]:
        """Return the Workflows of a Project, and the live Runs of either."""
        workflows = [
            _key("Workflow", obj)
            for obj in self.caches["Workflow"].by_index(
                _BY_PROJECT, project.name, project.namespace
            )
        ]
        runs = [run for key in workflows for run in self._runs(_BY_WORKFLOW, key)]
        return [*workflows, *runs, *self._runs(_BY_PROJECT, project)]

    def _runs(self, index: str, key: Key) -> list[Key]:
        found = self.caches["Run"].by_index(index, key.name, key.namespace)
        return [_key("Run", obj) for obj in found]

    def _read(self, model: type[M], kind: str, namespace: str, name: str) -> M | InvalidSpec | None:
        obj = self.caches[kind].get(namespace, name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        try:
            return parse(model, obj)
        except InvalidSpec as error:
            return error


def _key(kind: str, obj: Object) -> Key:
    return Key(kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def _owner_of_child(obj: Object) -> list[Key]:
    namespace, names = obj["metadata"].get("namespace", ""), obj["metadata"].get("labels", {})
    if names.get(labels.COMPONENT) == labels.COMPONENT_RUN and labels.RUN in names:
        return [Key("Run", namespace, names[labels.RUN])]
    if names.get(labels.COMPONENT) == labels.COMPONENT_BUILD and labels.PROJECT in names:
        return [Key("Project", namespace, names[labels.PROJECT])]
    return []


def _schedule(obj: Object) -> Iterable[str]:
    workflow = scheduling_workflow(obj)
    return () if workflow is None else (workflow,)


def _by_tick(obj: Object) -> Iterable[str]:
    key = tick_key(obj)
    return [f"{key[0]}/{key[1]}"] if key else []


def _unfinished(obj: Object) -> Iterable[str]:
    return [] if (obj.get("status") or {}).get("completionTime") else _ref(obj, "workflowRef")


def _tick(run: ScheduledRun) -> datetime:
    return run.tick


def _reason(obj: Object) -> str:
    conditions = (obj.get("status") or {}).get("conditions") or [{}]
    return str(conditions[0].get("reason", ""))


def _text(holder: Object, field: str) -> str | None:
    value = holder.get(field)
    return value if isinstance(value, str) and value else None


def _bound_to(pod: Object) -> Iterable[str]:
    node = (pod.get("spec") or {}).get("nodeName")
    return [node] if node else []


def _ended_on(run: Object) -> Iterable[str]:
    attempts = (run.get("status") or {}).get("attempts") or []
    return {a["node"] for a in attempts if a.get("node") and a.get("finishTime")}


def _live(obj: Object) -> bool:
    return (obj.get("status") or {}).get("phase") not in FINAL_PHASES


def _ended(obj: Object) -> Iterable[str]:
    return [] if _live(obj) else _ref(obj, "workflowRef")


def _ref(obj: Object, field: str) -> Iterable[str]:
    name = ((obj.get("spec") or {}).get(field) or {}).get("name")
    return [name] if isinstance(name, str) else []
