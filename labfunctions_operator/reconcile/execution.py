"""What a Run is to execute: the Workflow's words, the Run's own, and the Project's defaults."""

from collections.abc import Mapping

from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.project import Project, Runtime, RuntimeStatus
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.workflow import Execution, GpuRequest, Workflow

# A slice of a GPU has a name of its own there.
_NVIDIA = "nvidia.com/"


def merge_execution(run: Run, workflow: Workflow | None) -> Execution:
    """Merge a Run over its Workflow: what the Run says wins, parameters name by name."""
    own = {name: getattr(run.spec, name) for name in Execution.model_fields}
    said = {n: v for n, v in own.items() if n in run.spec.model_fields_set}
    if workflow is None:
        return Execution().but(**said)
    base = {name: getattr(workflow.spec, name) for name in Execution.model_fields}
    parameters = {**workflow.spec.parameters, **run.spec.parameters}
    return Execution().but(**{**base, **said, "parameters": parameters})


def with_defaults(execution: Execution, project: Project) -> Execution:
    """Fill what neither Workflow nor Run says from the Project's defaults."""
    defaults = project.spec.defaults
    registry = project.spec.registry
    own = execution.image_pull_secrets
    secret = registry.secret_ref if registry else None
    return execution.but(
        resources=execution.resources or defaults.resources,
        timeout_seconds=execution.timeout_seconds or defaults.timeout_seconds,
        image_pull_secrets=own if secret is None or secret in own else [*own, secret],
        node_group=execution.node_group or defaults.node_group,
        service_account_name=execution.service_account_name or defaults.service_account_name,
        # An empty object is a word, too: nobody is told.
        notifications=defaults.notifications
        if execution.notifications is None
        else execution.notifications,
    )


def placed(execution: Execution, group: object) -> Execution:
    """Send an execution to the nodes of its group, whose labels win over its own node selector."""
    if execution.node_group is None or not isinstance(group, NodeGroup):
        return execution
    spec = group.spec
    tolerations = [{"operator": "Equal", **taint.wire()} for taint in spec.taints]
    return execution.but(
        node_selector={**(execution.node_selector or {}), **spec.labels},
        tolerations=[
            *execution.tolerations,
            *(t for t in tolerations if t not in execution.tolerations),
        ],
        gpu=execution.gpu or (None if _names_gpus(execution, spec.gpu) else spec.gpu),
    )


def _names_gpus(execution: Execution, gpu: GpuRequest | None) -> bool:
    """Whether the resources of an execution name GPUs: the group's, or slices of some."""
    named = {
        name
        for amounts in (execution.resources or {}).values()
        if isinstance(amounts, Mapping)
        for name in amounts
    }
    return any(name.startswith(_NVIDIA) or (gpu and name == gpu.resource_name) for name in named)


def find_runtime(project: Project, name: str | None) -> tuple[Runtime, RuntimeStatus | None] | None:
    """Return a runtime and its state: the one named, or the project's first."""
    runtimes = project.spec.effective_runtimes
    runtime = next((r for r in runtimes if name is None or r.name == name), None)
    if runtime is None:
        return None
    status = next((s for s in project.status.runtimes if s.name == runtime.name), None)
    return runtime, status
