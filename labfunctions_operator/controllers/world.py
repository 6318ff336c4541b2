"""Everything the operator holds of the cluster, and look-ups across it."""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, TypeVar

from labfunctions_operator.api.backfill import Backfill
from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.run import Phase, Run
from labfunctions_operator.api.types import Model
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.controllers.caches import (
    BY_NODE,
    BY_SCHEDULE,
    BY_TICK,
    ENDED,
    LIVE,
    QUEUE,
    Runs,
    make_caches,
    named,
)
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.ledger import is_counted
from labfunctions_operator.reconcile.past import PastRun, read_run
from labfunctions_operator.reconcile.plan import Key
from labfunctions_operator.reconcile.scheduled_run import ScheduledRun, scheduled_run

Object = Mapping[str, Any]
M = TypeVar("M", bound=Model)


class World:
    """The caches by kind, and look-ups across them."""

    def __init__(self) -> None:
        self.caches = make_caches()

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
        return list(self.caches["Pod"].by_index(BY_NODE, node))

    def last_end_on(self, node: str) -> str | None:
        """Return when the last of the Runs on a node ended, deleted ones included."""
        runs = self.caches["Run"]
        assert isinstance(runs, Runs)
        return runs.last_end_on(node)

    def workflows_of(self, group: str) -> list[Object]:
        """Return the Workflows whose Runs go to a NodeGroup."""
        return [obj for obj in self.caches["Workflow"].objects() if self.group_named(obj) == group]

    def groups_with(self, node: Object) -> list[Key]:
        """Return the NodeGroups that a node belongs to."""
        has = node["metadata"].get("labels") or {}
        return [
            key_of(group)
            for group in self.caches["NodeGroup"].objects()
            if (wanted := (group.get("spec") or {}).get("labels"))
            and all(has.get(key) == value for key, value in wanted.items())
        ]

    def group_of(self, run: Object) -> str | None:
        """Return the name of the NodeGroup that a Run goes to, if it goes to one."""
        snapshot = (run.get("status") or {}).get("snapshot")
        if snapshot:
            return _text(snapshot, "nodeGroup")
        if own := _text(run.get("spec") or {}, "nodeGroup"):
            return own
        for name in named(run, "workflowRef"):
            workflow = self.caches["Workflow"].get(run["metadata"]["namespace"], name)
            return self.group_named(workflow) if workflow else None
        return self.group_named(run)

    def group_named(self, obj: Object) -> str | None:
        """Return the NodeGroup that a Workflow, or a Run without one, or its Project names."""
        if own := _text(obj.get("spec") or {}, "nodeGroup"):
            return own
        for name in named(obj, "projectRef"):
            project = self.caches["Project"].get(obj["metadata"]["namespace"], name)
            return _text((project or {}).get("spec", {}).get("defaults") or {}, "nodeGroup")
        return None

    def labelled(self, kind: str, label: str, value: str, namespace: str) -> list[Object]:
        """Return children by one of our labels."""
        return list(self.caches[kind].by_label(label, value, namespace))

    def cron_made(self, workflow: Key) -> list[Object]:
        """Return the Jobs that the CronJob of a Workflow has made."""
        return list(self.caches["Job"].by_index(BY_SCHEDULE, workflow.name, workflow.namespace))

    def live_runs(self) -> list[Object]:
        """Return the Runs that have not ended."""
        return list(self.caches["Run"].by_index(LIVE, "live"))

    def scheduled_runs(self, namespace: str, workflow: str) -> list[ScheduledRun]:
        """Return the Runs that the schedules of Workflows of that name have made."""
        return self._scheduled(BY_SCHEDULE, namespace, workflow)

    def _scheduled(self, index: str, namespace: str, workflow: str) -> list[ScheduledRun]:
        found = self.caches["Run"].by_index(index, workflow, namespace)
        return [run for obj in found if (run := scheduled_run(obj))]

    def ahead(self, obj: Object) -> str | None:
        """Return the name of the live Run that comes just before a scheduled one, if any does."""
        run = scheduled_run(obj)
        if run is None:
            return None
        before = [r for r in self.queue(run) if r.tick < run.tick]
        return max(before, key=attrgetter("tick")).name if before else None

    def queue(self, run: ScheduledRun) -> list[ScheduledRun]:
        """Return the live Runs of the schedule that made a Run."""
        found = self._scheduled(QUEUE, run.namespace, run.maker)
        return [r for r in found if r.owner == run.owner and r.name != run.name]

    def live_runs_of(self, workflow: Object) -> list[ScheduledRun]:
        """Return the live Runs of a Workflow's schedule."""
        metadata = workflow["metadata"]
        found = self._scheduled(QUEUE, metadata["namespace"], metadata["name"])
        return [run for run in found if run.owner == metadata["uid"]]

    def last_end(self, namespace: str, workflow: str) -> Phase | None:
        """Return how the last Run of a Workflow ended, unless by being cancelled.

        The Workflow's status knows of its schedule's Runs that are deleted by now.
        """
        ends = [
            (str(obj["status"].get("completionTime") or ""), obj["status"]["phase"] == "Failed")
            for obj in self.caches["Run"].by_index(ENDED, workflow, namespace)
            if obj["status"]["phase"] in ("Succeeded", "Failed")
        ]
        status = (self.caches["Workflow"].get(namespace, workflow) or {}).get("status") or {}
        times = {False: status.get("lastSuccessfulTime"), True: status.get("lastFailedTime")}
        ends += [(str(time), failed) for failed, time in times.items() if time]
        if not ends:
            return None
        # Times are whole seconds: of two that end at once, the failure is the news.
        return "Failed" if max(ends)[1] else "Succeeded"

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
        found = self.caches["Run"].by_index(BY_TICK, f"{workflow}/{minute}", namespace)
        return [read_run(obj) for obj in found]

    def all_keys(self) -> list[Key]:
        """Return the keys of all objects of our kinds; what has dependents comes first."""
        return [
            key_of(obj)
            for kind in ("NodeGroup", "Project", "Workflow", "Backfill", "Run")
            for obj in self.caches[kind].objects()
        ]

    def _read(self, model: type[M], kind: str, namespace: str, name: str) -> M | InvalidSpec | None:
        obj = self.caches[kind].get(namespace, name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        try:
            return parse(model, obj)
        except InvalidSpec as error:
            return error


def key_of(obj: Object) -> Key:
    """Name an object."""
    return Key(obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def _text(holder: Object, field: str) -> str | None:
    value = holder.get(field)
    return value if isinstance(value, str) and value else None
