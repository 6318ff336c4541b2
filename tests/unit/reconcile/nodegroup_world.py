"""A group of nodes in memory: Runs, an autoscaler or none, a provider, and a clock."""

import json
from dataclasses import replace
from typing import Any

from crd_schema import status_errors
from objects import Object, at, make_object, make_settings, stamp, uid_of
from settling import Settling

from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.parse import parse
from labfunctions_operator.reconcile.demand import NodeGroupObserved, Refusal
from labfunctions_operator.reconcile.nodegroup import NodeGroupPlan, reconcile_node_group
from labfunctions_operator.reconcile.nodes import Bounds, GroupSize, PoolView
from labfunctions_operator.reconcile.plan import Event, Plan, Problem
from labfunctions_operator.reconcile.pods import is_over

SETTINGS = make_settings(autoscaling={"enabled": True})
REMOTE = {"awsAutoScalingGroup": {"name": "gpu", "region": "eu-west-1"}}
CLUSTER_API = {"clusterApi": {"name": "gpu", "namespace": "clusters"}}
ALLOCATABLE = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1", "pods": "110"}
RUN_LABELS = {
    "app.kubernetes.io/component": "run",
    "labfunctions.io/node-group": "gpu",
}
REQUESTS = {"cpu": "1", "nvidia.com/gpu": "1"}


# How long an autoscaler leaves a node that is not ready.
DEAD_SECONDS = 1200


def make_node(name: str, *, ready_at: float = 0, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": uid_of("Node", name),
            "labels": {"pool": "gpu"},
            "creationTimestamp": stamp(ready_at),
        },
        "spec": spec,
        "status": {
            "allocatable": dict(ALLOCATABLE),
            "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": stamp(ready_at)}
            ],
        },
    }


def make_pod_on(node: str, name: str = "run", **labels: str) -> Object:
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": uid_of("Pod", name),
            "labels": {**RUN_LABELS, **labels},
        },
        "spec": {"nodeName": node},
        "status": {"phase": "Running"},
    }


def make_other(name: str, owner: str | None = "ReplicaSet") -> Object:
    """A pod of somebody else."""
    owners = [{"kind": owner, "controller": True}] if owner else []
    return {
        "metadata": {
            "name": name,
            "namespace": "others",
            "uid": uid_of("Pod", name),
            "ownerReferences": owners,
        },
        "status": {"phase": "Running"},
    }


class NodeGroupWorld(Settling):
    """One NodeGroup and all that concerns it.

    Attributes:
        running: The node of each Run that runs.
        waiting: What each Run asks for that waits.
        others: Pods of others on each node.
        budgets: Those of them that may not leave.
        denied: What the API server says to each write but of the status, if it denies it.
        pool: The bounds at the provider; None for providers inside the cluster.
        writes: What the operator wrote: `status`, `create x`, `delete x`, `evict x`, `patch x`.
    """

    def __init__(self, **spec: Any) -> None:
        spec = {"labels": {"pool": "gpu"}, "max": 4, **spec}
        self.obj = make_object("NodeGroup", "gpu", spec)
        del self.obj["metadata"]["namespace"]
        self.seconds: float = 0
        self.nodes: dict[str, Object] = {}
        self.running: dict[str, str] = {}
        self.waiting: dict[str, dict[str, str]] = {}
        self.ends: dict[str, str] = {}
        self.ticks: list[float] = []
        self.images: list[str] = []
        self.placeholders: dict[str, Object] = {}
        self.others: dict[str, list[Object]] = {}
        self.budgets: set[str] = set()
        self.refusals: dict[str, Refusal] = {}
        provider = self.group.spec.provider
        is_remote = provider.capacity is None and provider.static is None
        self.pool = GroupSize(min=0, max=4, desired=0) if is_remote else None
        self.is_known = True
        self.denied: Problem | None = None
        self.writes: list[str] = []
        self.events: list[Event] = []

    @property
    def group(self) -> NodeGroup:
        return parse(NodeGroup, json.loads(json.dumps(self.obj)))

    @property
    def status(self) -> Object:
        found: Object = self.obj.get("status", {})
        return found

    @property
    def wanted(self) -> Object:
        """The bounds that were wanted last."""
        return {k: self.status["wanted"].get(k) for k in ("min", "max", "until")}

    def condition(self, type: str) -> tuple[str, str, str]:
        [found] = [c for c in self.status["conditions"] if c["type"] == type]
        return found["status"], found["reason"], found["message"]

    def edit(self, **spec: Any) -> None:
        metadata = self.obj["metadata"]
        self.obj = {
            **self.obj,
            "metadata": {**metadata, "generation": metadata["generation"] + 1},
            "spec": {**self.obj["spec"], **spec},
        }

    def add_nodes(self, count: int = 1) -> None:
        for _ in range(count):
            name = f"node-{len(self.nodes)}-{self.seconds:.0f}"
            self.nodes[name] = make_node(name, ready_at=self.seconds)

    def observed(self) -> NodeGroupObserved:
        return NodeGroupObserved(
            nodes=list(self.nodes.values()),
            pods=[make_pod_on(node, run) for run, node in self.running.items()],
            waiting=list(self.waiting.values()),
            ends=dict(self.ends),
            ticks=[at(t) for t in self.ticks],
            images=self.images,
            placeholders=list(self.placeholders.values()),
            pool=self._view(),
            drained={
                name: [
                    *self.others.get(name, []),
                    *(make_pod_on(n, run) for run, n in self.running.items() if n == name),
                ]
                for name in self.nodes
            },
            refusals=self.refusals,
        )

    def _view(self) -> PoolView | None:
        if self.pool is None:
            return None
        return PoolView(size=self.pool if self.is_known else None)

    def decide(self) -> NodeGroupPlan:
        return reconcile_node_group(self.group, self.observed(), SETTINGS, at(self.seconds))

    def step(self) -> NodeGroupPlan:
        """Reconcile once and carry it out."""
        decided = self.decide()
        if self.denied and (decided.plan.apply or decided.plan.delete):
            kinds = {what["kind"] for what in decided.plan.apply}
            is_placing_denied = "Pod" in kinds | {ref.kind for ref in decided.plan.delete}
            seen = replace(
                self.observed(), denied=(self.denied,), is_placing_denied=is_placing_denied
            )
            decided = reconcile_node_group(self.group, seen, SETTINGS, at(self.seconds))
        else:
            self._write_children(decided.plan)
        self._write_status(decided.plan)
        if decided.bounds is not None:
            self._write_pool(decided.bounds)
        return decided

    def die(self, *, after: str) -> None:
        """Reconcile, stop before all is carried out, and start anew without what was in memory."""
        decided = self.decide()
        self._write_children(decided.plan)
        if after == "status":
            self._write_status(decided.plan)
        self.refusals.clear()
        self.ends.clear()

    def _write_children(self, plan: Plan) -> None:
        for ref in plan.delete:
            self.writes.append(f"delete {ref.name}")
            (self.placeholders if ref.kind == "Pod" else self.nodes).pop(ref.name)
        for ref in plan.evict:
            self.writes.append(f"evict {ref.name}")
            if ref.name in self.budgets and ref.uid:
                before = self.refusals.get(ref.uid)
                self.refusals[ref.uid] = Refusal(
                    count=before.count + 1 if before else 1, at=at(self.seconds), why="a budget"
                )
        for manifest in plan.apply:
            self._apply(json.loads(json.dumps(manifest)))

    def _write_status(self, plan: Plan) -> None:
        status = json.loads(json.dumps(plan.status))
        if status != self.obj.get("status"):
            assert status_errors("NodeGroup", status) == []
            self.obj = {**self.obj, "status": status}
            self.writes.append("status")
            self.events += plan.events

    def _write_pool(self, bounds: Bounds) -> None:
        assert self.pool is not None
        assert self.is_known
        wanted = (bounds.min, bounds.max)
        if wanted == (self.pool.min, self.pool.max):
            return
        assert self.status["wanted"]["min"] == bounds.min, "on record before it is written"
        assert bounds.max >= max(self.pool.desired or 0, len(self.nodes))
        desired = max(self.pool.desired or 0, bounds.min)
        self.pool = GroupSize(min=bounds.min, max=bounds.max, desired=desired)
        self.writes.append(f"pool {bounds.min}..{bounds.max}")

    def _apply(self, manifest: Object) -> None:
        name = manifest["metadata"]["name"]
        if manifest["kind"] == "Pod":
            manifest["metadata"]["uid"] = uid_of("Pod", name, self.seconds, len(self.writes))
            manifest["status"] = {"phase": "Pending"}
            self.placeholders[name] = manifest
            self.writes.append(f"create {name}")
            return
        node = self.nodes[name]
        assert manifest["metadata"]["uid"] == node["metadata"]["uid"]
        before = (node["metadata"].get("annotations"), node["spec"])
        node["metadata"]["annotations"] = manifest["metadata"].get("annotations", {})
        node["spec"] = {**manifest.get("spec", {})}
        if (node["metadata"]["annotations"], node["spec"]) != before:
            self.writes.append(f"patch {name}")

    def wait(self, seconds: float) -> list[str]:
        self.seconds += seconds
        return self.settle()

    def waiting_fits(self) -> bool:
        """Whether a Run waits for a node such as these."""
        return bool(self.waiting)

    # What others do.

    def schedule(self) -> None:
        """Bind what fits, as the scheduler does: Runs push place-holders aside."""
        for run in list(self.waiting):
            for name, node in self.nodes.items():
                if name not in self.running.values() and _takes_pods(node):
                    self.running[run] = name
                    del self.waiting[run]
                    self._evict_placeholder(name)
                    break
        taken = {*self.running.values(), *(self._node_of(p) for p in self.placeholders.values())}
        for pod in self.placeholders.values():
            free = [n for n, node in self.nodes.items() if n not in taken and _takes_pods(node)]
            if not self._node_of(pod) and not is_over(pod) and free:
                pod["spec"]["nodeName"] = free[0]
                pod["status"] = {"phase": "Running", "startTime": stamp(self.seconds)}
                taken.add(free[0])

    def autoscale(self) -> None:
        """Add a node for each pod without one, or remove those that nothing is on, or that died."""
        long_ago = stamp(self.seconds - DEAD_SECONDS)
        for name in [n for n, node in self.nodes.items() if not _is_ready(node, long_ago)]:
            self.lose(name)
        stuck = [p for p in self.placeholders.values() if not self._node_of(p)]
        limit = self.pool.max if self.pool else self.group.spec.max
        floor = self.pool.min if self.pool else 0
        wanted = max(floor - len(self.nodes), len(self.waiting) + len(stuck))
        self.add_nodes(max(0, min(wanted, limit - len(self.nodes))))
        used = {*self.running.values(), *(self._node_of(p) for p in self.placeholders.values())}
        if not self.waiting and not stuck:
            for name in [n for n in self.nodes if n not in used][: len(self.nodes) - floor]:
                del self.nodes[name]
        if self.pool:
            self.pool = GroupSize(min=self.pool.min, max=self.pool.max, desired=len(self.nodes))

    def lose(self, name: str) -> None:
        """Remove a node with all that is on it."""
        del self.nodes[name]
        self.running = {r: n for r, n in self.running.items() if n != name}
        self.placeholders = {n: p for n, p in self.placeholders.items() if self._node_of(p) != name}

    def autoscale_away(self) -> None:
        """Remove the nodes that nothing runs on, whatever waits."""
        self.nodes = {n: node for n, node in self.nodes.items() if n in self.running.values()}
        self.placeholders = {}

    def end(self, run: str) -> None:
        self.ends[self.running.pop(run)] = stamp(self.seconds)

    def _evict_placeholder(self, node: str) -> None:
        for name in [n for n, p in self.placeholders.items() if self._node_of(p) == node]:
            del self.placeholders[name]

    @staticmethod
    def _node_of(pod: Object) -> str | None:
        found: str | None = pod["spec"].get("nodeName")
        return found


def with_runs(count: int, **spec: Any) -> NodeGroupWorld:
    world = NodeGroupWorld(**spec)
    world.waiting = {f"run-{n}": dict(REQUESTS) for n in range(count)}
    return world


def served(count: int, **spec: Any) -> NodeGroupWorld:
    """A world in which Runs have got their nodes."""
    world = with_runs(count, **spec)
    world.settle()
    world.autoscale()
    world.schedule()
    world.settle()
    return world


def break_node(node: Object, at: float) -> None:
    """Let a node's kubelet fall silent."""
    node["status"]["conditions"][0] |= {"status": "Unknown", "lastTransitionTime": stamp(at)}


def _is_ready(node: Object, since: str | None = None) -> bool:
    """Whether a node is ready, or has been after some time."""
    [ready] = node["status"]["conditions"]
    is_recent = since is not None and ready["lastTransitionTime"] > since
    return bool(ready["status"] == "True" or is_recent)


def _takes_pods(node: Object) -> bool:
    return _is_ready(node) and not node["spec"].get("unschedulable")
