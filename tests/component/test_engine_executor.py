"""Plans carried out against a real API server: what is written, and what is not."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from dev.cluster.kubectl import Kubectl
from labfunctions_operator.controllers.engine import Engine
from labfunctions_operator.controllers.executor import Attempt, Executor
from labfunctions_operator.desired.names import SPEC_HASH
from labfunctions_operator.errors import InvalidSpec, NotFound, Transient
from labfunctions_operator.kube.cache import Cache
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.kube.informer import Informer
from labfunctions_operator.kube.resources import JOBS
from labfunctions_operator.reconcile.plan import Event, Key, Plan, Ref

from .harness import PROBES, Audit, config_map, job, owned, probe, ref_of, until

Object = dict[str, Any]

UNHOLD = ("--type=merge", '--patch={"metadata": {"finalizers": null}}')
BUILT = Event(type="Normal", reason="Built", message="image is ready")


@dataclass
class Bench:
    """An executor, its caches, and an object that a user made."""

    client: KubeClient
    audit: Audit
    owner: Object
    namespace: str
    caches: dict[str, Cache] = field(
        default_factory=lambda: {"Probe": Cache(), "Job": Cache(), "ConfigMap": Cache()}
    )

    async def execute(self, plan: Plan, obj: Object | None = None) -> None:
        await Executor(self.client, self.caches).execute(plan, obj or self.owner)

    async def attempt(self, plan: Plan) -> Attempt:
        return await Executor(self.client, self.caches).attempt(plan, self.owner)

    def held(self, kind: str, name: str) -> Object | None:
        return self.caches[kind].get(self.namespace, name)

    def job(self, **container: Any) -> Object:
        return owned(job(self.namespace, **container), self.owner)

    def config_map(self, name: str = "c", **data: str) -> Object:
        return owned(config_map(self.namespace, name, **data), self.owner)


def create_as_user(kubectl: Kubectl, manifest: Object) -> None:
    kubectl.run("create", "--validate=false", "-f", "-", text=json.dumps(manifest))


@pytest.fixture
async def bench(client: KubeClient, audit: Audit, kubectl: Kubectl, namespace: str) -> Bench:
    create_as_user(kubectl, probe(namespace))
    owner = await client.get(PROBES.api_version, "Probe", namespace, "p")
    return Bench(client, audit, owner, namespace)


async def test_executor_carries_a_plan_out_in_order(bench: Bench) -> None:
    old = bench.config_map("old")
    await bench.execute(Plan(apply=(old,)))
    plan = Plan(
        delete=(ref_of(old),),
        apply=(bench.job(), bench.config_map("new")),
        status={"phase": "Done"},
        events=(BUILT,),
    )
    await bench.execute(plan)
    assert await bench.audit.writes() == [
        "patch configmaps",
        "delete configmaps",
        "create jobs",
        "patch configmaps",
        "patch probes/status",
        "create events",
    ]
    # All of it is in the caches, though nothing is watched here.
    assert bench.held("ConfigMap", "old") is None
    assert bench.held("ConfigMap", "new") is not None
    assert bench.held("Job", "j") is not None
    stored = bench.held("Probe", "p")
    assert stored is not None
    assert stored["status"] == {"phase": "Done"}


async def test_executor_repeats_no_write(bench: Bench) -> None:
    plan = Plan(apply=(bench.job(), bench.config_map()), status={"phase": "Done"}, events=(BUILT,))
    await bench.execute(plan)
    first = await bench.audit.writes()
    assert len(first) == 4
    await bench.execute(plan, bench.held("Probe", "p"))
    assert await bench.audit.writes() == first


async def test_executor_reads_by_name_what_it_keeps_no_cache_of(bench: Bench) -> None:
    bench.caches.clear()
    plan = Plan(apply=(bench.config_map(),), status={"phase": "Done"})
    await bench.execute(plan)
    first = await bench.audit.writes()
    stored = await bench.client.get(PROBES.api_version, "Probe", bench.namespace, "p")
    await bench.execute(plan, stored)
    assert await bench.audit.writes() == first == ["patch configmaps", "patch probes/status"]


async def test_executor_applies_a_changed_child_once(bench: Bench) -> None:
    for data in ("1", "2", "2"):
        await bench.execute(Plan(apply=(bench.config_map(k=data),)))
    assert await bench.audit.writes() == ["patch configmaps"] * 2
    stored = await bench.client.get("v1", "ConfigMap", bench.namespace, "c")
    assert stored["data"] == {"k": "2"}
    assert len(stored["metadata"]["annotations"][SPEC_HASH]) == 16


async def test_executor_creates_a_job_once_and_never_touches_it_again(bench: Bench) -> None:
    for image in ("one", "two"):
        await bench.execute(Plan(apply=(bench.job(image=image),)))
    assert await bench.audit.writes() == ["create jobs"]


async def test_executor_takes_an_existing_job_of_its_owner_for_success(bench: Bench) -> None:
    created = await bench.client.create(bench.job())
    await bench.execute(Plan(apply=(bench.job(),)))
    held = bench.held("Job", "j")
    assert held is not None
    assert held["metadata"]["uid"] == created["metadata"]["uid"]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("make", [job, config_map])
async def test_executor_does_not_take_over_what_another_owner_made(
    bench: Bench, kubectl: Kubectl, cached: bool, make: Any
) -> None:
    create_as_user(kubectl, probe(bench.namespace, "other"))
    other = await bench.client.get(PROBES.api_version, "Probe", bench.namespace, "other")
    manifest = make(bench.namespace, "x")
    theirs = await bench.client.create(owned(manifest, other))
    if cached:
        bench.caches[theirs["kind"]].upsert(theirs)
    else:
        del bench.caches[theirs["kind"]]
    with pytest.raises(Transient, match="belongs to another owner"):
        await bench.execute(Plan(apply=(owned(manifest, bench.owner),)))
    stored = await bench.client.get(theirs["apiVersion"], theirs["kind"], bench.namespace, "x")
    assert SPEC_HASH not in stored["metadata"].get("annotations", {})
    assert [o["name"] for o in stored["metadata"]["ownerReferences"]] == ["other"]


async def test_executor_changes_what_nobody_owns(bench: Bench) -> None:
    """As it does to cordon a Node, which the cluster made."""
    await bench.execute(Plan(apply=(config_map(bench.namespace, "c", data="1"),)))
    await bench.execute(Plan(apply=(config_map(bench.namespace, "c", data="2"),)))
    changed = bench.held("ConfigMap", "c")
    assert changed is not None
    assert changed["data"] == {"data": "2"}


async def test_executor_stops_at_a_child_that_the_server_refuses(bench: Bench) -> None:
    bad = bench.job(resources={"requests": {"memory": "plenty"}})
    plan = Plan(apply=(bad,), status={"phase": "Done"}, events=(BUILT,))
    with pytest.raises(InvalidSpec, match="quantities must match"):
        await bench.execute(plan)
    # The refused attempt alone.
    assert await bench.audit.writes() == ["create jobs"]


async def test_executor_writes_no_status_that_is_there_already(bench: Bench) -> None:
    same = {**bench.owner, "status": {"phase": "Done", "list": [1, {"a": 2}]}}
    status = {"list": [1, {"a": 2}], "phase": "Done"}
    await bench.execute(Plan(status=status, events=(BUILT,)), same)
    await bench.execute(Plan(events=(BUILT,)))
    assert await bench.audit.writes() == []


async def test_executor_is_content_when_its_object_is_gone(bench: Bench) -> None:
    await bench.client.delete(ref_of(bench.owner))
    await bench.client.apply(probe(bench.namespace))
    await bench.execute(Plan(status={"phase": "Done"}, events=(BUILT,)))
    successor = await bench.client.get(PROBES.api_version, "Probe", bench.namespace, "p")
    assert "status" not in successor
    assert "create events" not in await bench.audit.writes()


async def test_executor_deletes_what_still_lives_only_once(bench: Bench) -> None:
    child = bench.config_map()
    child["metadata"]["finalizers"] = ["test.labfunctions.io/hold"]
    await bench.execute(Plan(apply=(child,)))
    for _ in range(2):
        await bench.execute(Plan(delete=(ref_of(child),)))
    assert await bench.audit.writes() == ["patch configmaps", "delete configmaps"]
    await bench.client.apply(bench.config_map())


async def test_executor_tells_which_pods_a_budget_keeps_and_goes_on(
    bench: Bench, kubectl: Kubectl
) -> None:
    meta = {"namespace": bench.namespace, "name": "web"}
    for kind, version, body in (
        ("ServiceAccount", "v1", {}),
        (
            "Pod",
            "v1",
            {
                "metadata": {**meta, "labels": {"app": "web"}},
                "spec": {
                    "serviceAccountName": "web",
                    "containers": [{"name": "main", "image": "none"}],
                },
            },
        ),
        (
            "PodDisruptionBudget",
            "policy/v1",
            {"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}},
        ),
    ):
        create_as_user(kubectl, {"apiVersion": version, "kind": kind, "metadata": meta, **body})
    runs = ("--subresource=status", "--type=merge", '--patch={"status": {"phase": "Running"}}')
    kubectl.run("patch", "pod", "web", "-n", bench.namespace, *runs)
    ref = Ref.to("v1", "Pod", meta)
    plan = Plan(evict=(ref,), apply=(bench.config_map(a="b"),))
    refused = (await bench.attempt(plan)).refused
    assert "disruption budget web " in refused[ref]
    assert "patch configmaps" in await bench.audit.writes()
    kubectl.run("delete", "pdb", "web", "-n", bench.namespace)
    assert (await bench.attempt(Plan(evict=(ref,)))).refused == {}


async def test_executor_reports_a_namespace_that_is_gone(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.execute(Plan(apply=(job("no-such-namespace"),)))


async def test_executor_does_not_fail_for_a_lost_event(
    bench: Bench, kubectl: Kubectl, caplog: pytest.LogCaptureFixture
) -> None:
    held = probe(bench.namespace, "held")
    held["metadata"]["finalizers"] = ["test.labfunctions.io/hold"]
    create_as_user(kubectl, held)
    obj = await bench.client.get(PROBES.api_version, "Probe", bench.namespace, "held")
    # A namespace on its way out takes in nothing new, yet lets what is there change.
    kubectl.run("delete", "namespace", bench.namespace, "--wait=false")
    await bench.execute(Plan(status={"phase": "Done"}, events=(BUILT,)), obj)
    assert "patch probes/status" in await bench.audit.writes()
    assert "cannot record the Event Built" in caplog.text
    kubectl.run("patch", "probes.test.labfunctions.io/held", "-n", bench.namespace, *UNHOLD)


async def test_engine_informer_and_executor_settle_with_two_writes_and_stay_quiet(
    client: KubeClient, kubectl: Kubectl, audit: Audit, namespace: str
) -> None:
    """A reconciler as plain as can be: one Job for each Probe, its name in the status."""
    caches = {"Probe": Cache(), "Job": Cache()}
    passes = 0

    async def reconcile(key: Key) -> None:
        nonlocal passes
        obj = caches["Probe"].get(key.namespace, key.name)
        if obj is None or key.namespace != namespace:
            return
        passes += 1
        child = owned(job(namespace, key.name), obj)
        plan = Plan(apply=(child,), status={"phase": "Started", "job": key.name})
        await Executor(client, caches).execute(plan, obj)

    engine = Engine(reconcile)

    def enqueue(obj: Object) -> None:
        metadata = obj["metadata"]
        engine.enqueue(Key("Probe", metadata["namespace"], metadata["name"]))

    async def operate() -> list[asyncio.Task[None]]:
        informers = [Informer(client, r, caches[r.kind], enqueue) for r in (PROBES, JOBS)]
        tasks = [asyncio.create_task(informer.run()) for informer in informers]
        await asyncio.gather(*(informer.synced.wait() for informer in informers))
        return [*tasks, asyncio.create_task(engine.run())]

    async def cease(tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    tasks = await operate()
    names = [f"p{number}" for number in range(20)]
    for name in names:
        create_as_user(kubectl, probe(namespace, name))
    await until(
        lambda: all((caches["Probe"].get(namespace, n) or {}).get("status") for n in names),
        "all have a status",
    )
    await until(lambda: not len(engine), "the queue is empty")
    assert await audit.count() == {"create jobs": 20, "patch probes/status": 20}

    before = passes
    kubectl.run("annotate", "jobs", "--all", "-n", namespace, "someone=else")
    await until(lambda: passes >= before + 20, "foreign events are looked at")
    for name in names:
        engine.enqueue(Key("Probe", namespace, name))
    await until(lambda: passes >= before + 40, "a sweep is through")

    await cease(tasks)
    caches.update(Probe=Cache(), Job=Cache())
    engine, restarted = Engine(reconcile), passes
    tasks = await operate()
    await until(lambda: passes >= restarted + 20, "a restart is through")
    assert await audit.count() == {"create jobs": 20, "patch probes/status": 20}
    await cease(tasks)
