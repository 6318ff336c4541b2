"""How many messages are on their way at once, so that a dead server delays its own only."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

AT_ONCE = 16
TO_ONE_HOST = 4


class Slots:
    """Lets through as many as may be on their way, and fewer of them to one host."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(AT_ONCE)
        # A host is known as long as somebody is on the way there, or waits to be.
        self._hosts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def to(self, host: str) -> AsyncIterator[None]:
        """Wait for a slot to a host, and hold it."""
        # First that of the host: who waits for it must not keep others from theirs.
        of_host = self._hosts.setdefault(host, asyncio.Semaphore(TO_ONE_HOST))
        async with of_host, self._all:
            yield
