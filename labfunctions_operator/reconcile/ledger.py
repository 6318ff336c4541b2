"""Counts what became of a schedule's or a Backfill's Runs, once each, although Runs come and go.

The status names the Runs that are live, and the time up to which ticks are settled. A Run is
still to be counted if it is named there, if it is live, or if its tick is later than that time:
then it was made, and the operator died before the status said so. Every other one has been
counted. So a Run may be deleted once it has ended and `is_counted` says so.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from labfunctions_operator.api.schedule import LastRun, ScheduleStatus
from labfunctions_operator.api.times import parse_time
from labfunctions_operator.api.types import LocalRef
from labfunctions_operator.reconcile.scheduled_run import ScheduledRun

SUCCEEDED, FAILED = "Succeeded", "Failed"


class Counts(Protocol):
    """The part of a status that counts Runs."""

    @property
    def active(self) -> Sequence[LocalRef] | None:
        """Runs that were live."""

    @property
    def succeeded(self) -> int | None:
        """How many have succeeded."""

    @property
    def failed(self) -> int | None:
        """How many have failed."""

    @property
    def settled_until(self) -> str | None:
        """Up to when each tick's Run is counted or active; None if nothing is known."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The counts of a status, brought up to date.

    Attributes:
        live: Runs that have not ended, oldest tick first.
        ended: Those that have ended since the status was written, oldest tick first.
    """

    live: tuple[ScheduledRun, ...]
    ended: tuple[ScheduledRun, ...]
    succeeded: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What became of the Runs.

    Attributes:
        live: Those that have not ended, oldest tick first.
        ticks: Of all Runs that were not counted before, live or not.
        made: How many of the Runs the status did not know yet.
        latest: The Run of the latest tick that has ended, if it ended since the status was
            written.
    """

    live: tuple[ScheduledRun, ...]
    ticks: frozenset[datetime]
    made: int
    succeeded: int
    failed: int
    last_successful_time: str | None
    last_failed_time: str | None
    latest: ScheduledRun | None


def take_stock(
    status: ScheduleStatus, runs: Iterable[ScheduledRun], since: datetime | None, now: datetime
) -> Ledger:
    """Count the Runs that ended since the status was written.

    Args:
        status: As stored.
        runs: All that the Workflow's schedule made, and that exist.
        since: Up to when ticks are settled; None if nothing is known, so that all are counted.
        now: The time.
    """
    named = {ref.name for ref in status.active or ()}
    known = [r for r in runs if r.name in named]
    # Later ones are those of a clock that stepped back: their time will come.
    unknown = [
        r
        for r in runs
        if r.name not in named and r.tick <= now and (r.is_live or since is None or r.tick > since)
    ]
    counts = tally(status, [*known, *unknown])
    ended = counts.ended
    return Ledger(
        live=counts.live,
        ticks=frozenset(run.tick for run in (*counts.live, *ended)),
        made=len(unknown),
        succeeded=counts.succeeded,
        failed=counts.failed,
        last_successful_time=_last_end(ended, SUCCEEDED, status.last_successful_time),
        last_failed_time=_last_end(ended, FAILED, status.last_failed_time),
        latest=ended[-1] if ended and not _is_older(ended[-1], status.last_run, now) else None,
    )


def tally(status: Counts, pending: Iterable[ScheduledRun]) -> Tally:
    """Add Runs that are still to be counted to the counts of a status."""
    runs = sorted(pending, key=lambda run: run.tick)
    ended = tuple(run for run in runs if not run.is_live)
    return Tally(
        live=tuple(run for run in runs if run.is_live),
        ended=ended,
        succeeded=(status.succeeded or 0) + _count(ended, SUCCEEDED),
        failed=(status.failed or 0) + _count(ended, FAILED),
    )


def is_counted(run: ScheduledRun, status: Counts) -> bool:
    """Whether a Run that has ended is in the counts of its maker's status already."""
    if status.settled_until is None or run.tick > parse_time(status.settled_until):
        return False
    return run.name not in {ref.name for ref in status.active or ()}


def _count(runs: Iterable[ScheduledRun], phase: str) -> int:
    return sum(run.phase == phase for run in runs)


def _last_end(ended: Iterable[ScheduledRun], phase: str, recorded: str | None) -> str | None:
    times = [run.completion_time for run in ended if run.phase == phase]
    return max(filter(None, (recorded, *times)), key=parse_time, default=None)


def _is_older(run: ScheduledRun, recorded: LastRun | None, now: datetime) -> bool:
    """Whether a Run's tick is before the recorded one's, unless a wrong clock made that."""
    minutes = recorded.name.rsplit("-", 1)[-1] if recorded else ""
    if not minutes.isdecimal():
        return False
    return run.tick.timestamp() // 60 < int(minutes) <= now.timestamp() // 60
