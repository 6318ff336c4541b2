"""The gates before a Run's first Job: workflow, project, image, notebook, queue, nodes."""

from dataclasses import dataclass
from datetime import datetime

from labfunctions_operator.api.labels import SCHEDULED_AT_ANNOTATION
from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.project import Project, Runtime, RuntimeStatus
from labfunctions_operator.api.run import Phase, Run, Snapshot
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.api.workflow import DEFAULT_TIMEOUT_SECONDS, Execution, Workflow
from labfunctions_operator.desired.dockerfile import requirements_in
from labfunctions_operator.desired.names import digest
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.attempt import as_ran
from labfunctions_operator.reconcile.execution import (
    find_runtime,
    merge_execution,
    placed,
    with_defaults,
)
from labfunctions_operator.reconcile.notebook import check_notebook, check_size
from labfunctions_operator.reconcile.notify import in_force
from labfunctions_operator.reconcile.scheduled_run import parse_tick
from labfunctions_operator.reconcile.source import SourceSnapshot
from labfunctions_operator.reconcile.timing import START_PATIENCE


@dataclass(frozen=True, kw_only=True)
class Blocked:
    """A gate that a Run cannot pass: for now, or for good.

    Attributes:
        reason: A CamelCase word.
        message: One line for a person.
        phase: Of a Run that waits there.
        final: Whether the gate can never open.
        until: When a Run that still waits there fails with this reason; None is never.
        again: Seconds after which to look again, where nothing tells that the gate has opened.
    """

    reason: str
    message: str
    phase: Phase = "Pending"
    final: bool = False
    until: datetime | None = None
    again: float | None = None


def admit(
    run: Run,
    *,
    workflow: Workflow | InvalidSpec | None,
    project: Project | InvalidSpec | None,
    source: SourceSnapshot | None,
    node_group: NodeGroup | InvalidSpec | None = None,
    origin: Run | InvalidSpec | None = None,
    ahead: str | None = None,
) -> Snapshot | Blocked:
    """Pass a Run through its gates: the workflow first, and the nodes it goes to last."""
    if run.spec.from_run:
        return _again(run, run.spec.from_run, origin, project)
    if not run.spec.workflow_ref:
        workflow = None
    elif not isinstance(workflow, Workflow):
        return missing("Workflow", run.spec.workflow_ref.name, workflow)
    execution = merge_execution(run, workflow)
    if execution.project_ref is None or execution.notebook is None:
        return Blocked(
            reason="InvalidSpec", message="neither Run nor Workflow names a project and a notebook"
        )
    if not isinstance(project, Project):
        return missing("Project", execution.project_ref.name, project)
    execution = with_defaults(execution, project)
    found = find_runtime(project, execution.runtime)
    if found is None:
        return Blocked(
            reason="RuntimeNotFound",
            message=f"Project {project.metadata.name} has no runtime {execution.runtime}",
        )
    runtime, status = found
    if status is None or status.image is None or _is_outdated(status, run):
        return _image_pending(project, runtime.name, status, run)
    same = source if source and status.tree and source.tree == status.tree else None
    problem = (
        _notebook_problem(same, execution)
        or _behind(ahead, workflow)
        or _no_node_group(execution, node_group)
    )
    if problem:
        return problem
    return _snapshot(
        run=run,
        project=project,
        workflow=workflow,
        execution=placed(execution, node_group),
        status=status,
        source=same,
        runtime=runtime,
    )


def _again(
    run: Run, name: str, origin: Run | InvalidSpec | None, project: Project | InvalidSpec | None
) -> Snapshot | Blocked:
    """Take over what another Run was started with: image, parameters and all.

    Only who is told of it the Run may say itself.
    """
    if not isinstance(origin, Run):
        return missing("Run", name, origin)
    snapshot = origin.status.snapshot
    if snapshot is None:
        return Blocked(reason="RunNotStarted", message=f"Run {name} was never started")
    snapshot = as_ran(snapshot, origin.status.attempts)
    if run.spec.notifications is None:
        return snapshot
    known = project if isinstance(project, Project) else None
    return snapshot.but(notify=in_force(run.spec.notifications, known))


def _behind(ahead: str | None, workflow: Workflow | None) -> Blocked | None:
    policy = workflow.spec.concurrency_policy if workflow else "Allow"
    if not ahead or policy == "Allow":
        return None
    return Blocked(
        reason="Queued",
        message=f"waits for Run {ahead} to end: spec.concurrencyPolicy of its Workflow is {policy}",
        phase="Queued",
    )


def missing(kind: str, name: str, found: object, *, where: str = "namespace") -> Blocked:
    """Say that an object another one names is not there, or cannot be read."""
    if isinstance(found, InvalidSpec):
        return Blocked(reason=f"{kind}Invalid", message=f"{kind} {name}: {found}")
    return Blocked(
        reason=f"{kind}NotFound", message=f"{kind} {name} does not exist in this {where}"
    )


def _is_outdated(status: RuntimeStatus, run: Run) -> bool:
    """Whether a newer image is on its way that this Run is to wait for.

    One that was built after the Run was created is new enough: where commits come faster than
    builds end, a Run would otherwise never start.
    """
    if status.phase not in ("Pending", "Building"):
        return False
    return (status.built_at or "") < (run.metadata.creation_timestamp or "")


def _image_pending(
    project: Project, runtime: str, status: RuntimeStatus | None, run: Run
) -> Blocked:
    name = project.metadata.name
    if status and status.phase == "Failed":
        since = max(status.failed_since or "", run.metadata.creation_timestamp or "")
        return Blocked(
            reason="ImageBuildFailed",
            message=f"image {runtime} of Project {name} cannot be built: {status.message}",
            # A commit that mends it may be on its way.
            until=parse_time(since) + START_PATIENCE if since else None,
        )
    if status and status.phase == "Building":
        return Blocked(
            reason="ImageBuilding",
            message=f"image {runtime} of Project {name}: {status.message}",
            phase="Building",
        )
    return Blocked(
        reason="ImagePending", message=f"Project {name} has no image {runtime} yet; see its status"
    )


def _notebook_problem(source: SourceSnapshot | None, execution: Execution) -> Blocked | None:
    """Check against the source, which is what lies in the image.

    Where it is not (a ready-made image, a source that cannot be reached) the runner checks.
    """
    parameters = execution.parameters
    problem = check_size(parameters)
    if source and not problem:
        problem = check_notebook(
            source, execution.notebook or "", parameters, execution.parameters_policy
        )
    return Blocked(reason=problem.reason, message=problem.message, final=True) if problem else None


def _no_node_group(execution: Execution, group: NodeGroup | InvalidSpec | None) -> Blocked | None:
    if execution.node_group is None or isinstance(group, NodeGroup):
        return None
    return missing("NodeGroup", execution.node_group, group, where="cluster")


def _snapshot(
    *,
    run: Run,
    project: Project,
    workflow: Workflow | None,
    execution: Execution,
    status: RuntimeStatus,
    source: SourceSnapshot | None,
    runtime: Runtime,
) -> Snapshot:
    assert status.image is not None
    notebook = source.notebooks.get(execution.notebook or "") if source else None
    requirements = requirements_in(runtime, source.files) if source else {}
    words = {name: getattr(execution, name) for name in Execution.model_fields}
    return Snapshot.model_construct(
        **{
            **words,
            "project_ref": None,
            "notifications": None,
            "notify": in_force(execution.notifications, project),
            "project": project.metadata.name,
            "workflow": workflow.metadata.name if workflow else None,
            "scheduled_at": _scheduled_at(run),
            "commit": status.commit,
            "image": status.image,
            "runtime": status.name,
            "inputs_hash": status.inputs_hash,
            "requirements_hash": digest(requirements) if requirements else None,
            "notebook_sha256": notebook.sha256 if notebook else None,
            "timeout_seconds": execution.timeout_seconds or DEFAULT_TIMEOUT_SECONDS,
            "user": runtime.user,
        }
    )


def _scheduled_at(run: Run) -> str | None:
    tick = parse_tick(run.metadata.annotations.get(SCHEDULED_AT_ANNOTATION))
    return rfc3339(tick) if tick else None
