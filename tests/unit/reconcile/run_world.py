"""A Run in a cluster in memory, observed as the controllers do."""

from dataclasses import replace
from typing import Any

from objects import (
    COMMIT,
    TREE,
    Object,
    make_grant,
    make_object,
    make_project,
    make_source,
    make_workflow,
)
from world import World, now_of, pod_runs

from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.run import Phase, Progress, Run
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.attempt import next_number
from labfunctions_operator.reconcile.plan import Event, Plan
from labfunctions_operator.reconcile.pods import PodEvent, Waiting
from labfunctions_operator.reconcile.run import reconcile_run
from labfunctions_operator.reconcile.run_observed import RunObserved
from labfunctions_operator.reconcile.run_start import is_waiting_for_attempt
from labfunctions_operator.reconcile.source import SourceSnapshot

IMAGE = "localhost:30500/team/demo@sha256:0a"
READY = {
    "name": "default",
    "phase": "Ready",
    "image": IMAGE,
    "inputsHash": "hash",
    "commit": COMMIT,
    "tree": TREE,
}


def ready_project(*, runtime: Any = None, **spec: Any) -> Project:
    return make_project(status={"runtimes": [{**READY, **(runtime or {})}]}, **spec)


class RunWorld(World):
    """A Run, what it names, and its Jobs."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(make_object("Run", "first", spec or {"workflowRef": {"name": "report"}}))
        self.workflow: Workflow | InvalidSpec | None = make_workflow()
        self.project: Project | InvalidSpec | None = ready_project()
        self.node_group: NodeGroup | InvalidSpec | None = None
        self.source: SourceSnapshot | None = make_source()
        self.source_pending = False
        self.hindrance: Waiting | None = None
        self.refusal: str | None = None
        self.asking = False
        self.event: PodEvent | None = None
        self.node_silent = False
        self.progress: Progress | None = None
        self.ahead: str | None = None
        self.before: Phase | None = None
        self.events: list[Event] = []

    @property
    def run(self) -> Run:
        return parse(Run, self.obj)

    @property
    def status(self) -> Object:
        status: Object = self.obj.get("status", {})
        return status

    @property
    def condition(self) -> tuple[str, str, str]:
        return self.condition_of("Succeeded")

    def condition_of(self, type: str) -> tuple[str, str, str]:
        [found] = [c for c in self.status["conditions"] if c["type"] == type]
        return found["status"], found["reason"], found["message"]

    @property
    def job(self) -> str:
        """The name of the last attempt's Job."""
        return list(self.jobs)[-1]

    def edit(self, **spec: Any) -> None:
        self.obj = {**self.obj, "spec": {**self.obj["spec"], **spec}}

    def restart(self) -> None:
        """The operator forgets what was reported, and the source until it is read again."""
        self.progress = None
        self.source = None

    def observed(self) -> RunObserved:
        jobs, pods = list(self.jobs.values()), list(self.pods.values())
        if self.run.is_finished:
            return RunObserved()
        if self.run.status.attempts and not is_waiting_for_attempt(self.run):
            return RunObserved(jobs=jobs, pods=pods, progress=self.progress)
        if next_number(self.run, jobs) > 1:
            grant = make_grant() if self.run.status.snapshot else None
            return RunObserved(jobs=jobs, pods=pods, progress=self.progress, grant=grant)
        return RunObserved(
            workflow=self.workflow if self.run.spec.workflow_ref else None,
            project=self.project,
            source=self.source,
            source_pending=self.source_pending,
            ahead=self.ahead,
            node_group=self.node_group,
            jobs=jobs,
            pods=pods,
            grant=make_grant(),
        )

    def asked(self) -> RunObserved:
        """All that is observed, and what the API server answers about the last pod."""
        return replace(
            self.observed(),
            event=self.event,
            node_silent=self.node_silent,
            hindrance=self.hindrance,
            refusal=self.refusal,
            asking=self.asking,
        )

    def decide(self) -> Plan:
        seen = replace(self.asked(), before=self.before)
        return reconcile_run(self.run, seen, self.settings, now_of(self))

    def execute(self, plan: Plan) -> None:
        count = self.writes.count("status")
        super().execute(plan)
        if self.writes.count("status") > count:
            self.events += plan.events


JOB = "first-1"
FILES = {"notebook": "notebook.ipynb", "html": "notebook.html", "result": "result.json"}


def outputs(*stored: str) -> Object:
    """What status says of the outputs that are stored."""
    uris = {name: f"s3://b/{FILES[name]}" for name in stored}
    return {**uris, "etags": {name: f"tag-{FILES[name]}" for name in stored}}


OUTPUTS = outputs(*FILES)


def started(**spec: Any) -> RunWorld:
    """A Run whose Job was just made."""
    world = RunWorld(**spec)
    assert world.settle() == [f"create Job {JOB}"]
    return world


def runs(**spec: Any) -> RunWorld:
    """A Run whose notebook runs."""
    world = started(**spec)
    world.seconds = 2
    pod_runs(world, JOB)
    assert world.settle() == ["status"]
    return world
