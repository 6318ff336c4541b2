"""A registry over caches in memory, and what a scrape of it says."""

from typing import Any

from objects import NOW, make_object
from prometheus_client import CollectorRegistry

from labfunctions_operator.kube.cache import Cache
from labfunctions_operator.metrics.recorder import Metrics
from labfunctions_operator.metrics.state import StateCollector

Object = dict[str, Any]


class StillQueue:
    """A queue with known depths."""

    def depth(self) -> tuple[int, int, float]:
        return 2, 3, 1.5


class Scraped:
    """The operator's caches and metrics."""

    def __init__(self, *objects: Object) -> None:
        kinds = ("Project", "Workflow", "Run", "Job", "Pod", "NodeGroup")
        self.caches = {kind: Cache() for kind in kinds}
        self._version = 0
        self.put(*objects)
        self.metrics = Metrics(self.caches)
        self.metrics.registry.register(
            StateCollector(
                self.caches,
                self.metrics.workflows,
                self.metrics.projects,
                StillQueue(),
                {("get", 200): 4, ("create", 0): 1},
                clock=NOW.timestamp,
            )
        )

    @property
    def registry(self) -> CollectorRegistry:
        return self.metrics.registry

    def put(self, *objects: Object) -> None:
        for obj in objects:
            self._version += 1
            metadata = {**obj["metadata"], "resourceVersion": str(self._version)}
            self.caches[obj["kind"]].upsert({**obj, "metadata": metadata})

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"labfunctions_{name}", labels)

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the samples of a family by the values of their labels, in the catalog's order."""
        return {
            tuple(sample.labels.values()): sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"labfunctions_{name}"
        }


def make_run(name: str, workflow: str | None = "report", **status: Any) -> Object:
    spec = {"workflowRef": {"name": workflow}} if workflow else {"notebook": "a.ipynb"}
    return make_object("Run", name, spec, status)


def make_stored_workflow(name: str = "report", **status: Any) -> Object:
    return make_object("Workflow", name, {"notebook": "a.ipynb"}, status)
