"""Groups of nodes grow for Runs, stay warm, and go back to nothing; whatever dies in between."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from dev.cluster.binaries import ensure
from dev.cluster.controlplane import ControlPlane
from dev.cluster.kubectl import Kubectl
from dev.cluster.kwok import COMPONENTS, Kwok
from tests.providers.provider_servers import Repository, S3Server, free_port

from . import process
from .api import Api, Object, condition, until
from .autoscaler import TAINT, Autoscaler
from .bench import Bench
from .kubelet import SUCCEEDED, Kubelet
from .objects import API_VERSION, inline_run, project, run, workflow
from .process import NAMESPACE, Footprint, OperatorProcess

AUTOSCALING = ("autoscaling.enabled=true", "autoscaling.deleteNodes=true")
QUICK = {"idle": {"after": "2s"}, "cooldown": {"up": "1s", "down": "1s"}}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def kwok(control_plane: ControlPlane) -> Iterator[None]:
    ensure(COMPONENTS)
    fake = Kwok(control_plane, complete_jobs=False)
    fake.start()
    yield
    fake.stop()


@pytest.fixture(scope="module")
def _sizing_operator(
    _operator: OperatorProcess,
    control_plane: ControlPlane,
    kubectl: Kubectl,
    store: S3Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OperatorProcess]:
    """An operator that sizes groups, in place of the one that does not."""
    assert _operator.stop() == 0
    folder = tmp_path_factory.mktemp("sizing-operator")
    process.grant_rights(kubectl, *AUTOSCALING)
    kubeconfig = folder / "kubeconfig"
    process.write_kubeconfig(control_plane, kubectl, kubeconfig)
    config = process.write_config(folder, store, free_port(), autoscaling={"enabled": True})
    operator = OperatorProcess(config, kubeconfig, folder / "operator.log")
    yield operator
    assert operator.stop() == 0
    process.grant_rights(kubectl)


@dataclass(frozen=True)
class Pool:
    """A group of GPU nodes, and what plays its autoscaler."""

    bench: Bench
    autoscaler: Autoscaler
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

    def await_status(self, seconds: float = 30, **fields: Any) -> None:
        def reached() -> bool:
            return {k: self.status.get(k) for k in fields} == fields

        try:
            until(reached, "", seconds=seconds)
        except AssertionError:
            ready = condition(self.obj, "Ready")
            raise AssertionError(f"not {fields} but {self.status}: {ready}") from None

    def await_nodes(self, count: int) -> None:
        until(
            lambda: len(self.autoscaler.nodes()) == count,
            f"{count} nodes; {self.status}",
            seconds=30,
        )

    def placeholders(self) -> list[Object]:
        selector = f"labfunctions.io/node-group={self.name}"
        return self.bench.api.list("Pod", NAMESPACE, selector)

    def events(self) -> list[str]:
        events = self.bench.api.list("Event", "default")
        mine = [e for e in events if e["involvedObject"]["name"] == self.name]
        return [e["reason"] for e in sorted(mine, key=lambda e: e["metadata"]["resourceVersion"])]

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

        return until(running, f"the pod of {name} runs", seconds=30)

    def finish(self, name: str) -> None:
        self.bench.kubelet.finish(self.running_pod(name), SUCCEEDED)
        self.bench.await_reason("Run", name, "Succeeded")


@pytest.fixture
def pool(
    api: Api,
    kubelet: Kubelet,
    kwok: None,
    _sizing_operator: OperatorProcess,
    footprint: Footprint,
    namespace: str,
) -> Iterator[Pool]:
    _sizing_operator.ensure()
    name = f"gpu-{next(_numbers)}"
    autoscaler = Autoscaler(api, {"pool": name})
    autoscaler.start()
    bench = Bench(api, kubelet, _sizing_operator, footprint, namespace)
    yield Pool(bench, autoscaler, name)
    if api.get("NodeGroup", "", name):
        api.delete("NodeGroup", "", name)
    autoscaler.stop()
    said = _sizing_operator.log.read_text()
    print(said[-20000:])
    assert '"level": "error", "logger": "labfunctions' not in said


def test_a_gpu_group_goes_from_nothing_to_its_runs_and_back(
    pool: Pool, repository: Repository
) -> None:
    pool.create()
    pool.await_status(desired=0)
    names = pool.prepare(repository, 3)
    pool.await_status(busy=3, desired=3, ready=3, pendingRuns=0)
    for name in names:
        pod = pool.running_pod(name)
        assert pod["spec"]["nodeName"].startswith(pool.name)
        assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pool.placeholders() == [], "an autoscaler sees the Runs themselves"
    for name in names:
        pool.finish(name)
    pool.await_nodes(0)
    pool.await_status(desired=0, busy=0, idle=0)
    assert pool.autoscaler.most == 3
    events = pool.events()
    assert events[0] == "ScaledUp"
    assert events[-1] == "ScaledDown"


def test_a_group_at_its_limit_says_so(pool: Pool, repository: Repository) -> None:
    pool.create(max=1)
    pool.prepare(repository, 2)
    pool.await_status(desired=1)
    limit = condition(pool.obj, "AtLimit")
    assert (limit["status"], limit["reason"]) == ("True", "TooManyRuns")


def test_nodes_are_warm_before_their_runs_and_a_run_pushes_a_placeholder_aside(
    pool: Pool, repository: Repository
) -> None:
    now = datetime.now(UTC)
    warm = {"schedule": f"{now.minute} {now.hour} * * *", "duration": "1h", "min": 2}
    pool.create(warm=[warm])
    pool.await_nodes(2)
    pool.await_status(desired=2, ready=2, busy=0)
    assert {p["spec"]["priorityClassName"] for p in pool.placeholders()} == {
        "labfunctions-placeholder"
    }
    pool.autoscaler.is_paused = True
    pool.prepare(repository, 1)
    pool.running_pod("run-0")
    pool.await_status(busy=1, idle=1, desired=2)
    until(lambda: len(pool.placeholders()) == 1, "one place-holder is left")
    pool.autoscaler.is_paused = False
    pool.finish("run-0")
    pool.patch(warm=[])
    pool.await_nodes(0)
    assert pool.autoscaler.most == 2


@pytest.mark.timeout(180)
def test_whatever_step_the_operator_dies_at_the_group_ends_the_same(
    pool: Pool, repository: Repository
) -> None:
    operator = pool.bench.operator
    pool.create(min=1)

    def die() -> None:
        operator.kill()
        operator.ensure()

    until(pool.placeholders, "a place-holder is there")
    die()
    pool.await_nodes(1)
    pool.autoscaler.is_paused = True
    names = pool.prepare(repository, 2)
    pool.await_status(pendingRuns=1)
    die()
    pool.autoscaler.is_paused = False
    pool.await_status(busy=2)
    die()
    for name in names:
        pool.finish(name)
    die()
    pool.await_nodes(1)
    pool.await_status(desired=1, busy=0)
    assert pool.autoscaler.most == 2
    assert pool.bench.footprint.count(pool.bench.namespace, "create jobs") == 2


def test_a_settled_group_costs_nothing_and_neither_does_a_restart(
    pool: Pool, control_plane: ControlPlane
) -> None:
    pool.create(min=1)
    pool.await_nodes(1)
    pool.await_status(ready=1, desired=1)
    until(
        lambda: all(p["status"].get("phase") == "Running" for p in pool.placeholders()),
        "the place-holder runs",
    )
    footprint = Footprint(control_plane.audit_log)
    pool.bench.operator.restart()
    node = pool.autoscaler.nodes()[0]["metadata"]["name"]
    pool.bench.api.patch("Node", "", node, {"metadata": {"annotations": {"touched": "yes"}}})
    pool.bench.create(inline_run(pool.bench.namespace, "other", nodeGroup="nowhere"))
    pool.bench.await_reason("Run", "other", "ProjectNotFound")
    mine = [r for r in footprint.requests() if r.verb in process.WRITES]
    assert [str(r) for r in mine if r.name != "other"] == []


def test_a_run_of_an_unknown_group_says_so_and_starts_once_it_is_there(
    pool: Pool, repository: Repository
) -> None:
    [name] = pool.prepare(repository, 1)
    pool.bench.await_reason("Run", name, "NodeGroupNotFound")
    pool.create()
    pool.finish(name)


def test_idle_nodes_without_an_autoscaler_are_drained_and_deleted(pool: Pool) -> None:
    pool.autoscaler.is_paused = True
    node = pool.autoscaler.add()
    kept = pool.autoscaler.add()
    bystander: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bystander", "namespace": "default"},
        "spec": {
            "nodeName": node,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "main", "image": "example.com/main"}],
        },
    }
    until(lambda: pool.bench.api.get("ServiceAccount", "default", "default"), "an account")
    pool.bench.create(bystander)
    pool.create(min=1, provider={"static": {"deleteNodes": True}}, idle={"after": "1s"})
    until(lambda: len(pool.autoscaler.nodes()) == 1, "one node goes", seconds=40)
    pool.await_status(desired=1, ready=1)
    left = pool.autoscaler.nodes()[0]
    assert left["metadata"]["name"] in (node, kept)
    assert not left["spec"].get("unschedulable")
