"""Groups of nodes grow for Runs, stay warm, and go back to nothing; whatever dies in between."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dev.cluster.controlplane import ControlPlane
from dev.cluster.kubectl import Kubectl
from tests.providers.provider_servers import Repository

from .api import Object, condition, until
from .autoscaler import Autoscaler
from .bench import Bench
from .capacity_buffer import installed, published_crd
from .objects import IMAGE, inline_run, project, workflow
from .process import NAMESPACE, WRITES, Footprint
from .sizing import Pool, watched_pool


@pytest.fixture
def pool(sizing_bench: Bench) -> Iterator[Pool[Autoscaler]]:
    with watched_pool(sizing_bench, Autoscaler) as pool:
        yield pool


def test_a_gpu_group_goes_from_nothing_to_its_runs_and_back(
    pool: Pool[Autoscaler], repository: Repository
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
    assert pool.events()[0] == "ScaledUp"
    # An Event follows the status that it tells of.
    until(lambda: pool.events()[-1] == "ScaledDown", "the last decision is told")


def test_a_group_at_its_limit_says_so(pool: Pool[Autoscaler], repository: Repository) -> None:
    pool.create(max=1)
    pool.prepare(repository, 2)
    pool.await_status(desired=1)
    # It may have seen the first Run alone.
    until(lambda: condition(pool.obj, "AtLimit").get("reason") == "TooManyRuns", "it says so")
    assert condition(pool.obj, "AtLimit")["status"] == "True"


def test_nodes_are_warm_before_their_runs_and_a_run_pushes_a_placeholder_aside(
    pool: Pool[Autoscaler], repository: Repository
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


def test_a_node_is_there_before_its_workflows_tick_with_the_image_pulled(
    pool: Pool[Autoscaler], repository: Repository
) -> None:
    namespace, bench = pool.bench.namespace, pool.bench
    pool.create(warmAhead="2h")
    minute = (datetime.now(UTC).minute + 30) % 60
    ticking = workflow(namespace, nodeGroup=pool.name, schedule=f"{minute} * * * *")
    bench.create(project(namespace, repository.url))
    bench.await_reason("Project", "wine", "Ready")
    bench.create(ticking)
    pool.await_nodes(1)
    pool.await_status(desired=1, ready=1, busy=0, pendingRuns=0)
    assert bench.api.list("Run", namespace) == []
    [placeholder] = pool.placeholders()
    assert [c["image"] for c in placeholder["spec"]["containers"][1:]] == [IMAGE]
    bench.patch("Workflow", "analysis", suspend=True)
    pool.await_nodes(0)


def test_whatever_step_the_operator_dies_at_the_group_ends_the_same(
    pool: Pool[Autoscaler], repository: Repository
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
    pool: Pool[Autoscaler], control_plane: ControlPlane
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
    mine = [r for r in footprint.requests() if r.verb in WRITES]
    assert [str(r) for r in mine if r.name != "other"] == []


def test_a_run_of_an_unknown_group_says_so_and_starts_once_it_is_there(
    pool: Pool[Autoscaler], repository: Repository
) -> None:
    [name] = pool.prepare(repository, 1)
    pool.bench.await_reason("Run", name, "NodeGroupNotFound")
    pool.bench.await_reason("Workflow", "analysis", "NodeGroupNotFound")
    pool.create()
    pool.bench.await_reason("Workflow", "analysis", "Ready")
    pool.finish(name)


@pytest.fixture(scope="module")
def crd() -> Path:
    return published_crd()


def buffer_of(pool: Pool[Autoscaler]) -> Object:
    found = pool.bench.api.get("CapacityBuffer", NAMESPACE, f"{pool.name}-placeholder")
    return found["spec"] if found else {}


def test_a_capacity_buffer_speaks_for_nodes_where_its_kind_is_served(
    pool: Pool[Autoscaler],
    kubectl: Kubectl,
    crd: Path,
    control_plane: ControlPlane,
    repository: Repository,
) -> None:
    api, name = pool.bench.api, f"{pool.name}-placeholder"
    pool.create(min=1, provider={"capacity": {"capacityBuffer": True}})
    for type in ("Ready", "ScalingActive"):
        until(lambda t=type: condition(pool.obj, t).get("reason") == "InvalidSpec", f"{type} is")
        assert condition(pool.obj, type)["status"] == "False"
        message = condition(pool.obj, type)["message"]
        assert message.startswith("spec.provider.capacity.capacityBuffer: this cluster does not")
    with installed(kubectl, crd):
        pool.patch(min=2)
        until(lambda: buffer_of(pool).get("replicas") == 2, "two nodes are asked for")
        pool.await_status(provider="capacityBuffer", desired=2, ready=0)
        assert condition(pool.obj, "ScalingActive")["status"] == "True"
        template = api.get("PodTemplate", NAMESPACE, buffer_of(pool)["podTemplateRef"]["name"])
        assert template is not None
        assert template["template"]["spec"]["nodeSelector"] == {"pool": pool.name}
        assert pool.placeholders() == []

        footprint = Footprint(control_plane.audit_log)
        pool.bench.operator.restart()
        assert [str(r) for r in footprint.requests() if r.verb in WRITES] == []

        pool.autoscaler.is_paused = True
        pool.prepare(repository, 1)
        until(lambda: buffer_of(pool)["replicas"] == 1, "the Run's pod asks for its own node")
        pool.patch(provider={"capacity": {"capacityBuffer": False}})
        until(lambda: not buffer_of(pool), "the buffer goes")
        until(lambda: api.get("PodTemplate", NAMESPACE, name) is None, "its template goes")
        until(pool.placeholders, "pods take its place")
        pool.patch(provider={"capacity": {"capacityBuffer": True}})
        until(lambda: buffer_of(pool) and not pool.placeholders(), "and give it back")
        api.delete("NodeGroup", "", pool.name)
        until(lambda: not buffer_of(pool), "it goes with its group")


def test_idle_nodes_without_an_autoscaler_are_drained_and_deleted(pool: Pool[Autoscaler]) -> None:
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
    until(lambda: len(pool.autoscaler.nodes()) == 1, "one node goes")
    pool.await_status(desired=1, ready=1)
    left = pool.autoscaler.nodes()[0]
    assert left["metadata"]["name"] in (node, kept)
    assert not left["spec"].get("unschedulable")
