"""A Project in a cluster in memory."""

from typing import Any

from objects import DIGEST, Object, make_object, make_source
from world import World, now_of, pod_fails, pod_succeeds

from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.project import Project
from labfunctions_operator.reconcile.plan import Plan, Problem
from labfunctions_operator.reconcile.project import ProjectObserved, reconcile_project
from labfunctions_operator.reconcile.source import SourceView

IMAGE = f"localhost:30500/team/demo@{DIGEST}"
OTHER_COMMIT = "beef" * 10
OTHER_TREE = "fee7" * 10
CERTIFICATE = {"ca.crt": "CA", "tls.crt": "CERTIFICATE", "tls.key": "KEY"}


class ProjectWorld(World):
    """A Project, its source as last read, and its builds."""

    def __init__(self, *, settings: Any = None, **spec: Any) -> None:
        git = {"url": "https://git.example.com/team/demo.git"}
        super().__init__(make_object("Project", "demo", {"source": {"git": git}, **spec}), settings)
        self.source = SourceView()

    def read(self, **source: Any) -> None:
        """The source is read anew."""
        self.source = SourceView(snapshot=make_source(**source))

    def cannot_read(self, reason: str = "RefNotFound", message: str = "no branch main") -> None:
        problem = Problem(reason=reason, message=message)
        self.source = SourceView(snapshot=self.source.snapshot, problem=problem)

    def edit(self, **spec: Any) -> None:
        """A user changes the spec."""
        meta = {**self.obj["metadata"], "generation": self.obj["metadata"]["generation"] + 1}
        self.obj = {**self.obj, "metadata": meta, "spec": {**self.obj["spec"], **spec}}

    @property
    def project(self) -> Project:
        return parse(Project, self.obj)

    def observed(self) -> ProjectObserved:
        return ProjectObserved(
            source=self.source,
            jobs=list(self.jobs.values()),
            pods=list(self.pods.values()),
            certificate=CERTIFICATE,
        )

    def decide(self) -> Plan:
        return reconcile_project(self.project, self.observed(), self.settings, now_of(self))

    def restart(self) -> None:
        """The operator forgets what it has read."""
        self.source = SourceView()

    @property
    def job(self) -> str:
        """The name of the only Job."""
        [name] = self.jobs
        return name

    def condition(self, type: str = "Ready") -> tuple[str, str, str]:
        [found] = [c for c in self.obj["status"]["conditions"] if c["type"] == type]
        return found["status"], found["reason"], found["message"]

    def runtime(self, name: str = "default") -> Object:
        [found] = [r for r in self.obj["status"]["runtimes"] if r["name"] == name]
        return dict(found)


def built(**spec: Any) -> ProjectWorld:
    """A project whose first build has succeeded."""
    world = ProjectWorld(**spec)
    world.read()
    world.settle()
    world.seconds = 60
    for job in world.jobs:
        pod_succeeds(world, job)
    world.settle()
    world.writes.clear()
    return world


def failing() -> ProjectWorld:
    """A project with a good image whose next commit does not build."""
    world = built()
    world.read(commit=OTHER_COMMIT, tree=OTHER_TREE)
    world.settle()
    pod_fails(world, last_job(world))
    world.settle()
    world.writes.clear()
    return world


def last_job(world: ProjectWorld) -> str:
    return list(world.jobs)[-1]
