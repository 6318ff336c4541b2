"""Everything the operator holds of the cluster, and which object concerns which other."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from labfunctions_operator.api import labels
from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.run import FINAL_PHASES, Phase, Run
from labfunctions_operator.api.types import Model
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.kube.cache import Cache, Indexer
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
_LIVE = "live"
_BY_SCHEDULE = "schedule"
_QUEUE = "queue"
_ENDED = "ended"


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

    def __init__(self) -> None:
        self.caches: dict[str, Cache] = {
            "Project": WatchedByKopf(),
            "Workflow": WatchedByKopf({_BY_PROJECT: lambda obj: _ref(obj, "projectRef")}),
            "Run": WatchedByKopf(
                {
                    _BY_PROJECT: lambda obj: _ref(obj, "projectRef") if _live(obj) else (),
                    _BY_WORKFLOW: lambda obj: _ref(obj, "workflowRef") if _live(obj) else (),
                    _LIVE: lambda obj: ["live"] if _live(obj) else [],
                    _BY_SCHEDULE: _schedule,
                    _QUEUE: lambda obj: _schedule(obj) if _live(obj) else (),
                    _ENDED: _ended,
                }
            ),
            "Job": Cache(),
            "Pod": Cache(),
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

    def labelled(self, kind: str, label: str, value: str, namespace: str) -> list[Object]:
        """Return children by one of our labels."""
        return list(self.caches[kind].by_label(label, value, namespace))

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

    def all_keys(self) -> list[Key]:
        """Return the keys of all objects of our kinds; what has dependents comes first."""
        return [
            _key(kind, obj)
            for kind in ("Project", "Workflow", "Run")
            for obj in self.caches[kind].objects()
        ]

    def concerned(self, obj: Object) -> list[Key]:
        """Return the keys to reconcile when an object has changed or vanished."""
        kind = obj["kind"]
        if kind in ("Job", "Pod"):
            return _owner_of_child(obj)
        keys = [_key(kind, obj)]
        if kind == "Project":
            keys += self.dependents(keys[0])
        elif kind == "Workflow":
            keys += self._runs(_BY_WORKFLOW, keys[0])
        elif run := scheduled_run(obj):
            keys += self._of_schedule(obj, run)
        return keys

    def _of_schedule(self, obj: Object, run: ScheduledRun) -> list[Key]:
        """Return the Workflow that made a Run, and the Run that may follow now."""
        keys = [Key("Workflow", run.namespace, run.workflow)]
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
        found = self._scheduled(_QUEUE, run.namespace, run.workflow)
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


def _tick(run: ScheduledRun) -> datetime:
    return run.tick


def _live(obj: Object) -> bool:
    return (obj.get("status") or {}).get("phase") not in FINAL_PHASES


def _ended(obj: Object) -> Iterable[str]:
    return [] if _live(obj) else _ref(obj, "workflowRef")


def _ref(obj: Object, field: str) -> Iterable[str]:
    name = ((obj.get("spec") or {}).get(field) or {}).get("name")
    return [name] if isinstance(name, str) else []
