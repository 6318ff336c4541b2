"""Who is told of ticks that got no Run, and what a Workflow's status says of it.

The status has one message for each target: the last one. While that is not sent, further ticks are
added to it, so that a schedule with much to tell to a target that is away stays one message.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from labfunctions_operator.api.conditions import MESSAGE_LIMIT
from labfunctions_operator.api.notification import MissedDelivery, Target
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.api.types import Condition
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.reconcile.notify import (
    NOTIFIED,
    PENDING,
    Outcome,
    failures,
    whole_targets,
    with_notified,
    words_of,
)
from labfunctions_operator.reconcile.plan import Event

# A schedule that runs and skips in turn tells a target not more often than this.
QUIET = timedelta(minutes=10)
# More than there can be targets; those beyond were taken out of the spec while they did not answer.
LIMIT = 20
CAUSE_LIMIT = 400


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Ticks that got no Run, the first of several in turn.

    Attributes:
        reason: Of the Event.
        message: The Event's one line.
        cause: The part of it that says why.
        due: The last of the ticks.
        count: How many they are.
    """

    reason: str
    message: str
    cause: str
    due: datetime
    count: int

    @property
    def event(self) -> Event:
        """Return what `kubectl describe` shows."""
        return Event(type="Warning", reason=self.reason, message=self.message)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a Workflow's status says of messages about its schedule."""

    deliveries: list[MissedDelivery] | None
    conditions: list[Condition]
    events: tuple[Event, ...] = ()


def tell_missed(
    workflow: Workflow,
    conditions: Iterable[Condition],
    skipped: Skipped | None,
    *,
    project: Project | None,
    outcomes: Mapping[str, Outcome],
    now: datetime,
) -> Told:
    """Put on record what became of messages, and those that skipped ticks call for.

    Args:
        workflow: As stored.
        conditions: Its conditions so far.
        skipped: What is news about its schedule.
        project: Its Project, which knows targets by name.
        outcomes: What became of messages, by their `mark`.
        now: The time.
    """
    before = workflow.status.notifications or []
    after = [_with_outcome(delivery, outcomes.get(mark(delivery)), now) for delivery in before]
    events = failures(before, after)
    if skipped:
        words = words_of(workflow, project)
        targets = whole_targets(words.on_missed, project)
        after = _with_news(after, skipped, targets, timedelta(seconds=words.group_seconds), now)
    if not after:
        rest = [c for c in conditions if c.type != NOTIFIED]
        return Told(deliveries=None, conditions=rest, events=events)
    generation = workflow.metadata.generation
    told = with_notified(conditions, after, generation=generation, now=now)
    return Told(deliveries=after, conditions=told, events=events)


def pending(workflow: Workflow) -> dict[str, MissedDelivery]:
    """Return the messages that are still to be sent, by their marks."""
    found = workflow.status.notifications or ()
    return {mark(delivery): delivery for delivery in found if delivery.state == PENDING}


def mark(delivery: MissedDelivery) -> str:
    """Tell a message from an earlier one to the same target, which it may have taken in."""
    return f"{delivery.due} {delivery.count} {delivery.target.identity}"


def _with_outcome(
    delivery: MissedDelivery, outcome: Outcome | None, now: datetime
) -> MissedDelivery:
    if outcome is None or delivery.state != PENDING:
        return delivery
    return delivery.but(
        state=outcome.state,
        message=outcome.message and outcome.message[:MESSAGE_LIMIT],
        time=rfc3339(now),
    )


def _with_news(
    before: Sequence[MissedDelivery],
    skipped: Skipped,
    targets: Iterable[Target],
    group: timedelta,
    now: datetime,
) -> list[MissedDelivery]:
    old = {delivery.target.identity: delivery for delivery in before}
    new: dict[str, MissedDelivery] = {}
    for target in targets:
        last = old.get(target.identity)
        new.setdefault(target.identity, _delivery(target, skipped, last, group, now))
    # What is no longer a target is still owed what it was to be told.
    owed = [d for target, d in old.items() if target not in new and d.state == PENDING]
    return [*owed, *new.values()][-LIMIT:]


def _delivery(
    target: Target,
    skipped: Skipped,
    last: MissedDelivery | None,
    group: timedelta,
    now: datetime,
) -> MissedDelivery:
    count, not_before = skipped.count, now + group
    if last and last.state == PENDING:
        count += last.count
        not_before = parse_time(last.not_before) if last.not_before else now
    elif last and last.time:
        not_before = max(not_before, parse_time(last.time) + QUIET)
    return MissedDelivery(
        target=target,
        due=rfc3339(skipped.due),
        count=count,
        reason=skipped.reason,
        cause=skipped.cause[:CAUSE_LIMIT],
        not_before=rfc3339(not_before) if not_before > now else None,
    )
