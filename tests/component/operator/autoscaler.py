"""A small autoscaler: adds fake nodes while pods find none, and removes those that are empty."""

import itertools
import threading
import time
from contextlib import suppress

import urllib3

from dev.cluster.kwok import ANNOTATION

from .api import Api, ApiError, Object, condition

INTERVAL = 0.2
GPU_NODE = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1", "pods": "20"}
TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


class Autoscaler:
    """Plays the cluster-autoscaler for one pool.

    Attributes:
        labels: Of its nodes.
        most: How many nodes there were at most.
        is_paused: Whether it does nothing for now.
    """

    def __init__(self, api: Api, labels: dict[str, str], *, unneeded: float = 1.0) -> None:
        self.labels = labels
        self.most = 0
        self.is_paused = False
        self._api = api
        self._unneeded = unneeded
        self._empty_since: dict[str, float] = {}
        self._numbers = itertools.count()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End, and take all nodes away."""
        self._stopping.set()
        self._thread.join()
        for node in self.nodes():
            self._remove(node["metadata"]["name"])

    def nodes(self) -> list[Object]:
        selector = ",".join(f"{key}={value}" for key, value in self.labels.items())
        return self._api.list("Node", "", selector)

    def add(self) -> str:
        """Add a node, as somebody else might."""
        name = f"{self.labels['pool']}-{next(self._numbers)}"
        self._api.create(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": name,
                    "labels": {"kubernetes.io/hostname": name, **self.labels},
                    "annotations": {ANNOTATION: "fake"},
                },
                "spec": {"taints": [TAINT]},
                "status": {"capacity": GPU_NODE, "allocatable": GPU_NODE},
            }
        )
        return name

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL):
            with suppress(ApiError, urllib3.exceptions.HTTPError):
                if not self.is_paused:
                    self._act()

    def _act(self) -> None:
        pods = [p for p in self._api.list("Pod", "") if self._is_ours(p)]
        nodes = self.nodes()
        self.most = max(self.most, len(nodes))
        stuck = [p for p in pods if condition(p, "PodScheduled").get("status") == "False"]
        used = {p["spec"].get("nodeName") for p in pods}
        names = [n["metadata"]["name"] for n in nodes]
        # An empty node will take one of them as soon as it can.
        for _ in range(len(stuck) - len([n for n in names if n not in used])):
            self.add()
        for name in names:
            if name in used or stuck:
                self._empty_since.pop(name, None)
            elif time.monotonic() - self._empty_since.setdefault(name, time.monotonic()) > (
                self._unneeded
            ):
                self._remove(name)

    def _is_ours(self, pod: Object) -> bool:
        wanted = pod["spec"].get("nodeSelector") or {}
        is_over = pod["status"].get("phase") in ("Succeeded", "Failed")
        return not is_over and self.labels.items() <= wanted.items()

    def _remove(self, name: str) -> None:
        self._empty_since.pop(name, None)
        with suppress(ApiError):
            self._api.delete("Node", "", name)
