"""Workflow: a notebook with its parameters and what it needs to run."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator

from labfunctions_operator.api.project import inner_path
from labfunctions_operator.api.types import (
    Condition,
    LocalRef,
    Metadata,
    Model,
    Parameters,
    Passthrough,
)

KIND = "Workflow"
NAME_LIMIT = 42
DEFAULT_TIMEOUT_SECONDS = 10800


class GpuRequest(Model):
    """GPUs for the notebook."""

    count: Annotated[int, Field(ge=1, le=64)] = 1
    resource_name: Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9./-]+$")] = (
        "nvidia.com/gpu"
    )
    """The extended resource; a MIG profile has its own name (default nvidia.com/gpu)."""


class Execution(Model):
    """How a notebook is run: all of a Workflow that an inline Run may say too."""

    project_ref: LocalRef | None = None
    """The Project of the same namespace whose image runs the notebook."""
    notebook: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """The notebook's path in the project's source."""
    runtime: Annotated[str, Field(max_length=40)] | None = None
    """Which of the project's images (default: the first)."""
    parameters: Parameters = {}
    """Typed values for the notebook's parameters cell; never secrets: they are stored."""
    parameters_policy: Literal["Strict", "Permissive"] | None = None
    """Whether parameters that the notebook does not declare are refused (default Strict)."""
    env: Annotated[list[Passthrough], Field(max_length=200)] = []
    """Environment of the notebook, as in a Pod; the way for secrets."""
    env_from: Annotated[list[Passthrough], Field(max_length=50)] = []
    resources: Passthrough | None = None
    """Requests and limits of the notebook, as in a Pod."""
    gpu: GpuRequest | None = None
    node_selector: dict[str, str] | None = None
    tolerations: Annotated[list[Passthrough], Field(max_length=50)] = []
    affinity: Passthrough | None = None
    volumes: Annotated[list[Passthrough], Field(max_length=50)] = []
    volume_mounts: Annotated[list[Passthrough], Field(max_length=50)] = []
    service_account_name: Annotated[str, Field(max_length=253)] | None = None
    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    image_pull_secrets: Annotated[list[LocalRef], Field(max_length=20)] = []
    timeout_seconds: Annotated[int, Field(ge=1, le=2592000)] | None = None
    """The longest the notebook may run, from its start (default 10800)."""
    cell_timeout_seconds: Annotated[int, Field(ge=1, le=2592000)] | None = None
    """The longest one cell may run."""

    @field_validator("notebook")
    @classmethod
    def _notebook_path(cls, path: str | None) -> str | None:
        if path is None:
            return None
        if path.startswith("/"):  # in a ready-made image a notebook may lie anywhere
            return "/" + inner_path(path.lstrip("/"))
        return inner_path(path)


class WorkflowSpec(Execution):
    """What a user wants of a Workflow."""


class WorkflowStatus(Model):
    """What the operator knows of a Workflow."""

    observed_generation: int | None = None
    parameters_schema: dict[str, JsonValue] | None = None
    """The parameters that the notebook declares, as JSON Schema properties."""
    conditions: list[Condition] = []


class Workflow(Model):
    """A notebook with its parameters and what it needs to run."""

    metadata: Metadata
    spec: WorkflowSpec
    status: WorkflowStatus = WorkflowStatus()
