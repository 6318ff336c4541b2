"""One queue of keys for all reconcilers: coalescing, one key at a time, backoff per key."""

import asyncio
import heapq
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable

from labfunctions_operator.controllers.backoff import delay_after
from labfunctions_operator.errors import Denied, InvalidSpec, NotFound, Transient
from labfunctions_operator.reconcile.plan import Key

logger = logging.getLogger(__name__)

FIRST_DELAY = 0.5
RECONCILE_TIMEOUT = 120.0
STOP_TIMEOUT = 10.0


class Engine:
    """Calls `reconcile` for keys as they become due.

    Args:
        reconcile: Brings one object nearer to what it should be; returns the seconds until it
            wants to look again, or None.
        workers: How many keys are reconciled at once.
        clock: Seconds that only grow.
        random: A number in [0, 1), for jitter.
    """

    def __init__(
        self,
        reconcile: Callable[[Key], Awaitable[float | None]],
        *,
        workers: int = 16,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._reconcile = reconcile
        self._clock = clock
        self._random = random
        self._slots = asyncio.Semaphore(workers)
        self._due: dict[Key, float] = {}
        # Holds an entry for each time in _due whose key does not run, and outdated ones.
        self._heap: list[tuple[float, int, Key]] = []
        self._order = itertools.count()
        self._running: dict[Key, asyncio.Task[None]] = {}
        # Since when each of them was due.
        self._running_since: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._finished = asyncio.Event()
        self._finished.set()

    def __len__(self) -> int:
        """Return how many keys wait, those of a later time included."""
        return len(self._due)

    def depth(self) -> tuple[int, int, float]:
        """Return how many keys are due, how many come later, and the longest wait in seconds."""
        now = self._clock()
        due = [now - at for at in list(self._due.values()) if at <= now]
        return len(due), len(self._due) - len(due), max(due, default=0.0)

    def enqueue(self, key: Key, after: float = 0.0) -> None:
        """Reconcile a key after some seconds, or earlier if that is planned already."""
        self._plan(key, self._clock() + after)

    def enqueue_child(self, key: Key, maker: Key) -> None:
        """Reconcile a key that another one, which runs, has made: it has been due for as long.

        So of many that became due at once, each is brought to its end before the next begins.
        """
        self._plan(key, self._running_since.get(maker, self._clock()))

    def _plan(self, key: Key, due: float) -> None:
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        self._push(key, due)

    async def run(self) -> None:
        """Work until `stop`, or until cancelled."""
        self._finished.clear()
        try:
            while key := await self._take():
                self._running[key] = asyncio.create_task(self._work(key), name=f"reconcile {key}")
            if self._running:
                await asyncio.wait(self._running.values(), timeout=STOP_TIMEOUT)
        finally:
            running = list(self._running.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self._finished.set()

    async def stop(self) -> None:
        """Start nothing more, let what runs finish for some seconds, then cancel it."""
        self._stopping = True
        self._wake.set()
        # In case all workers are busy.
        self._slots.release()
        await self._finished.wait()

    def _push(self, key: Key, due: float) -> None:
        heapq.heappush(self._heap, (due, next(self._order), key))
        if len(self._heap) > 2 * len(self._due) + 64:
            # A far due time is seldom reached, as an event comes earlier: drop what is outdated.
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        if self._heap[0][2] == key:
            self._wake.set()

    async def _take(self) -> Key | None:
        """Wait for a worker and for a key that is due; None means stop."""
        await self._slots.acquire()
        while not self._stopping:
            self._wake.clear()
            self._skip_outdated()
            delay = self._heap[0][0] - self._clock() if self._heap else None
            if delay is not None and delay <= 0:
                key = heapq.heappop(self._heap)[2]
                self._running_since[key] = self._due.pop(key)
                return key
            try:
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            except TimeoutError:
                continue
        return None

    def _skip_outdated(self) -> None:
        while self._heap:
            due, _, key = self._heap[0]
            if key not in self._running and self._due.get(key) == due:
                return
            heapq.heappop(self._heap)

    async def _work(self, key: Key) -> None:
        delay: float | None = None
        try:
            delay = await self._attempt(key)
        finally:
            del self._running[key], self._running_since[key]
            self._slots.release()
            if key in self._due:
                self._push(key, self._due[key])
            if delay is not None:
                self.enqueue(key, delay)

    async def _attempt(self, key: Key) -> float | None:
        limit = asyncio.timeout(RECONCILE_TIMEOUT)
        try:
            async with limit:
                delay = await self._reconcile(key)
        except Exception as failure:
            error = failure
            if limit.expired():
                error = Transient(f"not done after {RECONCILE_TIMEOUT:.0f} s")
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            delay = self._backoff(error, failures)
            _log_failure(key, error, delay)
            return delay
        self._failures.pop(key, None)
        return delay

    def _backoff(self, error: Exception, failures: int) -> float:
        delay = delay_after(error, failures, first=FIRST_DELAY)
        # Only ever later, as a server's Retry-After must not be undercut.
        return delay * (1 + self._random() / 4)


def _log_failure(key: Key, error: Exception, delay: float) -> None:
    expected = isinstance(error, Transient | Denied | InvalidSpec | NotFound)
    logger.log(
        logging.WARNING if expected else logging.ERROR,
        "%s %s/%s: %s; next try in %.1f s",
        *key,
        f"{type(error).__name__}: {error}",
        delay,
        exc_info=None if expected else error,
        extra={"object": key._asdict()},
    )
