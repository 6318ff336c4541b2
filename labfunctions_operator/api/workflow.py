"""Workflow: a notebook with its parameters and what it needs to run."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, field_validator

from labfunctions_operator.api.notification import (
    MissedDelivery,
    Notifications,
    WorkflowNotifications,
)
from labfunctions_operator.api.project import inner_path
from labfunctions_operator.api.quantity import parse_bytes
from labfunctions_operator.api.schedule import ScheduleSpec, ScheduleStatus
from labfunctions_operator.api.times import DURATION_PATTERN, parse_duration
from labfunctions_operator.api.types import (
    Condition,
    LocalRef,
    Metadata,
    Model,
    NodeGroupName,
    Parameters,
    Passthrough,
)

NAME_LIMIT = 42
DEFAULT_TIMEOUT_SECONDS = 10800


class GpuRequest(Model):
    """GPUs for the notebook."""

    count: Annotated[int, Field(ge=1, le=64)] = 1
    resource_name: Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9./-]+$")] = (
        "nvidia.com/gpu"
    )
    """The extended resource; a MIG profile has its own name (default nvidia.com/gpu)."""

    @property
    def amounts(self) -> dict[str, str]:
        """The resource and its quantity, as a container's limits have them."""
        return {self.resource_name: str(self.count)}


class Backoff(Model):
    """How long to wait before an attempt: longer each time."""

    duration: Annotated[str, Field(pattern=DURATION_PATTERN, max_length=16)] = "10s"
    """Before the first retry (default 10s)."""
    factor: Annotated[float, Field(ge=1, le=10)] = 2
    """By which each wait is longer than the one before (default 2)."""
    cap: Annotated[str, Field(pattern=DURATION_PATTERN, max_length=16)] = "5m"
    """The longest wait (default 5m)."""

    @field_validator("duration", "cap")
    @classmethod
    def _positive(cls, duration: str) -> str:
        parse_duration(duration)
        return duration


class MemoryGrowth(Model):
    """More memory for the attempt after one that ran out of it."""

    factor: Annotated[float, Field(ge=1, le=10)] = 1.5
    """By which limit and request grow each time (default 1.5)."""
    max: Annotated[str, Field(max_length=32)]
    """The most that an attempt gets, such as 16Gi."""

    @field_validator("max")
    @classmethod
    def _amount(cls, text: str) -> str:
        parse_bytes(text)
        return text


RetryReason = Literal[
    "NotebookError",
    "KernelDied",
    "OutOfMemory",
    "TimedOut",
    "CellTimedOut",
    "PendingTimedOut",
    "ImagePullFailed",
    "StartError",
    "OutputLost",
    "InternalError",
]


class Retries(Model):
    """Which failures are worth another attempt, and how many."""

    limit: Annotated[int, Field(ge=0, le=100)] = 0
    """Attempts after the first (default 0). Disruptions are retried without counting here."""
    backoff: Backoff = Backoff()
    on: Annotated[list[RetryReason], Field(max_length=20)] = []
    """Only these reasons (default: all worth another try). Quote "on": YAML takes it for true."""
    memory: MemoryGrowth | None = None
    """Give more memory after OutOfMemory."""


# What the runner reads, and what it is given besides to know the values that it must mask.
RUNNER_ENV = ("RUNNER_CONFIG", "RUNNER_JOB", "LABFUNCTIONS_DIR", "TERMINATION_LOG")
MASK_PREFIX = "LABFUNCTIONS_MASK_"


def is_reserved(name: Any) -> bool:
    """Whether a notebook's environment may not have a variable of this name."""
    return isinstance(name, str) and (name in RUNNER_ENV or name.startswith(MASK_PREFIX))


def _not_reserved(entry: dict[str, Any]) -> dict[str, Any]:
    if is_reserved(entry.get("name")):
        raise ValueError(f"{entry['name']} is reserved for the runner; give it another name")
    return entry


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
    """Whether parameters that the notebook does not declare so are refused (default Strict)."""
    env: Annotated[
        list[Annotated[Passthrough, AfterValidator(_not_reserved)]], Field(max_length=200)
    ] = []
    """Environment of the notebook, as in a Pod; the way for secrets."""
    env_from: Annotated[list[Passthrough], Field(max_length=50)] = []
    resources: Passthrough | None = None
    """Requests and limits of the notebook, as in a Pod."""
    gpu: GpuRequest | None = None
    node_group: NodeGroupName | None = None
    """The NodeGroup whose nodes run the notebook: it adds a node selector, tolerations and GPUs."""
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
    pending_timeout_seconds: Annotated[int, Field(ge=1, le=2592000)] | None = None
    """The longest a Run may wait for its notebook to start (default: no limit)."""
    retries: Retries | None = None
    """What to do about failures (default: nothing, but for disruptions)."""
    queue_name: Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] | (
        None
    ) = None
    """A Kueue LocalQueue: the Job waits there until Kueue admits it."""
    safe_to_evict: bool | None = None
    """Let autoscalers move a running notebook elsewhere (default: they may not)."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315360000)] | None = None
    """Delete the Run this long after it ended (default: keep it)."""
    notifications: Notifications | None = None
    """Who is told how Runs end (default: the Project's)."""

    @field_validator("notebook")
    @classmethod
    def _notebook_path(cls, path: str | None) -> str | None:
        if path is None:
            return None
        if path.startswith("/"):  # in a ready-made image a notebook may lie anywhere
            return "/" + inner_path(path.lstrip("/"))
        return inner_path(path)


class WorkflowSpec(Execution, ScheduleSpec):
    """What a user wants of a Workflow."""

    notifications: WorkflowNotifications | None = None
    """Who is told how Runs end, and of ticks without a Run (default: the Project's)."""


class WorkflowStatus(ScheduleStatus):
    """What the operator knows of a Workflow."""

    observed_generation: int | None = None
    parameters_schema: dict[str, JsonValue] | None = None
    """The parameters that the notebook declares, as JSON Schema properties."""
    notifications: list[MissedDelivery] | None = None
    """The last messages about ticks that got no Run, one for each target."""
    conditions: list[Condition] = []


class Workflow(Model):
    """A notebook with its parameters and what it needs to run."""

    metadata: Metadata
    spec: WorkflowSpec
    status: WorkflowStatus = WorkflowStatus()
