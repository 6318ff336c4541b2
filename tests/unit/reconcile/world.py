"""A cluster in memory: carries plans out as the executor does, and brings Jobs to an end."""

import json
from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from typing import Any

from crd_schema import status_errors
from objects import (
    ALL_STORED,
    DIGEST,
    Object,
    at,
    courier_says,
    created,
    ended,
    held,
    make_pod,
    make_settings,
    runner_says,
    running,
    terminated,
)
from settling import Settling

from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.invalid import refuse
from labfunctions_operator.reconcile.plan import Plan
from labfunctions_operator.settings import Settings


class World(Settling):
    """One object of ours, its children, and a clock.

    Attributes:
        obj: The object as stored.
        jobs: The Jobs around it, by name.
        pods: Their pods, by name of the Job.
        writes: Every write so far: `create Job x`, `delete Job x`, `apply Secret x`, `status`.
    """

    def __init__(self, obj: Object, settings: Settings | None = None) -> None:
        self.obj = obj
        self.settings = settings or make_settings()
        self.jobs: dict[str, Object] = {}
        self.pods: dict[str, Object] = {}
        self.secrets: dict[str, Object] = {}
        self.seconds: float = 0
        self.writes: list[str] = []
        self.is_deleted = False

    def copy(self) -> "World":
        other = copy(self)
        for name in ("obj", "jobs", "pods", "secrets", "writes"):
            setattr(other, name, deepcopy(getattr(self, name)))
        return other

    def decide(self) -> Plan:
        """What the reconciler says now; each kind has its own."""
        raise NotImplementedError

    def step(self) -> Plan:
        """Reconcile once and carry the plan out."""
        plan = self.decide()
        self.execute(plan)
        return plan

    def execute(self, plan: Plan) -> None:
        try:
            self._execute(plan)
        except InvalidSpec as error:
            why = {"reason": "InvalidSpec", "message": str(error)}
            self._write_status(refuse(self.obj, now=at(self.seconds), final=True, **why))

    def _execute(self, plan: Plan) -> None:
        for ref in plan.delete:
            if ref.kind == self.obj["kind"]:
                self.is_deleted = True
                self.writes.append(f"delete {ref.kind} {ref.name}")
                continue
            job = self.jobs.get(ref.name)
            if job and ref.uid == job["metadata"]["uid"]:
                self._delete_job(ref.name)
        for manifest in plan.apply:
            self._apply(json.loads(json.dumps(manifest)))
        if plan.status is not None:
            self._write_status(json.loads(json.dumps(plan.status)))

    def _delete_job(self, name: str) -> None:
        """The Job goes at once; a pod that still runs gets time to end."""
        self.writes.append(f"delete Job {name}")
        del self.jobs[name]
        if name in self.pods and self.pods[name]["status"]["phase"] != "Running":
            del self.pods[name]

    def _apply(self, manifest: Object) -> None:
        name = manifest["metadata"]["name"]
        if manifest["kind"] == "Secret":
            if self.secrets.get(name) != manifest:
                self.secrets[name] = manifest
                self.writes.append(f"apply Secret {name}")
        elif name not in self.jobs:
            _check(manifest)
            self.jobs[name] = created(manifest, self.seconds)
            self.writes.append(f"create Job {name}")

    def _write_status(self, status: Object) -> None:
        if status != self.obj.get("status"):
            assert status_errors(self.obj["kind"], status) == []
            self.obj = {**self.obj, "status": status}
            self.writes.append("status")


def _check(job: Object) -> None:
    """Refuse what the API server refuses of what users may write into a pod."""
    pod = job["spec"]["template"]["spec"]
    for container in pod["containers"]:
        if not all(isinstance(e.get("name"), str) for e in container.get("env", [])):
            raise InvalidSpec("spec.env", "a name is needed")
        resources = container.get("resources", {})
        for kind in ("limits", "requests"):
            amounts = resources.get(kind, {})
            if not isinstance(amounts, dict) or not all(
                isinstance(a, str) and a[0].isdigit() for a in amounts.values()
            ):
                raise InvalidSpec(f"spec.resources.{kind}", "quantities must match a pattern")


Event = Callable[[World, str], None]


def _pod(world: World, job: str, **state: Any) -> None:
    if job in world.jobs or job in world.pods:
        owner = world.jobs.get(job) or _owner(world.pods[job])
        pod = make_pod(owner, created=world.seconds, **state)
        pod["metadata"]["uid"] = f"pod of {owner['metadata']['uid']}"
        world.pods[job] = pod


def _owner(pod: Object) -> Object:
    [owner] = pod["metadata"]["ownerReferences"]
    return {"metadata": {**owner, "labels": pod["metadata"]["labels"]}}


def _end(world: World, job: str, type: str, reason: str = "") -> None:
    if job in world.jobs:
        world.jobs[job] = ended(world.jobs[job], type, world.seconds, reason)


def pod_pending(world: World, job: str) -> None:
    _pod(world, job, phase="Pending")


def pod_unschedulable(world: World, job: str) -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}
    _pod(world, job, phase="Pending", conditions=[condition])


def pod_cannot_pull(world: World, job: str) -> None:
    _pod(world, job, phase="Pending", notebook=held("ImagePullBackOff", "no such image"))


def pod_misses_a_secret(world: World, job: str) -> None:
    _pod(world, job, phase="Pending", notebook=held("CreateContainerConfigError", "no secret"))


def pod_runs(world: World, job: str) -> None:
    _pod(world, job, notebook=running(world.seconds), courier=running(world.seconds))


def pod_succeeds(world: World, job: str) -> None:
    _pod(
        world,
        job,
        phase="Succeeded",
        notebook=terminated(0, runner_says(), start=0, end=world.seconds),
        courier=terminated(0, ALL_STORED),
        others=[("build", terminated(0, {"digest": DIGEST}))],
    )
    _end(world, job, "Complete")


def pod_fails(world: World, job: str) -> None:
    _pod(
        world,
        job,
        phase="Failed",
        notebook=terminated(1, runner_says("NotebookError"), start=0, end=world.seconds),
        courier=terminated(0, courier_says("notebook.ipynb")),
        others=[("build", terminated(1, {"error": "pip: no such package"}))],
    )
    _end(world, job, "Failed", "BackoffLimitExceeded")


def pod_writes_nonsense(world: World, job: str) -> None:
    nonsense = terminated(1, '{"reason": "", "cell": [' + "[" * 2000, end=world.seconds)
    _pod(
        world,
        job,
        phase="Failed",
        notebook=nonsense,
        courier=nonsense,
        others=[("source", nonsense), ("build", nonsense)],
    )
    _end(world, job, "Failed", "BackoffLimitExceeded")


def pod_out_of_memory(world: World, job: str) -> None:
    killed = terminated(137, reason="OOMKilled", start=0, end=world.seconds)
    _pod(world, job, phase="Failed", notebook=killed, others=[("build", killed)])
    _end(world, job, "Failed", "BackoffLimitExceeded")


def pod_evicted(world: World, job: str) -> None:
    _pod(world, job, phase="Failed", reason="Evicted", message="low on memory")
    _end(world, job, "Failed", "BackoffLimitExceeded")


def pod_shut_down(world: World, job: str) -> None:
    """Its node went down, and the runner had the time to end as it is asked to."""
    said = runner_says("Cancelled", message="stopped by SIGTERM at cell 2 of 3")
    ended = terminated(143, said, start=0, end=world.seconds)
    _pod(world, job, phase="Failed", reason="Terminated", message="imminent", notebook=ended)
    _end(world, job, "Failed", "BackoffLimitExceeded")


def pod_gone(world: World, job: str) -> None:
    if world.pods.pop(job, None):
        _end(world, job, "Failed", "BackoffLimitExceeded")


def job_too_late(world: World, job: str) -> None:
    if job in world.jobs and not world.jobs[job]["status"]:
        world.pods.pop(job, None)
        _end(world, job, "Failed", "DeadlineExceeded")


def job_gone(world: World, job: str) -> None:
    world.jobs.pop(job, None)
    world.pods.pop(job, None)


def a_second(world: World, job: str) -> None:
    world.seconds += 1


def ten_minutes(world: World, job: str) -> None:
    world.seconds += 600


CLUSTER_EVENTS: Sequence[Event] = (
    pod_pending,
    pod_unschedulable,
    pod_cannot_pull,
    pod_misses_a_secret,
    pod_runs,
    pod_succeeds,
    pod_fails,
    pod_writes_nonsense,
    pod_out_of_memory,
    pod_evicted,
    pod_shut_down,
    pod_gone,
    job_too_late,
    job_gone,
    a_second,
    ten_minutes,
)


def now_of(world: World) -> Any:
    return at(world.seconds)
