"""Looks at what concerns a NodeGroup, all of it in caches, and keeps its provider told."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from labfunctions_operator.api import labels
from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.project import Project
from labfunctions_operator.controllers.backoff import DENIED_DELAY
from labfunctions_operator.controllers.executor import Executor
from labfunctions_operator.controllers.pools import Pools
from labfunctions_operator.controllers.world import Object, World
from labfunctions_operator.errors import Denied, InvalidSpec, NotFound
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.kube.resources import PODS
from labfunctions_operator.reconcile.ahead import tick_ahead
from labfunctions_operator.reconcile.demand import NodeGroupObserved, Refusal
from labfunctions_operator.reconcile.execution import find_runtime
from labfunctions_operator.reconcile.invalid import readable_group, refuse
from labfunctions_operator.reconcile.jobs import is_ending
from labfunctions_operator.reconcile.nodegroup import reconcile_node_group, refuse_node_group
from labfunctions_operator.reconcile.offers import requests_of
from labfunctions_operator.reconcile.plan import Key, Plan, Problem, Ref
from labfunctions_operator.reconcile.pods import is_over
from labfunctions_operator.reconcile.release import cordoned_at, give_back
from labfunctions_operator.reconcile.story import with_story
from labfunctions_operator.settings import Settings

# To say at once what was refused.
SOON = 0.5
# Reasons by which a Run waits for something that no node would give it.
_REFUSED = ("QuotaExceeded", "PodRefused")


class NodeGroups:
    """Reconciles NodeGroups."""

    def __init__(
        self,
        *,
        client: KubeClient,
        world: World,
        pools: Pools,
        executor: Executor,
        settings: Settings,
    ) -> None:
        self._client = client
        self._world = world
        self._pools = pools
        self._executor = executor
        self._settings = settings
        self._refusals: dict[Key, dict[str, Refusal]] = {}

    async def reconcile(self, key: Key, obj: Object, now: datetime) -> float | None:
        """Bring one NodeGroup nearer to what it should be."""
        try:
            group = parse(NodeGroup, obj)
            seen = NodeGroupObserved()
            if self._settings.autoscaling.enabled:
                seen = await self.observe(key, group)
            decided = reconcile_node_group(group, seen, self._settings, now)
        except InvalidSpec as error:
            return await self._refuse(key, obj, error, now)
        attempt = await self._executor.attempt(decided.plan, obj)
        if attempt.denied:
            seen = replace(
                seen,
                denied=(*seen.denied, *(_problem(denial.error) for denial in attempt.denied)),
                is_placing_denied=any(denial.kind == "Pod" for denial in attempt.denied),
            )
            decided = reconcile_node_group(group, seen, self._settings, now)
        await self._executor.tell(with_story(decided.plan, obj), obj)
        waits = [decided.plan.requeue_after, DENIED_DELAY if seen.denied else None]
        if attempt.refused:
            self._note(key, attempt.refused, now)
            waits.append(SOON)
        if self._settings.autoscaling.enabled:
            # Only now: what is wanted is on record before anyone outside is told.
            waits.append(self._pools.follow(key, group, decided.bounds))
        return min((w for w in waits if w is not None), default=None)

    async def _refuse(
        self, key: Key, obj: Object, error: InvalidSpec, now: datetime
    ) -> float | None:
        """Say why a group cannot be worked with; what it has raised at a provider still ends."""
        group = readable_group(obj) if self._settings.autoscaling.enabled else None
        pool = self._pools.view(key, group) if group else None
        if group is None or pool is None:
            raise error
        status = refuse(obj, reason="InvalidSpec", message=str(error), now=now, final=True)
        decided = refuse_node_group(group, pool, status, now)
        await self._executor.tell(with_story(decided.plan, obj), obj)
        waits = [decided.plan.requeue_after, self._pools.follow(key, group, decided.bounds)]
        return min((w for w in waits if w is not None), default=None)

    async def leave(self, key: Key) -> None:
        """Put back what a group that is gone has moved outside of its own objects."""
        self._pools.leave(key)
        self._refusals.pop(key, None)
        others = [
            node
            for node in self._world.caches["Node"].objects()
            if not set(self._world.groups_with(node)) - {key}
        ]
        attempt = await self._executor.attempt(Plan(apply=give_back(others)), {})
        if attempt.denied:
            raise attempt.denied[0].error

    async def observe(self, key: Key, group: NodeGroup) -> NodeGroupObserved:
        """Return what exists around a NodeGroup."""
        nodes = self._world.nodes(group.spec.labels)
        names = [node["metadata"]["name"] for node in nodes]
        drained, denied = await self._drained(nodes)
        return NodeGroupObserved(
            nodes=nodes,
            pods=[pod for name in names for pod in self._world.pods_on(name)],
            waiting=list(self._waiting(key.name)),
            ends={name: end for name in names if (end := self._world.last_end_on(name))},
            ticks=sorted(self._ticks(key.name)),
            images=self._images(key.name),
            placeholders=[
                pod
                for pod in self._world.labelled(
                    "Pod", labels.NODE_GROUP, key.name, self._settings.namespace
                )
                if pod["metadata"]["labels"].get(labels.COMPONENT) == labels.COMPONENT_PLACEHOLDER
            ],
            pool=self._pools.view(key, group),
            drained=drained,
            refusals=self._refusals_of(key, drained),
            denied=denied,
        )

    async def _drained(
        self, nodes: Iterable[Object]
    ) -> tuple[dict[str, list[Object]], tuple[Problem, ...]]:
        """Return all pods on nodes that are being released, or why they may not be listed."""
        drained = {}
        for node in nodes:
            if cordoned_at(node) is not None:
                name = node["metadata"]["name"]
                try:
                    drained[name] = await self._all_pods_on(name)
                except Denied as error:
                    return drained, (_problem(error),)
        return drained, ()

    def _note(self, key: Key, refused: Mapping[Ref, str], now: datetime) -> None:
        """Remember which pods may not leave; after a restart they are asked anew."""
        known = self._refusals.setdefault(key, {})
        for ref, why in refused.items():
            before = known.get(ref.uid or "")
            count = before.count + 1 if before else 1
            known[ref.uid or ""] = Refusal(count=count, at=now, why=why)

    def _refusals_of(self, key: Key, drained: Mapping[str, list[Object]]) -> dict[str, Refusal]:
        """Forget the pods that are gone, or whose nodes stay."""
        left = {pod["metadata"]["uid"] for pods in drained.values() for pod in pods}
        known = self._refusals.pop(key, {})
        found = {uid: refusal for uid, refusal in known.items() if uid in left}
        if found:
            self._refusals[key] = found
        return found

    def _waiting(self, group: str) -> Iterable[dict[str, str]]:
        """Yield what each Run asks for that waits for a node, and for nothing else."""
        for run in self._world.live_runs():
            if self._world.group_of(run) != group:
                continue
            namespace, name = run["metadata"]["namespace"], run["metadata"]["name"]
            pods = self._world.labelled("Pod", labels.RUN, name, namespace)
            unbound = [p for p in pods if not p["spec"].get("nodeName") and not is_over(p)]
            if unbound:
                yield requests_of(unbound[0]["spec"])
            elif not pods and (job := self._waiting_job(run)) is not None:
                yield requests_of(job)

    def _waiting_job(self, run: Object) -> Object | None:
        """Return the pod to come of a Run whose Job is about to get it; empty for a new Run."""
        status = run.get("status") or {}
        conditions = status.get("conditions") or []
        if conditions and conditions[0].get("reason") in _REFUSED:
            return None
        metadata = run["metadata"]
        jobs = self._world.labelled("Job", labels.RUN, metadata["name"], metadata["namespace"])
        if not jobs:
            return {} if not conditions else None
        job = max(jobs, key=lambda j: str(j["metadata"].get("creationTimestamp")))
        # One that Kueue holds back would not start on a node either.
        if job["spec"].get("suspend") or is_ending(job):
            return None
        spec: Object = job["spec"]["template"]["spec"]
        return spec

    def _ticks(self, group: str) -> Iterable[datetime]:
        for workflow in self._world.workflows_of(group):
            is_made = partial(self._has_run, workflow["metadata"]["namespace"])
            tick = tick_ahead(workflow, self._world.live_runs_of(workflow), is_made)
            if tick is not None:
                yield tick

    def _has_run(self, namespace: str, name: str) -> bool:
        return self._world.get(Key("Run", namespace, name)) is not None

    def _images(self, group: str) -> list[str]:
        """Return the images of the group's Workflows, the one that is needed first in front."""

        def next_tick(workflow: Any) -> str:
            return str((workflow.get("status") or {}).get("nextScheduleTime") or "~")

        found: dict[str, None] = {}
        for workflow in sorted(self._world.workflows_of(group), key=next_tick):
            spec, namespace = workflow["spec"], workflow["metadata"]["namespace"]
            name = (spec.get("projectRef") or {}).get("name") or ""
            project = self._world.project(namespace, name)
            runtime = (
                find_runtime(project, spec.get("runtime")) if isinstance(project, Project) else None
            )
            if runtime and runtime[1] and runtime[1].image:
                found[runtime[1].image] = None
        return list(found)

    async def _all_pods_on(self, node: str) -> list[Object]:
        """Ask for every pod of a node that is to go; caches hold only our own."""
        listed = await self._client.list(PODS, field_selector=f"spec.nodeName={node}")
        return list(listed.items)


def _problem(error: Exception) -> Problem:
    """Say why a part of a group's plan cannot be carried out."""
    if isinstance(error, NotFound):
        # Of all kinds written here only this one may be missing from a cluster.
        error = InvalidSpec(
            "spec.provider.capacity.capacityBuffer",
            "this cluster does not serve CapacityBuffer (autoscaling.x-k8s.io/v1beta1); "
            "place-holder pods need nothing: leave it out",
        )
    reason = "InvalidSpec" if isinstance(error, InvalidSpec) else "Forbidden"
    return Problem(reason=reason, message=str(error))
