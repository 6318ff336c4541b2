"""How many Events are written: none twice in a while, few about one object, and few in all."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from labfunctions_operator.reconcile.plan import Event

# What client-go allows one object, for the same reason.
OBJECT_BURST = 25
OBJECT_PER_SECOND = 1 / 300
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
class _Told:
    """What was told about one object, and when."""

    bucket: TokenBucket
    at: dict[Event, float] = field(default_factory=dict)


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
        told.at = {known: at for known, at in told.at.items() if now - at < REPEAT_SECONDS}
        if event in told.at:
            return "Repeated"
        if not told.bucket.take(now) or not self._all.take(now):
            return "Limited"
        told.at[event] = now
        return "Recorded"

    def _told(self, uid: str, now: float) -> _Told:
        if uid not in self._objects:
            bucket = TokenBucket(OBJECT_BURST, OBJECT_PER_SECOND, now)
            self._objects[uid] = _Told(bucket)
            if len(self._objects) > OBJECTS_KNOWN:
                self._objects.popitem(last=False)
        self._objects.move_to_end(uid)
        return self._objects[uid]
