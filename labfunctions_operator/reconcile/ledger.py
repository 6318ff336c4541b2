"""Counts what became of a schedule's Runs, each of them once, although Runs come and go.

The status names the Runs that are live, and the time up to which ticks are settled. A Run is
still to be counted if it is named there, if it is live, or if its tick is later than that time:
then it was made, and the operator died before the status said so. Every other one has been
counted. So a Run may be deleted once it has ended and `is_counted` says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from labfunctions_operator.api.schedule import LastRun, ScheduleStatus
from labfunctions_operator.api.times import parse_time
from labfunctions_operator.reconcile.scheduled_run import ScheduledRun

SUCCEEDED, FAILED = "Succeeded", "Failed"


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
    pending = sorted([*known, *unknown], key=lambda run: run.tick)
    ended = [run for run in pending if not run.is_live]
    times = [run.completion_time for run in ended if run.phase == SUCCEEDED and run.completion_time]
    if status.last_successful_time:
        times.append(status.last_successful_time)
    return Ledger(
        live=tuple(run for run in pending if run.is_live),
        ticks=frozenset(run.tick for run in pending),
        made=len(unknown),
        succeeded=(status.succeeded or 0) + _count(ended, SUCCEEDED),
        failed=(status.failed or 0) + _count(ended, FAILED),
        last_successful_time=max(times, key=parse_time, default=None),
        latest=ended[-1] if ended and not _is_older(ended[-1], status.last_run, now) else None,
    )


def is_counted(run: ScheduledRun, status: ScheduleStatus) -> bool:
    """Whether a Run that has ended is in the counts of a Workflow's status already."""
    since = parse_time(status.schedule.since) if status.schedule else None
    named = {ref.name for ref in status.active or ()}
    return since is not None and run.tick <= since and run.name not in named


def _count(runs: Iterable[ScheduledRun], phase: str) -> int:
    return sum(run.phase == phase for run in runs)


def _is_older(run: ScheduledRun, recorded: LastRun | None, now: datetime) -> bool:
    """Whether a Run's tick is before the recorded one's, unless a wrong clock made that."""
    minutes = recorded.name.rsplit("-", 1)[-1] if recorded else ""
    if not minutes.isdecimal():
        return False
    return run.tick.timestamp() // 60 < int(minutes) <= now.timestamp() // 60
