"""Reading in threads, beside the engine: what is known by key, and the tasks that find it out."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from labfunctions_operator.reconcile.plan import Key

READERS = 4
T = TypeVar("T")


@dataclass(kw_only=True)
class Reading:
    """What is known for one object.

    Attributes:
        wanted: What it is read for; something else is wanted once the object has been edited.
        task: Reads, while it does.
    """

    wanted: tuple[Any, ...]
    task: asyncio.Task[None] | None = None


R = TypeVar("R", bound=Reading)


class Readers(Generic[R]):
    """Keeps a reading for each object, and a few threads for all of them."""

    def __init__(self, name: str) -> None:
        self._readings: dict[Key, R] = {}
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix=name)

    def forget(self, key: Key) -> None:
        """Drop what is known for an object that is gone or done with."""
        reading = self._readings.pop(key, None)
        if reading and reading.task:
            reading.task.cancel()

    async def close(self) -> None:
        """Stop reading; a thread that still waits for a server ends by its own timeout."""
        for key in list(self._readings):
            self.forget(key)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
