import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from labfunctions_operator.controllers.clock import watch_clock

STEPS = (timedelta(hours=2), -timedelta(hours=5), timedelta(seconds=-2))


@pytest.mark.parametrize("step", STEPS)
async def test_a_clock_that_was_set_is_noticed_once(step: timedelta) -> None:
    shift = timedelta(0)
    noticed = asyncio.Event()
    looks = 0

    def clock() -> datetime:
        nonlocal looks
        looks += 1
        return datetime.now(UTC) + shift

    async def looked(times: int) -> None:
        until = looks + times
        while looks < until:  # noqa: ASYNC110 -- the clock is read, which has no event
            await asyncio.sleep(0.001)

    task = asyncio.create_task(watch_clock(clock, noticed.set, seconds=0.001))
    await looked(3)
    assert not noticed.is_set()
    shift = step
    await noticed.wait()
    noticed.clear()
    await looked(3)
    assert not noticed.is_set()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
