"""Karpenter itself: its own provider of fake nodes brings and takes what kwok then looks after."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.cluster.binaries import ensure, executable, source_of
from dev.cluster.controlplane import ControlPlane
from dev.cluster.kubectl import Kubectl
from dev.cluster.processes import Service, Supervisor
from dev.cluster.versions import components
from tests.providers.provider_servers import free_port

from .api import Api, Object, until
from .autoscaler import GPU_NODE, TAINT

NAME = "karpenter"
BUFFERS = "autoscaling.x-k8s.io_capacitybuffers.yaml"
_DEFINITIONS = (
    "kwok/apis/crds/karpenter.kwok.sh_kwoknodeclasses.yaml",
    *(f"pkg/apis/crds/karpenter.sh_{kind}.yaml" for kind in ("nodeclaims", "nodepools")),
    "pkg/apis/crds/karpenter.sh_nodeoverlays.yaml",
    f"pkg/apis/crds/{BUFFERS}",
)
_ON_DEMAND = {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}
_ZONE = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["zone-a"]}
_INSTANCE_TYPE = {
    "name": "gpu",
    "architecture": "amd64",
    "operatingSystems": ["linux"],
    "resources": GPU_NODE,
    "offerings": [{"Price": 1.0, "Available": True, "Requirements": [_ON_DEMAND, _ZONE]}],
}


def source() -> Path:
    """Return the folder of Karpenter's module."""
    return source_of(components()[NAME])


@contextmanager
def running_karpenter(control: ControlPlane, kubectl: Kubectl) -> Iterator[None]:
    """Install and start it, and take all of it away in the end."""
    ensure((NAME,))
    definitions = [argument for file in _DEFINITIONS for argument in ("-f", str(source() / file))]
    supervisor = Supervisor(control.root)
    kubectl.run("create", *definitions)
    try:
        kubectl.await_kinds("crd", "--all")
        supervisor.ensure(_service(control))
        node_class = _object("karpenter.kwok.sh/v1alpha1", "KWOKNodeClass", "fake", {})
        kubectl.run("create", "-f", "-", text=json.dumps(node_class))
        yield
        supervisor.require(NAME)
    finally:
        print(supervisor.log(NAME).read_text()[-20000:])
        supervisor.stop(NAME)
        # Bounded: what a failed test has left holds them back for ever.
        kubectl.run("delete", *definitions, "--timeout=30s")


def _service(control: ControlPlane) -> Service:
    types = control.root / "instance-types.json"
    types.write_text(json.dumps([_INSTANCE_TYPE]))
    env = {
        "KUBECONFIG": str(control.kubeconfig),
        "INSTANCE_TYPES_FILE_PATH": str(types),
        "FEATURE_GATES": "CapacityBuffer=true",
        "DISABLE_LEADER_ELECTION": "true",
        "METRICS_PORT": str(free_port()),
        "HEALTH_PROBE_PORT": str(free_port()),
    }
    return Service(NAME, (str(executable(NAME)),), env)


@dataclass(frozen=True)
class NodePool:
    """A pool of GPU nodes that Karpenter looks after.

    Attributes:
        labels: Of its nodes.
    """

    api: Api
    labels: dict[str, str]

    def start(self) -> None:
        self.api.create(_object("karpenter.sh/v1", "NodePool", self._name, self._spec()))

    def stop(self) -> None:
        # It leaves nodes with a protected Run alone, even without their pool.
        for pod in self.api.list("Pod", ""):
            if self.labels.items() <= (pod["spec"].get("nodeSelector") or {}).items():
                self.api.delete("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
        self.api.delete("NodePool", "", self._name)
        until(lambda: not self.nodes(), "Karpenter takes its nodes back", seconds=60)

    def nodes(self) -> list[Object]:
        return self.api.list("Node", "", f"pool={self._name}")

    def change(self) -> None:
        """Ask for other nodes than those that are there."""
        template = {"metadata": {"annotations": {"example.com/edition": "2"}}}
        self.api.patch("NodePool", "", self._name, {"spec": {"template": template}})

    @property
    def _name(self) -> str:
        return self.labels["pool"]

    def _spec(self) -> dict[str, Any]:
        node_class = {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "fake"}
        return {
            "template": {
                "metadata": {"labels": self.labels},
                "spec": {
                    "nodeClassRef": node_class,
                    "taints": [TAINT],
                    "requirements": [_ON_DEMAND],
                    "expireAfter": "Never",
                },
            },
            "limits": {"nvidia.com/gpu": "4"},
            "disruption": {"consolidationPolicy": "WhenEmpty", "consolidateAfter": "1s"},
        }


def _object(api_version: str, kind: str, name: str, spec: dict[str, Any]) -> Object:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}
