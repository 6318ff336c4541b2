"""What tests of groups of nodes share: an operator that sizes them, and a pool to watch."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from dev.cluster.binaries import ensure
from dev.cluster.controlplane import ControlPlane
from dev.cluster.kubectl import Kubectl
from dev.cluster.kwok import COMPONENTS, Kwok
from tests.providers.provider_servers import Repository, S3Server, free_port

from . import process
from .api import Api, Object, condition, until
from .autoscaler import TAINT
from .bench import Bench
from .inbox import Inbox
from .kubelet import SUCCEEDED
from .objects import API_VERSION, project, run, workflow
from .process import NAMESPACE, OperatorProcess

AUTOSCALING = ("autoscaling.enabled=true", "autoscaling.deleteNodes=true")
QUICK = {"idle": {"after": "2s"}, "cooldown": {"up": "1s", "down": "1s"}}
_numbers = itertools.count()


@contextmanager
def fake_nodes(control_plane: ControlPlane) -> Iterator[None]:
    """Let kwok look after the nodes and pods that a test's autoscaler brings."""
    ensure(COMPONENTS)
    fake = Kwok(control_plane, complete_jobs=False)
    fake.start()
    try:
        yield
    finally:
        fake.stop()


def sizing_config(folder: Path, store: S3Server, inbox: Inbox) -> Path:
    """Write the configuration of an operator that sizes groups."""
    autoscaling = {"enabled": True}
    return process.write_config(folder, store, free_port(), inbox, autoscaling=autoscaling)


@contextmanager
def sizing_operator(
    usual: OperatorProcess,
    control_plane: ControlPlane,
    kubectl: Kubectl,
    config: Path,
    **env: str,
) -> Iterator[OperatorProcess]:
    """Describe an operator that sizes groups, to run in place of the usual one."""
    assert usual.stop() == 0
    process.grant_rights(kubectl, *AUTOSCALING)
    kubeconfig = config.parent / "kubeconfig"
    process.write_kubeconfig(control_plane, kubectl, kubeconfig)
    operator = OperatorProcess(config, kubeconfig, config.parent / "operator.log", env)
    try:
        with fake_nodes(control_plane):
            yield operator
        assert operator.stop() == 0
    finally:
        operator.kill()
        process.grant_rights(kubectl)


class Scaler(Protocol):
    """What brings nodes of one pool, and takes them."""

    @property
    def labels(self) -> dict[str, str]:
        """Of its nodes."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End, and take all nodes away."""

    def nodes(self) -> list[Object]:
        """Return those that are there."""


S = TypeVar("S", bound=Scaler)


@contextmanager
def watched_pool(bench: Bench, scaler: Callable[[Api, dict[str, str]], S]) -> Iterator["Pool[S]"]:
    """Start an autoscaler for a pool of its own, and take all of it away in the end."""
    bench.operator.ensure()
    name = f"gpu-{next(_numbers)}"
    autoscaler = scaler(bench.api, {"pool": name})
    autoscaler.start()
    try:
        yield Pool(bench, autoscaler, name)
    finally:
        if bench.api.get("NodeGroup", "", name):
            bench.api.delete("NodeGroup", "", name)
        autoscaler.stop()
    said = bench.operator.log.read_text()
    print(said[-20000:])
    assert '"level": "error", "logger": "labfunctions' not in said


@dataclass(frozen=True)
class Pool(Generic[S]):
    """A group of GPU nodes, and its autoscaler."""

    bench: Bench
    autoscaler: S
    name: str

    def create(self, **spec: Any) -> None:
        self.bench.create(
            {
                "apiVersion": API_VERSION,
                "kind": "NodeGroup",
                "metadata": {"name": self.name},
                "spec": {
                    "labels": self.autoscaler.labels,
                    "taints": [TAINT],
                    "gpu": {"count": 1},
                    "max": 3,
                    **QUICK,
                    **spec,
                },
            }
        )

    def patch(self, **spec: Any) -> None:
        self.bench.api.patch("NodeGroup", "", self.name, {"spec": spec})

    @property
    def obj(self) -> Object:
        found = self.bench.api.get("NodeGroup", "", self.name)
        assert found is not None
        return found

    @property
    def status(self) -> Object:
        status: Object = self.obj.get("status") or {}
        return status

    def await_status(self, seconds: float = 60, **fields: Any) -> None:
        def reached() -> bool:
            return {k: self.status.get(k) for k in fields} == fields

        try:
            until(reached, "", seconds=seconds)
        except AssertionError:
            ready = condition(self.obj, "Ready")
            raise AssertionError(f"not {fields} but {self.status}: {ready}") from None

    def await_nodes(self, count: int, seconds: float = 60) -> None:
        try:
            until(lambda: len(self.autoscaler.nodes()) == count, "", seconds=seconds)
        except AssertionError:
            raise AssertionError(f"not {count} nodes; {self.status}") from None

    def placeholders(self) -> list[Object]:
        selector = f"labfunctions.io/node-group={self.name}"
        return self.bench.api.list("Pod", NAMESPACE, selector)

    def events(self) -> list[str]:
        events = self.bench.api.list("Event", "default")
        mine = [e for e in events if e["involvedObject"]["name"] == self.name]
        return [
            e["reason"] for e in sorted(mine, key=lambda e: int(e["metadata"]["resourceVersion"]))
        ]

    def prepare(self, repository: Repository, count: int) -> list[str]:
        """Create a Workflow of the group and some Runs of it."""
        namespace = self.bench.namespace
        names = [f"run-{n}" for n in range(count)]
        self.bench.create(
            project(namespace, repository.url),
            workflow(namespace, nodeGroup=self.name),
            *(run(namespace, name) for name in names),
        )
        return names

    def running_pod(self, name: str) -> Object:
        def running() -> Object | None:
            pods = self.bench.api.list("Pod", self.bench.namespace, f"labfunctions.io/run={name}")
            return next((p for p in pods if p["status"].get("phase") == "Running"), None)

        return until(running, f"the pod of {name} runs")

    def finish(self, name: str) -> None:
        self.bench.kubelet.finish(self.running_pod(name), SUCCEEDED)
        self.bench.await_reason("Run", name, "Succeeded")
