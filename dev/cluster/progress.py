"""What a person who waits sees: numbered steps, and a line now and then during long ones."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dev.cluster.errors import ClusterError

REMIND_AFTER = 3.0
REMIND_EVERY = 20.0


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Announce a step, remind of it while it lasts, and tell how long it took."""
    say(text)
    started = time.monotonic()
    done = threading.Event()

    def remind() -> None:
        while not done.wait(REMIND_EVERY):
            say(f"      still {time.monotonic() - started:.0f} s into: {text}")

    reminder = threading.Thread(target=remind, daemon=True)
    reminder.start()
    try:
        yield
    finally:
        done.set()
        reminder.join()
    elapsed = time.monotonic() - started
    if elapsed >= REMIND_AFTER:
        say(f"      done in {elapsed:.0f} s")


def wait_for(
    what: str, probe: Callable[[], bool], *, seconds: float, interval: float = 0.2, hint: str = ""
) -> None:
    """Call `probe` until it is true; say what is awaited; give up after `seconds`.

    Raises:
        ClusterError: the time is over.
    """
    started = time.monotonic()
    remind_at = started + REMIND_AFTER
    while not probe():
        now = time.monotonic()
        if now - started > seconds:
            ending = f"; {hint}" if hint else ""
            raise ClusterError(f"gave up waiting for {what} after {seconds:.0f} s{ending}")
        if now >= remind_at:
            say(f"      waiting for {what} ({now - started:.0f} s)")
            remind_at = now + REMIND_EVERY
        time.sleep(interval)
