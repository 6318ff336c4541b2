"""Messages on their way: a queue for each target, so that a dead one delays nobody else."""

import asyncio
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from labfunctions_operator.api.notification import Delivery, Event, Target
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.times import parse_time
from labfunctions_operator.controllers.dispatch import Dispatch
from labfunctions_operator.desired.message import NAMES_LIMIT, Message
from labfunctions_operator.errors import Denied, Transient
from labfunctions_operator.providers.notify.gate import Undeliverable
from labfunctions_operator.reconcile.notify import PENDING, Outcome
from labfunctions_operator.reconcile.plan import Key

logger = logging.getLogger(__name__)

FIRST_DELAY = 2.0
LAST_DELAY = 300.0
# From the first try to the last.
PATIENCE = 3600.0
# For one try, with all that it reads first.
TRY_TIMEOUT = 60.0
AT_ONCE = 16
# Failures that came while nobody looked are offered one after another within this time.
GROUP_MINIMUM = 1.0
STOP_TIMEOUT = 5.0

Place = tuple[str, str]


@dataclass(eq=False)
class _Hand:
    """The messages of one Run that are in hand, by their place in its status."""

    key: Key
    uid: str
    fresh: set[int] = field(default_factory=set)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    told: int = 0


@dataclass(eq=False)
class _Parcel:
    """One message to send, for one Run or for several alike.

    Attributes:
        due: When it is tried next.
        last_try: When it is given up.
    """

    target: Target
    event: Event
    run: Run | None
    message: Message | None
    due: float
    last_try: float
    group: tuple[str, ...] | None = None
    runs: list[str] = field(default_factory=list)
    members: list[tuple[_Hand, int]] = field(default_factory=list)
    was_tried: bool = False


@dataclass(eq=False)
class _Lane:
    """What waits for one target of one namespace."""

    namespace: str
    parcels: list[_Parcel] = field(default_factory=list)
    not_before: float = 0.0
    failures: int = 0
    error: str = ""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    is_busy: bool = False


class Notifier:
    """Sends the messages that Runs' statuses call for, and knows what became of each.

    Args:
        dispatch: Writes and sends one message.
        on_outcome: Called with a Run's key when there is something to put on record.
        now: The time.
        clock: Seconds that only grow.
        random: A number in [0, 1), for jitter.

    Attributes:
        messages: How many messages ended, by event, medium and `Sent` or `Failed`.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        on_outcome: Callable[[Key], None],
        now: Callable[[], datetime],
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.messages: Counter[tuple[str, str, str]] = Counter()
        self._dispatch = dispatch
        self._on_outcome = on_outcome
        self._now = now
        self._clock = clock
        self._random = random
        self._hands: dict[Key, _Hand] = {}
        self._lanes: dict[Place, _Lane] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._stopping = False

    def offer(self, key: Key, run: Run) -> Mapping[int, Outcome]:
        """Take in hand what is still to be sent about a Run; return what became of it so far."""
        hand = self._hands.get(key)
        if hand is not None and hand.uid == run.metadata.uid:
            return hand.outcomes
        if self._stopping:
            return {}
        hand = self._hands[key] = _Hand(key, run.metadata.uid)
        for place, delivery in enumerate(run.status.notifications or ()):
            if delivery.state == PENDING:
                self._post(hand, place, delivery, run)
        return hand.outcomes

    def forget(self, key: Key) -> None:
        """Drop what is known of a Run that is on record, or gone; what is on its way arrives."""
        self._hands.pop(key, None)

    def tell(self, key: Key, deliveries: Sequence[Delivery], message: Message) -> None:
        """Send a message that no Run's status records, such as of a missed tick."""
        hand = _Hand(key, "")
        for place, delivery in enumerate(deliveries):
            parcel = _parcel(delivery, self._clock(), message=message)
            parcel.members.append((hand, place))
            self._enqueue(key.namespace, parcel)

    async def stop(self) -> list[Key]:
        """Let what is being sent arrive; return the Runs with something to put on record."""
        self._stopping = True
        tasks = {lane.task: lane for lane in self._lanes.values() if lane.task}
        for task, lane in tasks.items():
            if not lane.is_busy:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_TIMEOUT)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [hand.key for hand in self._hands.values() if hand.outcomes]

    def _post(self, hand: _Hand, place: int, delivery: Delivery, run: Run) -> None:
        wait = self._group_wait(delivery.event, run)
        group = _alike(run) if wait else None
        lane = self._lanes.get(_place(hand.key.namespace, delivery.target))
        if group and lane:
            for parcel in lane.parcels:
                if parcel.group == group and not parcel.was_tried:
                    parcel.members.append((hand, place))
                    parcel.runs += [run.metadata.name] * (len(parcel.runs) < NAMES_LIMIT)
                    return
        if not wait:
            hand.fresh.add(place)
        parcel = _parcel(delivery, self._clock() + wait, run=run, group=group)
        parcel.runs.append(run.metadata.name)
        parcel.members.append((hand, place))
        self._enqueue(hand.key.namespace, parcel)

    def _group_wait(self, event: Event, run: Run) -> float:
        """Return the seconds to wait for more failures alike."""
        plan = run.status.snapshot.notify if run.status.snapshot else None
        seconds = plan.group_seconds if plan and event == "Failed" else 0
        if not seconds or not run.status.completion_time:
            return 0.0
        due = parse_time(run.status.completion_time) + timedelta(seconds=seconds)
        return min(max((due - self._now()).total_seconds(), GROUP_MINIMUM), float(seconds))

    def _enqueue(self, namespace: str, parcel: _Parcel) -> None:
        where = _place(namespace, parcel.target)
        lane = self._lanes.setdefault(where, _Lane(namespace))
        lane.parcels.append(parcel)
        lane.wake.set()
        if lane.task is None and not self._stopping:
            lane.task = asyncio.create_task(self._work(where, lane), name=f"notify {namespace}")

    async def _work(self, where: Place, lane: _Lane) -> None:
        while lane.parcels and not self._stopping:
            parcel = min(lane.parcels, key=lambda p: p.due)
            lane.wake.clear()
            wait = max(parcel.due, lane.not_before) - self._clock()
            if wait > 0:
                await _wait_for(lane.wake, wait)
                continue
            lane.parcels.remove(parcel)
            lane.is_busy = True
            await self._deliver(lane, parcel)
            lane.is_busy = False
        if not lane.parcels:
            del self._lanes[where]

    async def _deliver(self, lane: _Lane, parcel: _Parcel) -> None:
        if lane.failures and self._clock() > parcel.last_try:
            self._settle(parcel, Outcome(state="Failed", message=lane.error))
            return
        parcel.was_tried = True
        try:
            async with self._slots, asyncio.timeout(TRY_TIMEOUT):
                await self._send(lane, parcel)
        except Undeliverable as error:
            self._settle(parcel, Outcome(state="Failed", message=str(error)))
        except (Transient, Denied, TimeoutError) as error:
            self._later(lane, parcel, error)
        except Exception:
            logger.exception("a message could not be sent")
            self._settle(parcel, Outcome(state="Failed", message="an error of the operator's own"))
        else:
            lane.failures = 0
            self._settle(parcel, Outcome(state="Sent"))

    async def _send(self, lane: _Lane, parcel: _Parcel) -> None:
        message = parcel.message
        if message is None:
            assert parcel.run is not None
            message = await self._dispatch.write(
                parcel.run, parcel.event, parcel.runs, len(parcel.members)
            )
        await self._dispatch.send(lane.namespace, parcel.target, message)

    def _later(self, lane: _Lane, parcel: _Parcel, error: Exception) -> None:
        lane.error = str(error) or "no answer in time"
        delay = min(LAST_DELAY, FIRST_DELAY * 2.0 ** min(lane.failures, 16))
        lane.failures += 1
        if isinstance(error, Transient) and error.retry_after:
            delay = max(delay, error.retry_after)
        delay *= 1 + self._random() / 4
        lane.not_before = self._clock() + delay
        if lane.not_before > parcel.last_try:
            self._settle(parcel, Outcome(state="Failed", message=lane.error))
            return
        # Behind the others: it may be this message that the server cannot take.
        parcel.due = lane.not_before
        lane.parcels.append(parcel)
        logger.warning("a message waits for its target %s: %s", parcel.target, lane.error)
        for hand, place in parcel.members:
            hand.fresh.discard(place)
            self._report(hand)

    def _settle(self, parcel: _Parcel, outcome: Outcome) -> None:
        medium = (parcel.target.media or ["none"])[0]
        self.messages[parcel.event, medium, outcome.state] += 1
        for hand, place in parcel.members:
            hand.outcomes[place] = outcome
            hand.fresh.discard(place)
            self._report(hand)

    def _report(self, hand: _Hand) -> None:
        """Have outcomes put on record, in one write for all that is sent at the first try."""
        if hand.fresh or len(hand.outcomes) == hand.told or self._hands.get(hand.key) is not hand:
            return
        hand.told = len(hand.outcomes)
        self._on_outcome(hand.key)


def _parcel(
    delivery: Delivery,
    due: float,
    *,
    run: Run | None = None,
    message: Message | None = None,
    group: tuple[str, ...] | None = None,
) -> _Parcel:
    return _Parcel(
        target=delivery.target,
        event=delivery.event,
        run=run,
        message=message,
        due=due,
        last_try=due + PATIENCE,
        group=group,
    )


def _place(namespace: str, target: Target) -> Place:
    return namespace, json.dumps(target.but(name=None).wire() or target.wire(), sort_keys=True)


def _alike(run: Run) -> tuple[str, ...]:
    """Tell apart failures that go into one message."""
    snapshot, failure = run.status.snapshot, run.status.failure
    assert snapshot is not None
    reason = failure.reason if failure else ""
    return snapshot.project, snapshot.workflow or "", snapshot.notebook or "", reason


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
