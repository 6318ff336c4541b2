"""Backfill: the Runs of a past range of a Workflow's schedule."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from labfunctions_operator.api.schedule import MAX_ACTIVE, Timestamp
from labfunctions_operator.api.times import parse_time
from labfunctions_operator.api.types import Condition, LocalRef, Metadata, Model

NAME_LIMIT = 42
MAX_TICKS = 10000

Phase = Literal["Pending", "Running", "Suspended", "Succeeded", "Failed"]
Reprocess = Literal["None", "Failed", "All"]


class BackfillSpec(Model):
    """Which ticks to run."""

    workflow_ref: LocalRef
    """The Workflow of the same namespace whose schedule says when the ticks are."""
    from_time: Annotated[Timestamp, Field(alias="from")]
    """The first time that a tick may have."""
    to_time: Annotated[Timestamp, Field(alias="to")]
    """The last time that a tick may have; it has passed."""
    max_active: Annotated[int, Field(ge=1, le=MAX_ACTIVE)] = 1
    """How many Runs are live at once (default 1)."""
    reprocess: Reprocess = "None"
    """Of ticks that had a Run already: run none again, those that failed, or all (default None)."""
    dry_run: bool = False
    """Only say which ticks would be run."""
    suspend: bool = False
    """Make no more Runs for now. Live Runs go on."""

    @model_validator(mode="after")
    def _range(self) -> "BackfillSpec":
        start, end = parse_time(self.from_time), parse_time(self.to_time)
        if end < start:
            raise ValueError("to is before from")
        if start.timestamp() < 0:
            raise ValueError("from is before 1970")
        return self


class PlannedTicks(Model):
    """What a dry run has found."""

    run: int
    """How many ticks would be run."""
    skip: int
    """How many would not, as they have run already."""
    first: list[str] = []
    """The first of those to run."""
    last: list[str] = []
    """The last of those to run, unless first names all."""


class BackfillStatus(Model):
    """How far it is."""

    observed_generation: int | None = None
    phase: Phase | None = None
    """For people; derived from the condition Succeeded."""
    total: int | None = None
    """Ticks in the range."""
    skipped: int | None = None
    """Ticks that got no Run, as they have run already."""
    created: int | None = None
    """Runs made."""
    succeeded: int | None = None
    """Runs that succeeded, those deleted since included."""
    failed: int | None = None
    """Runs that failed, those deleted since included."""
    progress: str | None = None
    """Ticks that are done, of all: for a table."""
    active: list[LocalRef] | None = None
    """Runs that have not ended; there are never more than a hundred."""
    failed_runs: list[LocalRef] | None = None
    """The first few that failed."""
    cursor: Timestamp | None = None
    """Ticks up to this one are settled: they have a Run, or were skipped."""
    plan: PlannedTicks | None = None
    start_time: str | None = None
    completion_time: str | None = None
    conditions: list[Condition] = []

    @property
    def settled_until(self) -> str | None:
        """Up to when each tick's Run is in the counts, or in `active`."""
        return self.cursor


class Backfill(Model):
    """The Runs of a past range of a Workflow's schedule."""

    metadata: Metadata
    spec: BackfillSpec
    status: BackfillStatus = BackfillStatus()
