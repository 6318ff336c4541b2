"""Fake nodes: kwok plays the kubelet, so pods get ready and Jobs complete without containers.

A pod runs as soon as it is bound. One that belongs to a Job succeeds at once, unless that is left
to the test, which then patches the pod's status with the end it wants.
"""

import json
from collections.abc import Mapping
from typing import Any

from dev.cluster.binaries import executable
from dev.cluster.controlplane import ControlPlane
from dev.cluster.kubectl import Kubectl
from dev.cluster.processes import Service, Supervisor
from dev.cluster.progress import wait_for
from dev.cluster.versions import HERE

COMPONENTS = ("kwok",)
STAGES = tuple(HERE / "config" / "kwok" / name for name in ("live.yaml", "complete-jobs.yaml"))
ANNOTATION = "kwok.x-k8s.io/node"
CAPACITY = {"cpu": "32", "memory": "256Gi", "pods": "1000"}


class Kwok:
    """kwok against one control plane."""

    def __init__(self, control: ControlPlane, *, complete_jobs: bool = True) -> None:
        """Describe it; with `complete_jobs` the pods of Jobs succeed at once."""
        self._control = control
        self._stages = STAGES if complete_jobs else STAGES[:1]
        self._supervisor = Supervisor(control.root)
        self._kubectl = Kubectl(control.kubeconfig)

    def start(self) -> None:
        """Start kwok unless it runs."""
        argv = [
            str(executable("kwok")),
            f"--kubeconfig={self._control.kubeconfig}",
            f"--manage-nodes-with-annotation-selector={ANNOTATION}=fake",
            # Without leases the controller manager takes a node for lost after 50 s.
            "--node-lease-duration-seconds=40",
            # Nobody asks it for logs or metrics: it needs no port.
            "--server-address=",
            *(f"--config={file}" for file in self._stages),
        ]
        self._supervisor.ensure(Service("kwok", tuple(argv), files=self._stages))

    def stop(self) -> None:
        """End kwok."""
        self._supervisor.stop("kwok")

    def add_nodes(
        self,
        count: int,
        *,
        prefix: str = "fake",
        labels: Mapping[str, str] | None = None,
        capacity: Mapping[str, str] | None = None,
        taints: tuple[Mapping[str, str], ...] = (),
    ) -> list[str]:
        """Create fake nodes, wait until they are ready, and return their names.

        Args:
            count: How many.
            prefix: What their names begin with.
            labels: Labels on top of the usual ones.
            capacity: What each can hold; resources named here replace the generous defaults.
            taints: Taints of each.
        """
        names = [f"{prefix}-{number}" for number in range(count)]
        size = {**CAPACITY, **(capacity or {})}
        nodes = [_node(name, labels=labels or {}, size=size, taints=taints) for name in names]
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes})
        # Created, not applied: only so may the status come along.
        self._kubectl.run("create", "-f", "-", text=manifest)
        wait_for(f"{count} fake nodes", lambda: self._are_ready(names), seconds=60)
        return names

    def _are_ready(self, names: list[str]) -> bool:
        self._supervisor.require("kwok")
        ready = {
            node["metadata"]["name"]
            for node in self._kubectl.get("nodes")["items"]
            for condition in node["status"].get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "True"
        }
        return ready.issuperset(names)


def _node(
    name: str,
    *,
    labels: Mapping[str, str],
    size: Mapping[str, str],
    taints: tuple[Mapping[str, str], ...],
) -> dict[str, Any]:
    usual = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {**usual, **labels},
            "annotations": {ANNOTATION: "fake"},
        },
        "spec": {"taints": [dict(taint) for taint in taints]},
        "status": {"capacity": dict(size), "allocatable": dict(size)},
    }
