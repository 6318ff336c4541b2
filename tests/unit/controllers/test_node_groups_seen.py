"""What of the caches counts for a NodeGroup, and whom a change concerns."""

import itertools
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from objects import Object, at, make_node_group, make_object, make_settings, stamp

from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.controllers.backoff import DENIED_DELAY
from labfunctions_operator.controllers.caches import NODES_KNOWN
from labfunctions_operator.controllers.dependents import Dependents
from labfunctions_operator.controllers.executor import Attempt, Denial
from labfunctions_operator.controllers.nodegroups import NodeGroups
from labfunctions_operator.controllers.pools import Pools
from labfunctions_operator.controllers.world import World
from labfunctions_operator.errors import ChildRefused, Denied, InvalidSpec, NotFound
from labfunctions_operator.reconcile.demand import NodeGroupObserved
from labfunctions_operator.reconcile.nodes import Bounds, GroupSize, PoolView
from labfunctions_operator.reconcile.plan import Key, Plan

GROUP = Key("NodeGroup", "", "gpu")
RUN_LABELS = {
    "app.kubernetes.io/component": "run",
    "labfunctions.io/run": "first",
    "labfunctions.io/node-group": "gpu",
}
POD_SPEC = {
    "containers": [{"name": "notebook", "resources": {"requests": {"cpu": "500m"}}}],
    "initContainers": [
        {"name": "courier", "restartPolicy": "Always", "resources": {"requests": {"cpu": "10m"}}},
        {"name": "setup", "resources": {"requests": {"cpu": "64"}}},
    ],
}
_versions = itertools.count(1)


def world_of(*objects: Object) -> World:
    world = World()
    for obj in objects:
        obj["metadata"]["resourceVersion"] = str(next(_versions))
        assert world.caches[obj["kind"]].upsert(obj)
    return world


def plain(kind: str, name: str, spec: Any, labels: Any = None, **status: Any) -> Object:
    obj = make_object(kind, name, spec, status)
    obj["metadata"]["labels"] = labels or {}
    if kind == "Node":
        del obj["metadata"]["namespace"]
    return obj


def group() -> Object:
    obj = make_object("NodeGroup", "gpu", {"labels": {"pool": "gpu", "zone": "a"}, "max": 3})
    del obj["metadata"]["namespace"]
    return obj


def run(name: str = "first", *, status: Any = None, **spec: Any) -> Object:
    return make_object("Run", name, {"workflowRef": {"name": "report"}, **spec}, status)


def workflow(**spec: Any) -> Object:
    base = {"projectRef": {"name": "demo"}, "notebook": "a.ipynb"}
    status = spec.pop("status", None)
    return make_object("Workflow", "report", {**base, **spec}, status)


def project(**spec: Any) -> Object:
    return make_object("Project", "demo", {"source": {"git": {"url": "https://x/y"}}, **spec})


def job(*conditions: Object, **spec: Any) -> Object:
    body = {"template": {"spec": POD_SPEC}, **spec}
    return plain("Job", "first-1", body, RUN_LABELS, conditions=list(conditions))


def pod(node: str | None = None, phase: str = "Pending") -> Object:
    spec = {**POD_SPEC, **({"nodeName": node} if node else {})}
    return plain("Pod", "first-1-x", spec, RUN_LABELS, phase=phase)


def waits(reason: str) -> Object:
    condition = {"type": "Succeeded", "status": "Unknown", "reason": reason, "message": ""}
    return {"phase": "Pending", "conditions": [{**condition, "lastTransitionTime": stamp()}]}


def concerned(world: World, obj: Object, *, autoscaling: bool = True) -> list[Key]:
    return Dependents(world, autoscaling=autoscaling).concerned(obj)


def groups_of(
    world: World, executor: Any = None, pools: Any = None, *, client: Any = None
) -> NodeGroups:
    return NodeGroups(
        client=client,
        world=world,
        pools=pools or Pools(lambda _: pytest.fail("no provider"), lambda _: None),
        executor=executor,
        settings=make_settings(autoscaling={"enabled": True}),
    )


async def observe(world: World) -> NodeGroupObserved:
    groups = groups_of(world)
    return await groups.observe(GROUP, make_node_group(labels={"pool": "gpu", "zone": "a"}))


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        pytest.param([run(nodeGroup="gpu")], [{}], id="a new Run"),
        pytest.param([run(), workflow(nodeGroup="gpu")], [{}], id="its Workflow names the group"),
        pytest.param(
            [run(), workflow(), project(defaults={"nodeGroup": "gpu"})],
            [{}],
            id="its Project's default names the group",
        ),
        pytest.param(
            [run(nodeGroup="gpu"), job()], [{"cpu": "0.510"}], id="a Job whose pod is to come"
        ),
        pytest.param(
            [run(nodeGroup="gpu"), job(), pod()], [{"cpu": "0.510"}], id="a pod without a node"
        ),
        pytest.param([run(nodeGroup="gpu"), job(), pod("n")], [], id="a pod with a node"),
        pytest.param(
            [run(nodeGroup="gpu"), job(), pod("n", "Succeeded")], [], id="a pod that has ended"
        ),
        pytest.param([run(nodeGroup="gpu"), job(suspend=True)], [], id="held back by Kueue"),
        pytest.param(
            [run(nodeGroup="gpu"), job({"type": "Suspended", "status": "False"})],
            [{"cpu": "0.510"}],
            id="let through by Kueue",
        ),
        pytest.param(
            [run(nodeGroup="gpu"), job({"type": "Failed", "status": "True"})],
            [],
            id="a Job that has ended",
        ),
        pytest.param([run(nodeGroup="cpu")], [], id="another group's"),
        pytest.param([run(), workflow()], [], id="no group's"),
        pytest.param(
            [run(nodeGroup="gpu", status=waits("ImageBuilding"))], [], id="waits for its image"
        ),
        pytest.param([run(nodeGroup="gpu", status=waits("Retrying"))], [], id="between attempts"),
        pytest.param(
            [run(nodeGroup="gpu", status=waits("QuotaExceeded")), job()], [], id="over its quota"
        ),
        pytest.param(
            [run(nodeGroup="gpu", status={"phase": "Succeeded"})], [], id="a Run of the past"
        ),
        pytest.param(
            [
                run(
                    nodeGroup="cpu",
                    status={"snapshot": {"nodeGroup": "gpu", "project": "p", "image": "i"}},
                ),
                job(),
            ],
            [{"cpu": "0.510"}],
            id="what it was started with counts",
        ),
    ],
)
async def test_a_run_waits_for_a_node_and_nothing_else(
    objects: list[Object], expected: list[Object]
) -> None:
    assert list((await observe(world_of(*objects))).waiting) == expected


async def test_nodes_have_all_labels_and_pods_are_those_on_them() -> None:
    whole = plain("Node", "whole", {}, {"pool": "gpu", "zone": "a"})
    half = plain("Node", "half", {}, {"pool": "gpu", "zone": "b"})
    holder = plain(
        "Pod",
        "gpu-placeholder-0",
        {"nodeName": "whole"},
        {
            "app.kubernetes.io/component": "placeholder",
            "labfunctions.io/node-group": "gpu",
        },
        phase="Running",
    )
    holder["metadata"]["namespace"] = "labfunctions-system"
    seen = await observe(world_of(whole, half, holder, pod("half", "Running")))
    assert [n["metadata"]["name"] for n in seen.nodes] == ["whole"]
    assert [p["metadata"]["name"] for p in seen.pods] == ["gpu-placeholder-0"]
    assert [p["metadata"]["name"] for p in seen.placeholders] == ["gpu-placeholder-0"]


async def test_the_last_end_on_a_node_is_that_of_any_attempt() -> None:
    attempts = [
        {"number": 1, "job": "j", "node": "n", "finishTime": stamp(50)},
        {"number": 2, "job": "j", "node": "m", "finishTime": stamp(90)},
    ]
    world = world_of(
        plain("Node", "n", {}, {"pool": "gpu", "zone": "a"}),
        run("old", status={"phase": "Succeeded", "attempts": attempts[:1]}),
        run("new", status={"phase": "Running", "attempts": attempts}),
    )
    assert (await observe(world)).ends == {"n": stamp(50)}


def not_ready(reason: str) -> Object:
    condition = {"type": "Ready", "status": "False", "reason": reason, "message": ""}
    return {"conditions": [{"type": "Scheduled", "reason": "Active"}, condition]}


TICK = datetime(2026, 1, 1, 13, tzinfo=UTC)
READY = [{"type": "Scheduled", "status": "True"}, {"type": "Ready", "status": "True"}]


async def ticks(said: Any, *runs: Object, conditions: Any = READY, **spec: Any) -> list[datetime]:
    """When a Workflow is seen to run next."""
    status = {"conditions": conditions, **({"nextScheduleTime": said} if said else {})}
    obj = workflow(nodeGroup="gpu", status=status, **spec)
    for made in runs:
        made["metadata"]["ownerReferences"][0]["uid"] = obj["metadata"]["uid"]
    return list((await observe(world_of(obj, *runs))).ticks)


def tick_run(tick: datetime, phase: str | None = None) -> Object:
    """The Run that the Workflow's schedule makes for a tick."""
    obj = run(f"report-{int(tick.timestamp()) // 60}", status={"phase": phase} if phase else {})
    obj["metadata"]["annotations"] = {"labfunctions.io/scheduled-at": rfc3339(tick)}
    owner = {"kind": "Workflow", "name": "report", "controller": True}
    obj["metadata"]["ownerReferences"] = [owner]
    return obj


@pytest.mark.parametrize("said", ["tomorrow", None, 7, "0001-01-01T00:00:00+23:59"])
async def test_a_tick_may_be_anything(said: Any) -> None:
    assert await ticks(said) == []


@pytest.mark.parametrize("phase", [None, "Succeeded"])
async def test_a_tick_that_has_its_run_is_not_ahead(phase: str | None) -> None:
    assert await ticks(rfc3339(TICK)) == [TICK]
    assert await ticks(rfc3339(TICK), tick_run(TICK, phase)) == []


@pytest.mark.parametrize("conditions", [[], not_ready("ProjectNotReady")["conditions"], 7])
async def test_a_tick_of_a_workflow_that_cannot_start_needs_no_node(conditions: Any) -> None:
    assert await ticks(rfc3339(TICK), conditions=conditions) == []


@pytest.mark.parametrize(
    ("policy", "counts"), [("Allow", True), ("Replace", True), ("Forbid", False), ("Queue", False)]
)
async def test_a_tick_that_waits_for_a_run_before_it_needs_no_node(
    policy: str, counts: bool
) -> None:
    before = TICK - timedelta(hours=1)
    for phase, expected in (("Running", counts), ("Succeeded", True)):
        seen = await ticks(rfc3339(TICK), tick_run(before, phase), concurrencyPolicy=policy)
        assert bool(seen) == expected


async def test_a_run_that_a_history_has_deleted_still_counts_for_its_node() -> None:
    attempts = [{"number": 1, "job": "j", "node": "n", "finishTime": stamp(50)}]
    ended = run("old", status={"phase": "Succeeded", "attempts": attempts})
    live = run("old", status={"phase": "Running"})
    world = world_of(plain("Node", "n", {}, {"pool": "gpu", "zone": "a"}), live, ended)
    world.caches["Run"].remove(ended)
    assert (await observe(world)).ends == {"n": stamp(50)}
    later = run("late", status={"phase": "Succeeded", "attempts": attempts})
    later["status"]["attempts"][0]["finishTime"] = stamp(90)
    later["metadata"]["resourceVersion"] = str(next(_versions))
    world.caches["Run"].replace([later], str(next(_versions)))
    world.caches["Run"].replace([], str(next(_versions)))
    assert (await observe(world)).ends == {"n": stamp(90)}, "nor does a new list forget"


def test_of_nodes_that_come_and_go_only_the_latest_are_known() -> None:
    world = World()
    for number in range(2 * NODES_KNOWN + 1):
        attempt = {"number": 1, "job": "j", "node": f"n-{number}", "finishTime": stamp(number)}
        obj = run("same", status={"phase": "Succeeded", "attempts": [attempt]})
        obj["metadata"]["resourceVersion"] = str(next(_versions))
        world.caches["Run"].upsert(obj)
    assert world.last_end_on("n-0") is None
    assert world.last_end_on(f"n-{2 * NODES_KNOWN}") == stamp(2 * NODES_KNOWN)


async def test_images_are_those_of_its_workflows_the_next_tick_first() -> None:
    late, soon, adhoc = (workflow(nodeGroup="gpu", runtime=name) for name in ("a", "b", "c"))
    for name, obj, tick in (
        ("late", late, "2026-01-02T00:00:00Z"),
        ("soon", soon, "2026-01-01T00:00:00Z"),
        ("adhoc", adhoc, None),
    ):
        obj["metadata"]["name"] = name
        obj["status"] = {"nextScheduleTime": tick} if tick else {}
    runtimes = [{"name": n, "image": f"registry/{n}"} for n in "abc"]
    built = project(runtimes=runtimes)
    built["status"] = {
        "runtimes": [
            {"name": n, "phase": "Ready", "image": f"registry/{n}@sha256:0"} for n in "abc"
        ]
    }
    seen = await observe(world_of(built, late, soon, adhoc))
    assert [image[9] for image in seen.images] == ["b", "a", "c"]


@pytest.mark.parametrize(
    "obj",
    [
        plain("Node", "n", {}, {"pool": "gpu", "zone": "a", "more": "x"}),
        run(nodeGroup="gpu"),
        pod("n"),
        job(),
        workflow(nodeGroup="gpu"),
    ],
    ids=lambda obj: str(obj["kind"]),
)
def test_what_changes_a_groups_count_wakes_it(obj: Object) -> None:
    assert GROUP in concerned(world_of(group()), obj)
    if obj["kind"] != "Node":  # nobody follows nodes then
        assert GROUP not in concerned(world_of(group()), obj, autoscaling=False)


class Recorder:
    """Takes the place of what carries plans out.

    Attributes:
        denied: What it may not do.
        applied: What was written, whether it may or not.
        told: Each status.
    """

    def __init__(self, *denied: Denial) -> None:
        self.denied = denied
        self.applied: list[Object] = []
        self.told: list[Any] = []

    async def attempt(self, plan: Plan, obj: Object) -> Attempt:
        self.applied += plan.apply
        return Attempt(refused=dict.fromkeys(plan.evict, "a budget"), denied=self.denied)

    async def tell(self, plan: Plan, obj: Object) -> None:
        self.told.append(plan.status)


class Pods:
    """All pods of a node, as the API server lists them."""

    def __init__(self) -> None:
        owner = {"kind": "ReplicaSet", "controller": True}
        self.items = [plain("Pod", "web", {"nodeName": "n"}, phase="Running")]
        self.items[0]["metadata"]["ownerReferences"] = [owner]

    async def list(self, resource: object, *, field_selector: str) -> Any:
        assert field_selector == "spec.nodeName=n"
        return SimpleNamespace(items=self.items)


async def test_a_pod_that_may_not_leave_is_remembered_until_it_has() -> None:
    node = plain("Node", "n", {"unschedulable": True}, {"pool": "gpu"})
    node["metadata"]["annotations"] = {"labfunctions.io/releasing": stamp()}
    spec = {"labels": {"pool": "gpu"}, "max": 3, "provider": {"static": {"deleteNodes": True}}}
    obj = make_object("NodeGroup", "gpu", spec)
    pods = Pods()
    groups = groups_of(world_of(node), Recorder(), client=pods)
    parsed = make_node_group(**spec)
    for seconds, count, wait in ((10, 1, 0.5), (12, 1, 8), (20, 2, 0.5), (30, 2, 10)):
        assert await groups.reconcile(GROUP, obj, at(seconds)) == wait
        [refusal] = (await groups.observe(GROUP, parsed)).refusals.values()
        assert (refusal.count, refusal.why) == (count, "a budget")
    pods.items = []
    assert (await groups.observe(GROUP, parsed)).refusals == {}


async def test_a_group_that_is_gone_gives_back_the_nodes_it_cordoned() -> None:
    mine, others, by_hand = (
        plain("Node", name, {"unschedulable": True}, {"pool": pool})
        for name, pool in (("mine", "old"), ("others", "gpu"), ("by-hand", "old"))
    )
    others["metadata"]["labels"]["zone"] = "a"
    for node in (mine, others):
        node["metadata"]["annotations"] = {"labfunctions.io/releasing": stamp()}
    recorder = Recorder()
    world = world_of(mine, others, by_hand, group())
    groups = groups_of(world, recorder)
    await groups.leave(Key("NodeGroup", "", "old"))
    assert [m["metadata"]["name"] for m in recorder.applied] == ["mine"]
    assert "spec" not in recorder.applied[0], "the field is given up"
    recorder.denied = (Denial("Node", Denied("no right to patch nodes (403)")),)
    with pytest.raises(Denied):  # the engine tries again
        await groups.leave(Key("NodeGroup", "", "old"))


class Follower:
    """Takes the place of what talks to providers."""

    def __init__(self) -> None:
        self.told: list[Bounds | None] = []

    def view(self, key: Key, group: NodeGroup) -> PoolView | None:
        return PoolView(size=GroupSize(min=2, max=3)) if group.spec.provider.pool else None

    def follow(self, key: Key, group: NodeGroup, wanted: Bounds | None) -> float | None:
        self.told.append(wanted)
        return 60.0


@pytest.mark.parametrize("name", ["awsAutoScalingGroup", "static"])
async def test_a_pool_is_followed_though_its_group_cannot_be_worked_with(name: str) -> None:
    pool = {"name": "gpu", "region": "eu-west-1"} if name == "awsAutoScalingGroup" else {}
    obj = group()
    obj["spec"] |= {
        "provider": {name: pool},
        "warm": [{"schedule": "0 25 * * *", "duration": "1h", "min": 1}],
    }
    whose = {"pool": "awsAutoScalingGroup gpu eu-west-1"}
    obj["status"] = {
        "wanted": {"min": 2, "max": 3, "until": stamp(-1), **whose},
        "written": {"min": 2, "max": 3},
    }
    follower = Follower()
    groups = groups_of(world_of(obj), Recorder(), follower)
    if name == "static":
        with pytest.raises(InvalidSpec):
            await groups.reconcile(GROUP, obj, at(0))
        return
    assert await groups.reconcile(GROUP, obj, at(0)) == 60.0
    [told] = follower.told
    assert told is not None
    assert (told.min, told.max) == (0, 3)


def remote_group(**status: Any) -> Object:
    obj = group()
    obj["spec"]["provider"] = {"awsAutoScalingGroup": {"name": "gpu", "region": "eu-west-1"}}
    obj["status"] = status
    return obj


def said(status: Any, type: str = "Ready") -> tuple[str, str, str]:
    [found] = [c for c in status["conditions"] if c["type"] == type]
    return found["status"], found["reason"], found["message"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Denied("no right to patch nodes (403)"), "Forbidden"),
        (ChildRefused("spec.containers", "a policy says no"), "InvalidSpec"),
    ],
)
async def test_a_group_that_is_denied_a_part_goes_on_with_the_others(
    error: Exception, reason: str
) -> None:
    recorder, follower, obj = Recorder(Denial("Node", error)), Follower(), remote_group()
    groups = groups_of(world_of(obj, run(nodeGroup="gpu")), recorder, follower)
    assert await groups.reconcile(GROUP, obj, at(0)) == DENIED_DELAY
    [status] = recorder.told
    assert (status["desired"], status["wanted"]["min"]) == (1, 1)
    assert said(status)[:2] == ("False", reason)
    assert said(status)[2].startswith(f"{error}; ")
    assert said(status, "ScalingActive") == ("False", reason, str(error))
    [told] = follower.told
    assert told is not None
    assert told.min == 1
    again = {**obj, "status": status}
    await groups.reconcile(GROUP, again, at(60))
    assert recorder.told[1] == status, "it says so once"
    recorder.denied = ()
    await groups.reconcile(GROUP, again, at(120))
    assert said(recorder.told[2])[:2] == ("True", "Ready")


async def test_placeholders_that_are_denied_are_no_loop_of_somebodys() -> None:
    obj = group()
    obj["spec"]["min"] = 2
    recorder = Recorder(*[Denial("Pod", Denied("exceeded quota (403)"))] * 2)
    groups = groups_of(world_of(obj), recorder)
    for minute in range(3):
        await groups.reconcile(GROUP, obj, at(60 * minute))
        obj = {**obj, "status": recorder.told[-1]}
        assert said(obj["status"], "ScalingActive") == (
            "False",
            "Forbidden",
            "exceeded quota (403)",
        )
        assert "recentDecisions" not in obj["status"]
    assert len(recorder.applied) == 6


async def test_a_cluster_without_capacity_buffers_says_so_and_goes_on() -> None:
    obj = group()
    obj["spec"]["provider"] = {"capacity": {"capacityBuffer": True}}
    recorder = Recorder(Denial("CapacityBuffer", NotFound("no such kind")))
    await groups_of(world_of(obj, run(nodeGroup="gpu")), recorder).reconcile(GROUP, obj, at(0))
    [status] = recorder.told
    assert status["pendingRuns"] == 1
    assert said(status)[:2] == ("False", "InvalidSpec")
    assert "spec.provider.capacity.capacityBuffer: this cluster does not serve" in said(status)[2]


class Secretive:
    """Lets nobody list pods."""

    async def list(self, *_: Any, **__: Any) -> Any:
        raise Denied("no right to list pods (403)")


async def test_a_node_whose_pods_may_not_be_listed_stays_and_the_group_goes_on() -> None:
    node = plain("Node", "n", {"unschedulable": True}, {"pool": "gpu", "zone": "a"})
    node["metadata"]["annotations"] = {"labfunctions.io/releasing": stamp(-60)}
    obj = group()
    obj["spec"]["provider"] = {"static": {"deleteNodes": True}}
    recorder = Recorder()
    groups = groups_of(world_of(obj, node), recorder, client=Secretive())
    assert await groups.reconcile(GROUP, obj, at(0)) == DENIED_DELAY
    assert recorder.applied == []
    [status] = recorder.told
    assert said(status)[:2] == ("False", "Forbidden")
    assert said(status)[2].startswith("no right to list pods (403); ")


def test_a_new_image_wakes_the_groups_that_pull_it() -> None:
    assert GROUP in concerned(world_of(group(), workflow(nodeGroup="gpu")), project())
    assert GROUP not in concerned(world_of(group(), workflow()), project())


def test_other_nodes_wake_nobody() -> None:
    node = plain("Node", "n", {}, {"pool": "gpu", "zone": "b"})
    assert concerned(world_of(group()), node) == []


def test_a_group_that_appears_or_goes_wakes_the_workflows_that_name_it() -> None:
    report = Key("Workflow", "team", "report")
    missing = workflow(nodeGroup="gpu", status=not_ready("NodeGroupNotFound"))
    fine = workflow(nodeGroup="gpu", status=not_ready("Ready"))
    by_default = workflow(status=not_ready("NodeGroupNotFound"))
    defaults = project(defaults={"nodeGroup": "gpu"})
    assert report in concerned(world_of(group(), missing), group())
    assert report in concerned(world_of(group(), by_default, defaults), group())
    assert report not in concerned(world_of(group(), fine), group()), "nothing is news to it"
    assert report in concerned(world_of(fine), group()), "the group is gone"
    assert report not in concerned(world_of(workflow(nodeGroup="cpu")), group())


def test_a_group_that_appears_wakes_the_runs_that_miss_it() -> None:
    missing = run("missing", nodeGroup="gpu", status=waits("NodeGroupNotFound"))
    other = run("other", nodeGroup="gpu", status=waits("Unschedulable"))
    elsewhere = run("elsewhere", nodeGroup="cpu", status=waits("NodeGroupNotFound"))
    keys = concerned(world_of(missing, other, elsewhere), group())
    assert keys == [GROUP, Key("Run", "team", "missing")]
