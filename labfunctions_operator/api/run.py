"""Run: one execution of a notebook, and the record of what happened."""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from labfunctions_operator.api.notification import Delivery, NotifyPlan
from labfunctions_operator.api.project import User
from labfunctions_operator.api.types import (
    Condition,
    LocalRef,
    Metadata,
    Model,
    ObjectName,
    Passthrough,
)
from labfunctions_operator.api.workflow import Execution

NAME_LIMIT = 52

Phase = Literal[
    "Pending", "Building", "Queued", "Starting", "Running", "Succeeded", "Failed", "Cancelled"
]
FINAL_PHASES = ("Succeeded", "Failed", "Cancelled")
# The condition that its record is in the store.
RECORDED = "Recorded"
# What a Run may say beside `from`.
BESIDE_FROM = ("cancel", "notifications", "ttlSecondsAfterFinished")
FROM_ALONE = (
    "from runs exactly what another Run ran: "
    "it goes with nothing but cancel, notifications and ttlSecondsAfterFinished"
)
# What is in force once a Run has started; all else is as its snapshot says.
_AFTER_START = (
    "workflowRef",
    "from",
    "projectRef",
    "notebook",
    "cancel",
    "ttlSecondsAfterFinished",
)


class RunSpec(Execution):
    """What to run: a Workflow by name, or a notebook inline; fields given here win."""

    workflow_ref: LocalRef | None = None
    """The Workflow of the same namespace to run."""
    from_run: Annotated[ObjectName | None, Field(alias="from")] = None
    """Run exactly what this Run of the same namespace ran: image, notebook and parameters."""
    cancel: bool = False
    """Stop the run, keeping the notebook as it is; cannot be taken back."""

    @model_validator(mode="after")
    def _something_to_run(self) -> "RunSpec":
        inline = self.notebook is not None and self.project_ref is not None
        if self.from_run is None and self.workflow_ref is None and not inline:
            raise ValueError("give workflowRef, or projectRef and notebook, or from")
        if self.from_run:
            said = self.model_dump(by_alias=True, exclude_unset=True, exclude_none=True)
            if said.keys() - {"from", *BESIDE_FROM}:
                raise ValueError(FROM_ALONE)
        return self


class Snapshot(Execution):
    """What this Run was started with; later edits of Workflow or Project do not touch it."""

    project: str
    workflow: str | None = None
    scheduled_at: str | None = None
    """The tick of the schedule that it was made for."""
    commit: str | None = None
    image: str
    inputs_hash: str | None = None
    requirements_hash: str | None = None
    """sha256 over the files that say what the image installs, where the source is known."""
    notebook_sha256: str | None = None
    env: Annotated[list[Passthrough], Field(max_length=200)] = []
    """As the Run was started with it, whatever is reserved by now."""
    user: User = User()
    image_pull_secrets: Annotated[list[LocalRef], Field(max_length=21)] = []
    """Those of the Run or Workflow, and that of the project's registry."""
    notify: NotifyPlan | None = None
    """Who is told how the Run ends."""

    @model_serializer(mode="wrap")
    def _compact(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what was not asked for."""
        return {k: v for k, v in serialize(self).items() if v not in ([], {}, None)}


class Attempt(Model):
    """One Job of the Run.

    A reason without a finish time means that the operator is stopping it.
    """

    number: int
    job: str
    pod: str | None = None
    node: str | None = None
    memory: str | None = None
    """The memory limit it ran with."""
    image: str | None = None
    """The image it ran by digest, as its node says, where the snapshot's has a tag alone."""
    start_time: str | None = None
    finish_time: str | None = None
    reason: str | None = None
    notebook: str | None = None
    """Where its notebook lies."""


class Progress(Model):
    """How far the notebook is."""

    cell: int
    cells: int
    name: str = ""
    summary: str = ""
    """The same as `cell/cells`, for a table."""
    time: str | None = None
    """When this was written here."""


class Cell(Model):
    """The cell that failed."""

    index: int
    """Counted from 0 among all cells of the notebook in the source."""
    id: str | None = None
    source: str = ""
    """Its first line of code."""


class ExceptionInfo(Model):
    """What the cell raised."""

    name: str
    message: str = ""


class Failure(Model):
    """Why the Run failed."""

    reason: str
    cell: Cell | None = None
    exception: ExceptionInfo | None = None
    exit_code: int | None = None


class Outputs(Model):
    """Where the results lie."""

    notebook: str | None = None
    html: str | None = None
    result: str | None = None
    record: str | None = None
    """This Run as it ended, in a file that outlives it."""
    etags: dict[str, str] | None = None
    """The store's entity tags of these files, by their names here."""


class RunStatus(Model):
    """What happened."""

    observed_generation: int | None = None
    phase: Phase | None = None
    """For people; derived from the condition Succeeded."""
    snapshot: Snapshot | None = None
    attempts: list[Attempt] = []
    progress: Progress | None = None
    failure: Failure | None = None
    outputs: Outputs | None = None
    results: dict[str, JsonValue] | None = None
    """What the notebook returned, if that is short; all of it is in result.json."""
    versions: dict[str, str] | None = None
    """Of Python, papermill and the kernel that ran the notebook."""
    start_time: str | None = None
    completion_time: str | None = None
    queued_seconds: int | None = None
    duration_seconds: int | None = None
    notifications: list[Delivery] | None = None
    """The messages about the Run's end, one for each target."""
    conditions: list[Condition] = []


class Run(Model):
    """One execution of a notebook."""

    metadata: Metadata
    spec: RunSpec
    status: RunStatus = RunStatus()

    @model_validator(mode="before")
    @classmethod
    def _started_as_it_was(cls, value: Any) -> Any:
        """Ignore an edit of what the schema leaves open: the snapshot says what is in force.

        Whatever was made of it, the Job that runs has to be followed.
        """
        match value:
            case {"spec": dict() as spec, "status": {"snapshot": dict()}}:
                kept = {name: spec[name] for name in _AFTER_START if name in spec}
                return {**value, "spec": kept}
        return value

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to this Run."""
        return self.status.phase in FINAL_PHASES
