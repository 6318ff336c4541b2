"""The way of messages to their targets: a queue for each, so that a dead one delays nobody else."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from labfunctions_operator.api.notification import Event, Target
from labfunctions_operator.controllers.backoff import delay_after
from labfunctions_operator.controllers.dispatch import Letter
from labfunctions_operator.controllers.slots import AT_ONCE, Slots
from labfunctions_operator.desired.message import Message
from labfunctions_operator.errors import Denied, Transient
from labfunctions_operator.providers.notify.gate import Partly, Undeliverable
from labfunctions_operator.reconcile.notify import Outcome
from labfunctions_operator.telemetry import speak_of

logger = logging.getLogger(__name__)

FIRST_DELAY = 2.0
# From the first try to the last.
PATIENCE = 3600.0
# For what is read first, and for the sending.
TRY_TIMEOUT = 60.0
STOP_TIMEOUT = 5.0

# What the addressee knows a message by.
Member = tuple[Any, Hashable]
Place = tuple[str, str]
Measured = Callable[[str, str, str, str], None]
Address = Callable[[str, Target, Message, Sequence[str]], Awaitable[Letter]]


@dataclass(eq=False, kw_only=True)
class Parcel:
    """One message to send, for one object or for several alike.

    Attributes:
        about: The object, or the first of them; what is logged names it.
        write: Writes it, at each try anew.
        due: When it is tried next.
        last_try: When it is given up.
        members: Whom it is for; without any it is not tried again.
        group: What others must have in common with it to go along.
        runs: Names of Runs that it is about.
        only: The recipients that still lack it, once it has arrived at others.
        never: Says which recipients will never have it.
    """

    about: Mapping[str, Any]
    target: Target
    event: Event
    write: Callable[["Parcel"], Awaitable[Message]]
    due: float
    last_try: float
    members: list[Member]
    group: tuple[str, ...] | None = None
    runs: list[str] = field(default_factory=list)
    only: Sequence[str] = ()
    never: str = ""
    was_tried: bool = False


@dataclass(eq=False)
class _Lane:
    """What waits for one target of one namespace."""

    namespace: str
    parcels: list[Parcel] = field(default_factory=list)
    not_before: float = 0.0
    failures: int = 0
    error: str = ""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    is_busy: bool = False


class Addressee(Protocol):
    """Is told how parcels fare."""

    def delayed(self, member: Member) -> None:
        """Take note that a message waits for a target that does not take any now."""

    def settled(self, member: Member, outcome: Outcome) -> None:
        """Take note of what became of a message."""


class Post:
    """Sends parcels, as often as it takes.

    Args:
        address: Makes a letter of a message.
        addressee: Is told of each member.
        measured: Called with namespace, event, medium and `Sent` or `Failed` of each message.
        clock: Seconds that only grow.
        random: A number in [0, 1), for jitter.
    """

    def __init__(
        self,
        address: Address,
        addressee: Addressee,
        measured: Measured,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self.is_stopping = False
        self._address = address
        self._addressee = addressee
        self._measured = measured
        self._clock = clock
        self._random = random
        self._lanes: dict[Place, _Lane] = {}
        self._desks = asyncio.Semaphore(AT_ONCE)
        self._slots = Slots()

    def waiting(self, namespace: str, target: Target) -> Iterator[Parcel]:
        """Return what waits for a target, but for what is on its way to it now."""
        lane = self._lanes.get((namespace, target.identity))
        yield from lane.parcels if lane else ()

    def is_failing(self, namespace: str, target: Target) -> bool:
        """Whether the last try to reach a target has failed."""
        lane = self._lanes.get((namespace, target.identity))
        return lane is not None and lane.failures > 0

    def enqueue(self, namespace: str, parcel: Parcel) -> None:
        """Send a parcel once it is due."""
        where = (namespace, parcel.target.identity)
        lane = self._lanes.setdefault(where, _Lane(namespace))
        lane.parcels.append(parcel)
        lane.wake.set()
        if lane.task is None and not self.is_stopping:
            lane.task = asyncio.create_task(self._work(where, lane), name=f"notify {namespace}")

    async def stop(self) -> None:
        """Let what is being sent arrive, and begin nothing more."""
        self.is_stopping = True
        tasks = {lane.task: lane for lane in self._lanes.values() if lane.task}
        for task, lane in tasks.items():
            if not lane.is_busy:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_TIMEOUT)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, where: Place, lane: _Lane) -> None:
        while lane.parcels and not self.is_stopping:
            parcel = min(lane.parcels, key=lambda p: p.due)
            lane.wake.clear()
            wait = max(parcel.due, lane.not_before) - self._clock()
            if wait > 0 and parcel.members:
                await _wait_for(lane.wake, wait)
                continue
            lane.parcels.remove(parcel)
            if parcel.members:
                lane.is_busy = True
                await self._deliver(lane, parcel)
                lane.is_busy = False
        if not lane.parcels:
            del self._lanes[where]

    async def _deliver(self, lane: _Lane, parcel: Parcel) -> None:
        speak_of(parcel.about)
        if lane.failures and lane.not_before > parcel.last_try:
            self._settle(lane, parcel, lane.error)
            return
        parcel.was_tried = True
        try:
            async with self._desks, asyncio.timeout(TRY_TIMEOUT):
                message = await parcel.write(parcel)
                letter = await self._address(lane.namespace, parcel.target, message, parcel.only)
            async with self._slots.to(letter.host), asyncio.timeout(TRY_TIMEOUT):
                await letter.send()
        except Undeliverable as error:
            self._settle(lane, parcel, str(error))
        except Partly as error:
            parcel.only = error.later
            parcel.never = "; ".join(filter(None, (parcel.never, error.never)))
            self._later(lane, parcel, error)
        except (Transient, Denied, TimeoutError) as error:
            self._later(lane, parcel, error)
        except Exception:
            logger.exception("a message could not be sent")
            self._settle(lane, parcel, "an error of the operator's own")
        else:
            lane.failures = 0
            self._settle(lane, parcel)

    def _later(self, lane: _Lane, parcel: Parcel, error: Exception) -> None:
        lane.error = str(error) or "no answer in time"
        delay = delay_after(error, lane.failures, first=FIRST_DELAY, denied=FIRST_DELAY)
        lane.failures += 1
        delay *= 1 + self._random() / 4
        now = self._clock()
        lane.not_before = now + delay
        if now + FIRST_DELAY > parcel.last_try:
            self._settle(lane, parcel, lane.error)
            return
        # Who asks to wait for longer than we do is asked once more all the same.
        lane.not_before = min(lane.not_before, parcel.last_try)
        # Behind the others: it may be this message that the server cannot take.
        parcel.due = lane.not_before
        lane.parcels.append(parcel)
        _log(logging.WARNING, parcel, f"a message waits for its target: {lane.error}")
        for waiting in lane.parcels:
            for member in waiting.members:
                self._addressee.delayed(member)

    def _settle(self, lane: _Lane, parcel: Parcel, error: str = "") -> None:
        failures = "; ".join(filter(None, (parcel.never, error)))
        if failures:
            outcome = Outcome(state="Failed", message=failures)
            _log(logging.WARNING, parcel, f"a message was given up: {failures}")
        else:
            outcome = Outcome(state="Sent")
            _log(logging.INFO, parcel, "a message was sent")
        medium = (parcel.target.media or ["none"])[0]
        self._measured(lane.namespace, parcel.event, medium, outcome.state)
        for member in parcel.members:
            self._addressee.settled(member, outcome)


def _log(level: int, parcel: Parcel, said: str) -> None:
    extra = {"event": parcel.event, "target": str(parcel.target), "count": len(parcel.members)}
    logger.log(level, said, extra={"action": "notify", **extra})


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
