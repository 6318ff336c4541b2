"""The caches by kind, and what their objects are found by."""

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

from labfunctions_operator.api.run import FINAL_PHASES
from labfunctions_operator.kube.cache import Cache, Indexer
from labfunctions_operator.reconcile.adoption import ticking_workflow
from labfunctions_operator.reconcile.past import tick_key
from labfunctions_operator.reconcile.raw import workflow_of
from labfunctions_operator.reconcile.scheduled_run import scheduling_workflow

Object = Mapping[str, Any]
Held = dict[str, Any]

BY_PROJECT = "project"
BY_WORKFLOW = "workflow"
BY_NODE = "node"
LIVE = "live"
BY_SCHEDULE = "schedule"
QUEUE = "queue"
ENDED = "ended"
BY_TICK = "tick"
# Far more than there are nodes at a time.
NODES_KNOWN = 10_000


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


class Runs(WatchedByKopf):
    """A cache of Runs that remembers when the last one on each node ended, gone since or not.

    How long a node has been idle must not depend on how many Runs a history keeps.
    """

    def __init__(self, indexers: Mapping[str, Indexer] | None = None) -> None:
        super().__init__(indexers)
        self._ends: dict[str, str] = {}

    def last_end_on(self, node: str) -> str | None:
        """Return when the last Run on a node ended, of those seen since the start."""
        return self._ends.get(node)

    def _put(self, obj: Held) -> bool:
        for attempt in (obj.get("status") or {}).get("attempts") or []:
            node, end = attempt.get("node"), attempt.get("finishTime")
            if node and end:
                self._ends[node] = max(str(end), self._ends.get(node, ""))
        if len(self._ends) > 2 * NODES_KNOWN:
            newest = sorted(self._ends.items(), key=itemgetter(1))[-NODES_KNOWN:]
            self._ends = dict(newest)
        return super()._put(obj)


def make_caches() -> dict[str, Cache]:
    """Return an empty cache for each kind that the operator follows."""
    return {
        "Project": WatchedByKopf(),
        "Workflow": WatchedByKopf({BY_PROJECT: lambda obj: named(obj, "projectRef")}),
        "Backfill": WatchedByKopf({BY_WORKFLOW: _unfinished}),
        "Run": Runs(
            {
                BY_PROJECT: lambda obj: named(obj, "projectRef") if _live(obj) else (),
                BY_WORKFLOW: lambda obj: named(obj, "workflowRef") if _live(obj) else (),
                LIVE: lambda obj: ["live"] if _live(obj) else [],
                BY_SCHEDULE: _schedule,
                QUEUE: lambda obj: _schedule(obj) if _live(obj) else (),
                ENDED: _ended,
                BY_TICK: _by_tick,
            }
        ),
        "NodeGroup": WatchedByKopf(),
        "Job": Cache({BY_SCHEDULE: lambda obj: filter(None, [ticking_workflow(obj)])}),
        "CronJob": Cache(),
        "Pod": Cache({BY_NODE: _bound_to}),
        "Node": Cache(),
    }


def _live(obj: Object) -> bool:
    return (obj.get("status") or {}).get("phase") not in FINAL_PHASES


def _ended(obj: Object) -> Iterable[str]:
    if _live(obj):
        return []
    workflow = workflow_of(obj)
    return [workflow] if workflow else []


def _schedule(obj: Object) -> Iterable[str]:
    workflow = scheduling_workflow(obj)
    return () if workflow is None else (workflow,)


def _by_tick(obj: Object) -> Iterable[str]:
    key = tick_key(obj)
    return [f"{key[0]}/{key[1]}"] if key else []


def _unfinished(obj: Object) -> Iterable[str]:
    return [] if (obj.get("status") or {}).get("completionTime") else named(obj, "workflowRef")


def _bound_to(pod: Object) -> Iterable[str]:
    node = (pod.get("spec") or {}).get("nodeName")
    return [node] if node else []


def named(obj: Object, field: str) -> Iterable[str]:
    """Return the name in a reference of a spec, if there is one."""
    name = ((obj.get("spec") or {}).get(field) or {}).get("name")
    return [name] if isinstance(name, str) else []
