"""Which ticks of a schedule to run now, which were missed, and when to look again."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from labfunctions_operator.api.schedule import ScheduleSpec
from labfunctions_operator.reconcile.timetable import Timetable

# More ticks than this are not looked at, however long the operator was away.
LOOK_BACK = 1000
# What counts as on time, for catchUp None and for the word Late.
ON_TIME = timedelta(seconds=60)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Due:
    """What a moment asks for.

    Attributes:
        run: Ticks that may start, oldest first.
        missed: Ticks that may not start any more, oldest first.
        is_too_late: Whether the last of these is later than startingDeadlineSeconds allows.
        more: Whether further ones, before these, were missed and not looked at.
        settled: The last tick that is neither ahead nor still held back by jitter; None if that
            is none.
        next: When the next tick will start, its jitter included.
    """

    run: tuple[datetime, ...]
    missed: tuple[datetime, ...]
    is_too_late: bool
    more: bool
    settled: datetime | None
    next: datetime | None


def due(  # noqa: PLR0917
    spec: ScheduleSpec,
    ticks: Timetable,
    identity: str,
    since: datetime,
    now: datetime,
    existing: Collection[datetime] = (),
) -> Due:
    """Decide about all ticks later than `since`.

    Args:
        spec: What to do about late ones.
        ticks: When they are.
        identity: Of the Workflow, for its jitter.
        since: Up to when ticks are settled.
        now: The time.
        existing: Ticks that have a Run; they are neither run nor missed.
    """
    pending = _held_back(spec, ticks, identity, since, now)
    passed: list[datetime] = []
    tick = ticks.until(pending - _SECOND if pending else now)
    while tick is not None and tick > since and len(passed) < LOOK_BACK:
        passed.append(tick)
        tick = ticks.until(tick - _SECOND)
    more = tick is not None and tick > since
    passed.reverse()
    # Chosen among all of them: where a later tick has its Run, an earlier one is not the latest.
    late = {t: now - t - jitter(spec, ticks, identity, t) for t in passed}
    run = tuple(t for t in _catch_up(spec, late) if t not in existing)
    missed = tuple(t for t in passed if t not in run and t not in existing)
    ahead = pending or ticks.after(max(since, now))
    return Due(
        run=run,
        missed=missed,
        is_too_late=bool(missed) and late[missed[-1]] > _deadline(spec),
        more=more,
        settled=passed[-1] if passed else None,
        next=ahead and ahead + jitter(spec, ticks, identity, ahead),
    )


def _held_back(
    spec: ScheduleSpec, ticks: Timetable, identity: str, since: datetime, now: datetime
) -> datetime | None:
    """Return the tick that has come but still waits; as jitter never reorders, only the last."""
    last = ticks.until(now)
    if last is None or last <= since:
        return None
    return last if last + jitter(spec, ticks, identity, last) > now else None


def _catch_up(spec: ScheduleSpec, late: Mapping[datetime, timedelta]) -> tuple[datetime, ...]:
    policy, deadline = spec.catch_up.policy, _deadline(spec)
    if policy == "None":
        deadline = min(deadline, ON_TIME)
    count = spec.catch_up.max if policy == "All" else 1
    if spec.concurrency_policy in ("Forbid", "Replace"):
        count = 1  # only one can run: the latest
    startable = [tick for tick, lateness in late.items() if lateness <= deadline]
    return tuple(startable[-count:])


def _deadline(spec: ScheduleSpec) -> timedelta:
    limit = spec.starting_deadline_seconds
    return timedelta.max if limit is None else timedelta(seconds=limit)


def jitter(spec: ScheduleSpec, ticks: Timetable, identity: str, tick: datetime) -> timedelta:
    """Return how long a tick waits: always the same, and less than until the next tick."""
    if spec.jitter_seconds == 0:
        return timedelta(0)
    following = ticks.after(tick)
    bound = timedelta(seconds=spec.jitter_seconds)
    if following is not None:
        bound = min(bound, following - tick - _SECOND)
    text = f"{identity}\0{int(tick.timestamp())}"
    share = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
    return timedelta(seconds=int(bound.total_seconds() * share))
