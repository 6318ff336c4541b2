"""Which messages are on their way, and what became of each until a status says so."""

import random
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from labfunctions_operator.api.notification import Delivery, MissedDelivery, Template
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.times import parse_time
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.controllers.dispatch import Dispatch
from labfunctions_operator.controllers.post import PATIENCE, Measured, Member, Parcel, Post
from labfunctions_operator.desired.message import NAMES_LIMIT, Message
from labfunctions_operator.reconcile.missed import pending
from labfunctions_operator.reconcile.notify import PENDING, Outcome
from labfunctions_operator.reconcile.plan import Key

# Failures that came while nobody looked are offered one after another within this time.
GROUP_MINIMUM = 1.0


@dataclass(eq=False)
class _Hand:
    """The messages of one object that are in hand.

    Attributes:
        fresh: Those that are to be sent at once, by their place in a Run's status, or their mark.
        parcels: Those about a schedule.
        has_news: Whether there are outcomes that nobody was told to put on record.
    """

    key: Key
    uid: str
    fresh: set[Hashable] = field(default_factory=set)
    parcels: dict[str, Parcel] = field(default_factory=dict)
    outcomes: dict[Any, Outcome] = field(default_factory=dict)
    has_news: bool = False


class Notifier:
    """Sends the messages that statuses call for, and knows what became of each.

    Args:
        dispatch: Writes one message, and says how it is sent.
        on_outcome: Called with an object's key when there is something to put on record.
        now: The time.
        measured: Called with namespace, event, medium and `Sent` or `Failed` of each message.
        clock: Seconds that only grow.
        random: A number in [0, 1), for jitter.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        on_outcome: Callable[[Key], None],
        now: Callable[[], datetime],
        *,
        measured: Measured,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._dispatch = dispatch
        self._on_outcome = on_outcome
        self._now = now
        self._clock = clock
        self._hands: dict[Key, _Hand] = {}
        self._post: Post = Post(dispatch.address, self, measured, clock, random)

    def offer(self, key: Key, run: Run) -> Mapping[int, Outcome]:
        """Take in hand what is still to be sent about a Run; return what became of it so far."""
        hand = self._hands.get(key)
        if hand is None or hand.uid != run.metadata.uid:
            hand = _Hand(key, run.metadata.uid)
            if self._post.is_stopping:
                return {}
            self._hands[key] = hand
            for place, delivery in enumerate(run.status.notifications or ()):
                if delivery.state == PENDING:
                    self._enqueue(hand, place, delivery, run)
        return self._known(hand)

    def offer_missed(
        self, key: Key, workflow: Workflow, template: Template | None
    ) -> Mapping[str, Outcome]:
        """Take in hand what is still to be sent about a schedule; return what became of it so far.

        A message that has taken in an earlier one to its target goes in place of that.
        """
        hand = self._hands.get(key)
        if hand is None or hand.uid != workflow.metadata.uid:
            hand = _Hand(key, workflow.metadata.uid)
        if self._post.is_stopping:
            return hand.outcomes
        self._hands[key] = hand
        wanted = pending(workflow)
        patience = _withdraw(hand, wanted)
        for mark in wanted.keys() - hand.parcels:
            delivery = wanted[mark]
            last_try = patience.get(delivery.target.identity)
            parcel = self._about_schedule(workflow, delivery, template, last_try)
            parcel.members.append((hand, mark))
            hand.parcels[mark] = parcel
            if not delivery.not_before and not self._post.is_failing(
                key.namespace, delivery.target
            ):
                hand.fresh.add(mark)
            self._post.enqueue(key.namespace, parcel)
        return self._known(hand)

    def forget(self, key: Key) -> None:
        """Drop what is known of an object that is on record, or gone; what is sent arrives."""
        self._hands.pop(key, None)

    async def stop(self) -> list[Key]:
        """Let what is being sent arrive; return the objects with something to put on record."""
        await self._post.stop()
        return [hand.key for hand in self._hands.values() if hand.outcomes]

    def delayed(self, member: Member) -> None:
        """Let other outcomes be put on record meanwhile."""
        hand: _Hand
        hand, spot = member
        hand.fresh.discard(spot)
        self._report(hand)

    def settled(self, member: Member, outcome: Outcome) -> None:
        """Have an outcome put on record."""
        hand: _Hand
        hand, spot = member
        hand.outcomes[spot] = outcome
        hand.has_news = True
        hand.fresh.discard(spot)
        self._report(hand)

    def _enqueue(self, hand: _Hand, place: int, delivery: Delivery, run: Run) -> None:
        wait = max(self._held(delivery), GROUP_MINIMUM) if delivery.not_before else 0.0
        group = _alike(run) if wait else None
        if group:
            for other in self._post.waiting(hand.key.namespace, delivery.target):
                if other.group == group and not other.was_tried:
                    other.members.append((hand, place))
                    other.runs += [run.metadata.name] * (len(other.runs) < NAMES_LIMIT)
                    return
        if not wait and not self._post.is_failing(hand.key.namespace, delivery.target):
            hand.fresh.add(place)
        parcel = Parcel(
            about={"kind": "Run", "metadata": run.metadata.wire()},
            target=delivery.target,
            event=delivery.event,
            write=partial(self._about_run, run),
            due=self._clock() + wait,
            last_try=self._clock() + wait + PATIENCE,
            members=[(hand, place)],
            group=group,
            runs=[run.metadata.name],
        )
        self._post.enqueue(hand.key.namespace, parcel)

    async def _about_run(self, run: Run, parcel: Parcel) -> Message:
        return await self._dispatch.write(run, parcel.event, parcel.runs, len(parcel.members))

    def _about_schedule(
        self,
        workflow: Workflow,
        delivery: MissedDelivery,
        template: Template | None,
        last_try: float | None,
    ) -> Parcel:
        due = self._clock() + self._held(delivery)
        return Parcel(
            about={"kind": "Workflow", "metadata": workflow.metadata.wire()},
            target=delivery.target,
            event=delivery.event,
            write=lambda _: self._dispatch.write_missed(workflow, delivery, template),
            due=due,
            last_try=due + PATIENCE if last_try is None else last_try,
            members=[],
        )

    def _held(self, delivery: Delivery) -> float:
        """Return the seconds that a message is still held back."""
        if not delivery.not_before:
            return 0.0
        return max(0.0, (parse_time(delivery.not_before) - self._now()).total_seconds())

    def _known(self, hand: _Hand) -> Mapping[Any, Outcome]:
        """Return outcomes once they are one write, whoever has an object looked at before."""
        return {} if hand.fresh and not self._post.is_stopping else hand.outcomes

    def _report(self, hand: _Hand) -> None:
        """Have outcomes put on record, in one write for all that is sent at the first try."""
        if hand.fresh or not hand.has_news or self._hands.get(hand.key) is not hand:
            return
        hand.has_news = False
        self._on_outcome(hand.key)


def _withdraw(hand: _Hand, wanted: Mapping[str, MissedDelivery]) -> dict[str, float]:
    """Take back what is not wanted any more; return by target when that would be given up."""
    gone = {mark: parcel for mark, parcel in hand.parcels.items() if mark not in wanted}
    patience = {
        parcel.target.identity: parcel.last_try
        for mark, parcel in gone.items()
        if mark not in hand.outcomes
    }
    for mark, parcel in gone.items():
        del hand.parcels[mark]
        hand.fresh.discard(mark)
        hand.outcomes.pop(mark, None)
        parcel.members.clear()
    return patience


def _alike(run: Run) -> tuple[str, ...]:
    """Tell apart failures that go into one message."""
    snapshot, failure, spec = run.status.snapshot, run.status.failure, run.spec
    reason = failure.reason if failure else ""
    if snapshot:
        return snapshot.project, snapshot.workflow or "", snapshot.notebook or "", reason
    project, workflow = (ref.name if ref else "" for ref in (spec.project_ref, spec.workflow_ref))
    return project, workflow, spec.notebook or spec.from_run or "", reason
