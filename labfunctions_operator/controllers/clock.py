"""The time, as the reconcilers are given it."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]

LOOK_SECONDS = 5.0


def utc_now() -> datetime:
    """Return the time now."""
    return datetime.now(UTC)


async def watch_clock(
    clock: Clock, on_set: Callable[[], None], *, seconds: float = LOOK_SECONDS
) -> None:
    """Call `on_set` when the clock was set by a second or more: waits count by one that never is.

    Args:
        clock: The one to watch.
        on_set: Called after each step.
        seconds: How often to look.
    """
    loop = asyncio.get_running_loop()
    offset = clock().timestamp() - loop.time()
    while True:
        await asyncio.sleep(seconds)
        found = clock().timestamp() - loop.time()
        if abs(found - offset) >= 1:
            logger.info("the clock was set by %.0f s", found - offset)
            offset = found
            on_set()
