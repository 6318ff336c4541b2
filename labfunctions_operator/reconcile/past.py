"""What has run already, of the ticks of a past range."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from labfunctions_operator.api.backfill import MAX_TICKS, BackfillSpec, Reprocess
from labfunctions_operator.api.times import parse_time
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.ledger import FAILED
from labfunctions_operator.reconcile.raw import part, workflow_of
from labfunctions_operator.reconcile.scheduled_run import parse_tick, tick_of
from labfunctions_operator.reconcile.timetable import Timetable, timetable, timetable_of_range

_RECORD = re.compile(r"(?P<folder>[^/]+-(?P<minutes>[0-9]{1,12})-(?P<uid>[0-9a-f]{8}))/run\.json")


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A Run that was made for a tick.

    Attributes:
        created: When, as the API server writes it.
        phase: None if it has not ended, or nobody has read how.
    """

    created: str
    phase: str | None


@dataclass(frozen=True, kw_only=True)
class Past:
    """The ticks of a range, and what is known of them.

    Attributes:
        ticks: Oldest first; one more than is allowed if there are too many.
        runs: The latest Run of a tick, by the Unix minute.
    """

    ticks: tuple[datetime, ...]
    runs: Mapping[int, PastRun]


def minute_of(tick: datetime) -> int:
    """Return the Unix minute that names a tick."""
    return int(tick.timestamp()) // 60


def past_ticks(workflow: Workflow, backfill: BackfillSpec) -> Timetable:
    """Return the ticks of a schedule in a range.

    The Workflow's own startAt and endAt do not bound them; an interval counts from the same moment
    as the schedule's.

    Raises:
        InvalidSpec: It has no ticks; the path is that of a field of the Workflow.
    """
    if not workflow.spec.is_scheduled:
        raise InvalidSpec("spec.schedule", "neither this nor spec.interval is given")
    start, end = parse_time(backfill.from_time), parse_time(backfill.to_time)
    return timetable_of_range(workflow.spec, _created(workflow, start), start, end)


def _created(workflow: Workflow, otherwise: datetime) -> datetime:
    created = workflow.metadata.creation_timestamp
    return parse_time(created) if created else otherwise


def first_unsettled(workflow: Workflow, backfill: BackfillSpec) -> datetime | None:
    """Return the first tick of a range about which the schedule itself has still to decide.

    It may be held back by jitter, or be caught up with, and would then be run twice.
    """
    spec, record = workflow.spec, workflow.status.schedule
    if spec.suspend or (record and spec.repeat is not None and record.runs >= spec.repeat):
        return None
    start, end = parse_time(backfill.from_time), parse_time(backfill.to_time)
    created = _created(workflow, start)
    settled = parse_time(record.since) if record else created
    try:
        own = timetable(spec, created)
    except InvalidSpec:
        return None
    tick = own.after(max(settled, start - timedelta(microseconds=1)))
    return tick if tick and tick <= end else None


def find_ticks(workflow: Workflow, backfill: BackfillSpec) -> tuple[datetime, ...]:
    """Return the ticks of a schedule in a range: at most one more than a Backfill may have.

    This may take seconds.

    Raises:
        InvalidSpec: A field of the Workflow cannot be worked with.
    """
    table = past_ticks(workflow, backfill)
    ticks: list[datetime] = []
    tick = table.after(parse_time(backfill.from_time) - timedelta(microseconds=1))
    while tick is not None and len(ticks) <= MAX_TICKS:
        ticks.append(tick)
        tick = table.after(tick)
    return tuple(ticks)


def left_of(ticks: tuple[datetime, ...], cursor: datetime | None) -> range:
    """Return the places of the ticks that are not settled."""
    return range(bisect_right(ticks, cursor) if cursor else 0, len(ticks))


def find_records(paths: Iterable[str], ticks: tuple[datetime, ...]) -> dict[str, int]:
    """Return the records of Runs of these ticks, with the Unix minute of each.

    Args:
        paths: Of files, within the folder of a Workflow.
        ticks: Oldest first.
    """
    minutes = [minute_of(tick) for tick in ticks]
    found = {}
    for path in paths:
        if match := _RECORD.fullmatch(path):
            minute = int(match["minutes"])
            place = bisect_left(minutes, minute)
            if place < len(minutes) and minutes[place] == minute:
                found[path] = minute
    return found


def read_run(obj: Any) -> PastRun:
    """Read a stored Run or a record; a record may be anything."""
    metadata, status = part(obj, "metadata"), part(obj, "status")
    created, phase = metadata.get("creationTimestamp"), status.get("phase")
    return PastRun(created=str(created or ""), phase=phase if isinstance(phase, str) else None)


def tick_key(run: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return the Workflow and the Unix minute that a stored Run was made for."""
    workflow = workflow_of(run)
    tick = tick_of(run) or parse_tick(part(run, "status", "snapshot").get("scheduledAt"))
    return (workflow, minute_of(tick)) if tick and workflow else None


def latest(runs: Iterable[PastRun | None]) -> PastRun | None:
    """Return the Run that was made last."""
    return max((run for run in runs if run), key=lambda run: run.created, default=None)


def is_done(known: PastRun | None, reprocess: Reprocess) -> bool:
    """Whether a tick is left out."""
    if known is None or reprocess == "All":
        return False
    return reprocess == "None" or known.phase != FAILED
