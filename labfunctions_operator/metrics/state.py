"""Gauges of what is there, read from the caches at each scrape: a restart changes none of them.

Objects are read as stored: what another writer has put into a status must not end a scrape.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from operator import add
from typing import Any, Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from labfunctions_operator.api.run import FINAL_PHASES
from labfunctions_operator.api.times import parse_time
from labfunctions_operator.kube.cache import Cache
from labfunctions_operator.metrics import catalog
from labfunctions_operator.metrics.catalog import OTHER, Definition
from labfunctions_operator.metrics.names import Names
from labfunctions_operator.metrics.recorder import FAILED
from labfunctions_operator.reconcile.raw import part, workflow_of
from labfunctions_operator.reconcile.story import items
from labfunctions_operator.reconcile.verdict import SUCCEEDED

Object = Mapping[str, Any]

LIVE_PHASES = ("Pending", "Building", "Queued", "Starting", "Running")
IMAGE_PHASES = ("Pending", "Building", "Ready", "Failed")
GROUP_SIZES = ("min", "max", "desired", "ready", "busy", "idle")


class Queue(Protocol):
    """What is asked of the engine."""

    def depth(self) -> tuple[int, int, float]:
        """Return how many keys are due, how many come later, and the longest wait in seconds."""


class StateCollector(Collector):
    """Collects from the caches, the queue and the client.

    Args:
        caches: By kind.
        workflows: Keeps the Workflows' names bounded.
        projects: Keeps the Projects' names bounded.
        queue: The engine.
        requests: How many requests the client made, by verb and code.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        caches: Mapping[str, Cache],
        workflows: Names,
        projects: Names,
        queue: Queue,
        requests: Mapping[tuple[str, int], int],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._caches = caches
        self._workflows = workflows
        self._projects = projects
        self._queue = queue
        self._requests = requests
        self._clock = clock

    def describe(self) -> Iterable[Metric]:
        """Name what is collected, without collecting it."""
        return [d.family() for d in catalog.CATALOG if d in catalog.COLLECTED]

    def collect(self) -> Iterator[Metric]:
        """Read everything anew."""
        runs = self._caches["Run"].objects()
        yield from self._live_runs(runs)
        yield from self._workflow_results(runs)
        yield from self._schedules()
        yield from self._images()
        yield from self._node_groups()
        yield from self._process()

    def _live_runs(self, runs: Iterable[Object]) -> Iterator[Metric]:
        counts: Counter[tuple[str, ...]] = Counter()
        since: dict[tuple[str, ...], float] = {}
        for run in runs:
            phase = part(run, "status").get("phase") or "Pending"
            if phase in FINAL_PHASES:
                continue
            namespace = run["metadata"].get("namespace", "")
            group = self._node_group(run)
            workflow = self._workflows.label(namespace, workflow_of(run) or "")
            known = phase if phase in LIVE_PHASES else OTHER
            counts[namespace, workflow, group, known] += 1
            created = _seconds(run["metadata"].get("creationTimestamp"))
            if phase != "Running" and created is not None:
                key = (namespace, group)
                since[key] = min(created, since.get(key, created))
        yield _family(catalog.RUNS, counts)
        yield _family(catalog.RUNS_WAITING_SINCE, since)

    def _node_group(self, run: Object) -> str:
        snapshot = part(run, "status", "snapshot")
        name = snapshot.get("nodeGroup") or part(run, "spec").get("nodeGroup")
        groups = self._caches.get("NodeGroup")
        if groups is None or not name:
            return ""
        return name if groups.get("", str(name)) is not None else OTHER

    def _workflow_results(self, runs: Iterable[Object]) -> Iterator[Metric]:
        success: dict[tuple[str, ...], float] = {}
        last: dict[tuple[str, ...], tuple[float, bool]] = {}
        for workflow, status in self._of_kind("Workflow"):
            if (ended := _seconds(status.get("lastSuccessfulTime"))) is not None:
                success[workflow] = ended
                last[workflow] = (ended, False)
            if (ended := _seconds(status.get("lastFailedTime"))) is not None:
                last[workflow] = max(last.get(workflow, (0.0, False)), (ended, True))
        for run in runs:
            status = part(run, "status")
            ended = _seconds(status.get("completionTime"))
            workflow = (run["metadata"].get("namespace", ""), workflow_of(run) or "")
            if ended is None or status.get("phase") not in (SUCCEEDED, FAILED):
                continue
            if self._caches["Workflow"].get(*workflow) is None:
                continue
            succeeded = status["phase"] == SUCCEEDED
            # Times are whole seconds: of two that end at once, the failure is the news.
            last[workflow] = max(last.get(workflow, (0.0, False)), (ended, not succeeded))
            if succeeded:
                success[workflow] = max(ended, success.get(workflow, 0.0))
        results = {workflow: float(not failed) for workflow, (_, failed) in last.items()}
        names = self._workflows
        yield _family(catalog.WORKFLOW_LAST_RUN_SUCCEEDED, _together(results, names, min))
        yield _family(catalog.WORKFLOW_LAST_SUCCESS, _together(success, names, min))

    def _schedules(self) -> Iterator[Metric]:
        before: dict[tuple[str, ...], float] = {}
        after: dict[tuple[str, ...], float] = {}
        lag: dict[tuple[str, ...], float] = {}
        missed: dict[tuple[str, ...], float] = {}
        now = self._clock()
        for workflow, status in self._of_kind("Workflow"):
            if (last := _seconds(status.get("lastScheduleTime"))) is not None:
                before[workflow] = last
            if (due := _seconds(status.get("nextScheduleTime"))) is not None:
                after[workflow] = due
                held = self._is_held_back(workflow, status)
                lag[workflow] = 0.0 if held else max(0.0, now - due)
            count = status.get("missed")
            if isinstance(count, int):
                missed[workflow] = count
            elif workflow in before or workflow in after:
                # From the start, so that the first one is seen as a change.
                missed[workflow] = 0
        names = self._workflows
        yield _family(catalog.WORKFLOW_LAST_SCHEDULE, _together(before, names, min))
        yield _family(catalog.WORKFLOW_NEXT_SCHEDULE, _together(after, names, min))
        yield _family(catalog.WORKFLOW_SCHEDULE_LAG, _together(lag, names, max))
        yield _family(catalog.WORKFLOW_MISSED, _together(missed, names, add))

    def _is_held_back(self, workflow: tuple[str, str], status: Object) -> bool:
        """Whether a CronJob makes no Job because the one before is live: it is not late then."""
        spec = part(self._caches["Workflow"].get(*workflow), "spec")
        policy = (spec.get("scheduler"), spec.get("concurrencyPolicy"))
        return policy == ("CronJob", "Forbid") and bool(status.get("active"))

    def _images(self) -> Iterator[Metric]:
        counts: Counter[tuple[str, ...]] = Counter()
        for (namespace, name), status in self._of_kind("Project"):
            label = self._projects.label(namespace, name)
            phases = Counter(str(r.get("phase")) for r in items(status, "runtimes"))
            for phase in IMAGE_PHASES:
                counts[namespace, label, phase] += phases[phase]
        yield _family(catalog.PROJECT_IMAGES, counts)

    def _node_groups(self) -> Iterator[Metric]:
        nodes: dict[tuple[str, ...], float] = {}
        waiting: dict[tuple[str, ...], float] = {}
        for (_, name), status in self._of_kind("NodeGroup"):
            sizes = {size: status.get(size) for size in GROUP_SIZES}
            nodes |= {(name, size): n for size, n in sizes.items() if isinstance(n, int)}
            if isinstance(pending := status.get("pendingRuns"), int):
                waiting[(name,)] = pending
        yield _family(catalog.NODE_GROUP_NODES, nodes)
        yield _family(catalog.NODE_GROUP_PENDING, waiting)

    def _process(self) -> Iterator[Metric]:
        due, later, oldest = self._queue.depth()
        yield _family(catalog.QUEUE_DEPTH, {(): due})
        yield _family(catalog.QUEUE_LATER, {(): later})
        yield _family(catalog.QUEUE_OLDEST, {(): oldest})
        yield _family(catalog.OBJECTS, {(kind,): len(c) for kind, c in self._caches.items()})
        requests = list(self._requests.items())
        counts = {(verb, str(code)): number for (verb, code), number in requests}
        yield _family(catalog.API_REQUESTS, counts)
        yield _family(catalog.INFO, {(version("labfunctions-operator"),): 1})

    def _of_kind(self, kind: str) -> Iterator[tuple[tuple[str, str], Object]]:
        cache = self._caches.get(kind)
        for obj in cache.objects() if cache else ():
            metadata = obj["metadata"]
            yield (metadata.get("namespace", ""), metadata["name"]), part(obj, "status")


def _together(
    values: Mapping[tuple[str, ...], float], names: Names, worst: Callable[[float, float], float]
) -> dict[tuple[str, ...], float]:
    """Give those that are too many for values of their own one in common for each namespace."""
    found: dict[tuple[str, ...], float] = {}
    for (namespace, name), value in values.items():
        key = (namespace, names.label(namespace, name))
        found[key] = worst(found[key], value) if key in found else value
    return found


def _family(definition: Definition, values: Mapping[Any, float]) -> Metric:
    family = definition.family()
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _seconds(text: Any) -> float | None:
    try:
        return parse_time(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
