"""How many Events are written: repeats count up, few are about one object, and few in all."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from labfunctions_operator.reconcile.plan import Event

# As many as a NodeGroup may decide in an hour: each of its decisions is told.
OBJECT_BURST = 60
OBJECT_PER_SECOND = 1 / 60
TOTAL_BURST = 500
TOTAL_PER_SECOND = 10.0
REPEAT_SECONDS = 600.0
OBJECTS_KNOWN = 4096

Decision = Literal["Recorded", "Repeated", "Limited"]


class TokenBucket:
    """Allows a burst, and then so many a second."""

    def __init__(self, burst: float, per_second: float, now: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._tokens = burst
        self._at = now

    def take(self, now: float) -> bool:
        """Take a token, if there is one."""
        earned = (now - self._at) * self._per_second
        self._tokens, self._at = min(self._burst, self._tokens + earned), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass
class _Recorded:
    """One Event that was written."""

    name: str
    at: float
    count: int = 1


@dataclass
class _Told:
    """What was told about one object, and when."""

    bucket: TokenBucket
    events: dict[Event, _Recorded] = field(default_factory=dict)


class EventLimits:
    """Decides for each Event whether it is written.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all = TokenBucket(TOTAL_BURST, TOTAL_PER_SECOND, clock())
        self._objects: OrderedDict[str, _Told] = OrderedDict()

    def decide(self, uid: str, event: Event) -> Decision:
        """Say what becomes of an Event about the object with that uid."""
        now = self._clock()
        told = self._told(uid, now)
        told.events = {e: r for e, r in told.events.items() if now - r.at < REPEAT_SECONDS}
        if not told.bucket.take(now) or not self._all.take(now):
            return "Limited"
        return "Repeated" if event in told.events else "Recorded"

    def recorded(self, uid: str, event: Event, name: str) -> None:
        """Note under which name an Event was written."""
        now = self._clock()
        self._told(uid, now).events[event] = _Recorded(name, now)

    def repeated(self, uid: str, event: Event) -> tuple[str, int]:
        """Count one more of a repeated Event; return its name and how often it was told."""
        found = self._told(uid, self._clock()).events[event]
        found.count += 1
        return found.name, found.count

    def _told(self, uid: str, now: float) -> _Told:
        if uid not in self._objects:
            bucket = TokenBucket(OBJECT_BURST, OBJECT_PER_SECOND, now)
            self._objects[uid] = _Told(bucket)
            if len(self._objects) > OBJECTS_KNOWN:
                self._objects.popitem(last=False)
        self._objects.move_to_end(uid)
        return self._objects[uid]
