"""Karpenter, as it is released, answers what the operator asks for on behalf of Runs."""

from collections.abc import Iterator

import pytest

from dev.cluster.controlplane import ControlPlane
from dev.cluster.kubectl import Kubectl
from tests.providers.provider_servers import Repository

from .api import until
from .bench import Bench
from .karpenter import NodePool, running_karpenter
from .objects import run
from .sizing import Pool, watched_pool

# Karpenter looks each ten seconds for nodes to take, and again 15 s later before it does.
LEAVING = 90


@pytest.fixture(scope="module")
def _karpenter(control_plane: ControlPlane, kubectl: Kubectl) -> Iterator[None]:
    with running_karpenter(control_plane, kubectl):
        yield


@pytest.fixture
def pool(_karpenter: None, sizing_bench: Bench) -> Iterator[Pool[NodePool]]:
    with watched_pool(sizing_bench, NodePool) as pool:
        yield pool


def test_it_brings_nodes_for_runs_and_takes_them_when_they_are_idle(
    pool: Pool[NodePool], repository: Repository
) -> None:
    pool.create()
    names = pool.prepare(repository, 2)
    pods = [pool.running_pod(name) for name in names]
    pool.await_status(busy=2, desired=2, ready=2, pendingRuns=0)
    assert {p["spec"]["nodeName"] for p in pods} == {
        n["metadata"]["name"] for n in pool.autoscaler.nodes()
    }
    assert pool.placeholders() == []
    for name in names:
        pool.finish(name)
    pool.await_nodes(0, LEAVING)
    pool.await_status(desired=0, busy=0, idle=0, ready=0)


def test_it_keeps_nodes_warm_for_placeholders_and_a_run_takes_one(
    pool: Pool[NodePool], repository: Repository
) -> None:
    pool.create(min=2)
    pool.await_status(desired=2, ready=2, busy=0)
    warm = {n["metadata"]["name"] for n in pool.autoscaler.nodes()}

    def filled() -> bool:
        return {p["spec"].get("nodeName") for p in pool.placeholders()} == warm

    until(filled, "each node has its place-holder")
    pool.prepare(repository, 1)
    assert pool.running_pod("run-0")["spec"]["nodeName"] in warm
    pool.await_status(busy=1, desired=2)
    pool.finish("run-0")


def test_it_keeps_nodes_warm_for_a_capacity_buffer(
    pool: Pool[NodePool], repository: Repository
) -> None:
    pool.create(min=1, provider={"capacity": {"capacityBuffer": True}})
    pool.await_status(provider="capacityBuffer", desired=1, ready=1, busy=0)
    assert pool.placeholders() == []
    [warm] = pool.autoscaler.nodes()
    pool.prepare(repository, 1)
    assert pool.running_pod("run-0")["spec"]["nodeName"] == warm["metadata"]["name"]
    pool.finish("run-0")
    pool.patch(min=0)
    pool.await_nodes(0, LEAVING)


def test_it_moves_only_runs_that_let_it(pool: Pool[NodePool], repository: Repository) -> None:
    pool.create()
    [kept] = pool.prepare(repository, 1)
    namespace = pool.bench.namespace
    inline = {"projectRef": {"name": "wine"}, "notebook": "analysis.ipynb"}
    movable = run(namespace, "movable", **inline, nodeGroup=pool.name, safeToEvict=True)
    pool.bench.create(movable)
    before = pool.running_pod(kept)
    pool.running_pod("movable")
    pool.autoscaler.change()

    def moved() -> bool:
        attempts = pool.bench.get("Run", "movable")["status"]["attempts"]
        return len(attempts) == 2 and attempts[0]["reason"] == "Disrupted"

    until(moved, "the one is evicted, and tried again", seconds=90)
    pool.running_pod("movable")
    assert pool.running_pod(kept)["metadata"]["uid"] == before["metadata"]["uid"]
    for name in (kept, "movable"):
        pool.finish(name)
