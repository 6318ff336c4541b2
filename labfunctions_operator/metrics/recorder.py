"""Counts what this process does; a restart begins at 0, and counts nothing a second time."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from labfunctions_operator.api.run import FINAL_PHASES
from labfunctions_operator.api.times import parse_time
from labfunctions_operator.api.workflow import RetryReason
from labfunctions_operator.desired.names import build_job_name
from labfunctions_operator.kube.cache import Cache
from labfunctions_operator.metrics import catalog
from labfunctions_operator.metrics.catalog import COLLECTED, OTHER, Definition
from labfunctions_operator.metrics.names import Names
from labfunctions_operator.reconcile.jobs import end_of
from labfunctions_operator.reconcile.plan import Key
from labfunctions_operator.reconcile.raw import part, workflow_of
from labfunctions_operator.reconcile.retry import DISRUPTED, NEVER
from labfunctions_operator.reconcile.story import EndedBuild, ended_builds, items
from labfunctions_operator.reconcile.verdict import SUCCEEDED

Object = Mapping[str, Any]

FAILED = "Failed"
_REASONS = frozenset({*get_args(RetryReason), *NEVER, DISRUPTED, SUCCEEDED})


class Metrics:
    """The counters and histograms, in the registry that everything is served from.

    Args:
        caches: By kind; an object that is not there gets no label of its own.
        clock: Seconds that only grow.
    """

    def __init__(
        self, caches: Mapping[str, Cache], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.workflows = Names(caches["Workflow"], catalog.WORKFLOW_LIMIT)
        self.projects = Names(caches["Project"], catalog.PROJECT_LIMIT)
        self._jobs = caches["Job"]
        self._clock = clock
        self._made = {d: d.make(self.registry) for d in catalog.CATALOG if d not in COLLECTED}
        self._namespaces: set[str] = set()
        ProcessCollector(registry=self.registry)

    def timed(
        self, reconcile: Callable[[Key], Awaitable[float | None]]
    ) -> Callable[[Key], Awaitable[float | None]]:
        """Return a function that does the same, and is measured."""

        async def measured(key: Key) -> float | None:
            started, result = self._clock(), SUCCEEDED
            try:
                return await reconcile(key)
            except asyncio.CancelledError:
                result = "TimedOut"
                raise
            except Exception as error:
                result = type(error).__name__
                raise
            finally:
                self._count(catalog.RECONCILES, key.kind, result)
                self._observe(catalog.RECONCILE_DURATION, self._clock() - started, key.kind)

        return measured

    def status_written(self, before: Object, after: Object) -> None:
        """Count what a write of ours has changed in the status of an object."""
        old, new = part(before, "status"), part(after, "status")
        namespace = after["metadata"].get("namespace", "")
        self._namespaces.add(namespace)
        if after["kind"] == "Run":
            workflow = self.workflows.label(namespace, workflow_of(after) or "")
            self._run_changed(old, new, namespace, workflow)
        elif after["kind"] == "Project":
            for build in ended_builds(old, new):
                self._built(namespace, after["metadata"]["name"], build)

    def source_read(self, key: Key, result: str, seconds: float) -> None:
        """Count a reading of a Project's source."""
        self._namespaces.add(key.namespace)
        self._count(catalog.SOURCE_READS, key.namespace, result)
        self._observe(catalog.SOURCE_READ_DURATION, seconds)

    def node_group_written(self, name: str, result: str) -> None:
        """Count a change of a node group's size that was asked of its provider."""
        self._count(catalog.NODE_GROUP_WRITES, name, result)

    def message_ended(self, namespace: str, event: str, medium: str, result: str) -> None:
        """Count a notification by what became of it."""
        self._namespaces.add(namespace)
        self._count(catalog.NOTIFICATIONS, namespace, event, medium, result)

    def event(self, result: str) -> None:
        """Count a Kubernetes Event by what became of it."""
        self._count(catalog.EVENTS, result)

    def forget_gone(self, namespaces: Iterable[str]) -> None:
        """Drop the series of objects that are gone, and of all namespaces but these."""
        for namespace, name in self.workflows.forget_gone():
            self._drop("workflow", {"namespace": namespace, "workflow": name})
        for namespace, name in self.projects.forget_gone():
            self._drop("project", {"namespace": namespace, "project": name})
        for namespace in self._namespaces.difference(namespaces):
            self._drop("namespace", {"namespace": namespace})
        self._namespaces.intersection_update(namespaces)

    def _run_changed(self, old: Object, new: Object, namespace: str, workflow: str) -> None:
        names = (namespace, workflow)
        if "queuedSeconds" in new and "queuedSeconds" not in old:
            self._observe(catalog.RUN_QUEUED, new["queuedSeconds"], *names)
        ended = {a.get("number") for a in items(old, "attempts") if a.get("finishTime")}
        for attempt in items(new, "attempts"):
            if attempt.get("finishTime") and attempt.get("number") not in ended:
                self._count(catalog.RUN_ATTEMPTS, *names, _known(attempt.get("reason")))
        phase = new.get("phase")
        if phase not in FINAL_PHASES or old.get("phase") in FINAL_PHASES:
            return
        self._count(catalog.RUNS_ENDED, *names, phase)
        if phase == FAILED:
            reason = (new.get("failure") or {}).get("reason")
            self._count(catalog.RUN_FAILURES, *names, _known(reason))
        if "durationSeconds" in new:
            self._observe(catalog.RUN_DURATION, new["durationSeconds"], *names)

    def _built(self, namespace: str, project: str, build: EndedBuild) -> None:
        label = self.projects.label(namespace, project)
        result = FAILED if build.image is None else SUCCEEDED
        self._count(catalog.BUILDS, namespace, label, result)
        name = build_job_name(project, build.runtime, build.inputs_hash)
        job = self._jobs.get(namespace, name)
        if job is not None and (seconds := _lasted(job)) is not None:
            self._observe(catalog.BUILD_DURATION, seconds, namespace, label)

    def _count(self, definition: Definition, *labels: str) -> None:
        metric = self._made[definition]
        assert isinstance(metric, Counter)
        metric.labels(*labels).inc()

    def _observe(self, definition: Definition, value: float, *labels: str) -> None:
        metric = self._made[definition]
        assert isinstance(metric, Histogram)
        (metric.labels(*labels) if labels else metric).observe(value)

    def _drop(self, label: str, values: dict[str, str]) -> None:
        for definition, metric in self._made.items():
            if label in definition.labels:
                metric.remove_by_labels(values)


def _known(reason: Any) -> str:
    return reason if reason in _REASONS else OTHER


def _lasted(job: Object) -> float | None:
    """Return how long a build's Job took, in seconds."""
    end = (end_of(job) or {}).get("lastTransitionTime")
    begin = job["metadata"].get("creationTimestamp")
    if not begin or not end:
        return None
    return max(0.0, (parse_time(end) - parse_time(begin)).total_seconds())
