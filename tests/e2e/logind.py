"""What kubelet knows of systemd-logind, so that a test can tell it that the machine goes down."""

import asyncio
import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dbus_fast import PropertyAccess
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusBool, DBusStr, DBusUInt64, DBusUnixFd
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property, dbus_signal

# The longest that a machine waits for those who asked it to.
INHIBIT_SECONDS = 600


class Manager(ServiceInterface):
    """The part of logind's interface that kubelet uses.

    Whoever wants to be waited for gets one end of a pipe, and closes it when the machine may go
    down. See https://systemd.io/INHIBITOR_LOCKS/.
    """

    def __init__(self) -> None:
        super().__init__("org.freedesktop.login1.Manager")
        self.pipes: list[tuple[int, int]] = []

    @dbus_property(PropertyAccess.READ, name="InhibitDelayMaxUSec")
    def inhibit_delay_max(self) -> DBusUInt64:
        return INHIBIT_SECONDS * 1_000_000

    @dbus_method(name="Inhibit")
    def inhibit(self, what: DBusStr, who: DBusStr, why: DBusStr, mode: DBusStr) -> DBusUnixFd:
        assert (what, mode) == ("shutdown", "delay")
        self.pipes.append(os.pipe())
        return self.pipes[-1][1]

    @dbus_signal(name="PrepareForShutdown")
    def prepare_for_shutdown(self, start: bool) -> DBusBool:
        return start


class Logind:
    """Tells that the machine goes down, and sees who lets it."""

    def __init__(self, manager: Manager, loop: asyncio.AbstractEventLoop) -> None:
        self._manager = manager
        self._loop = loop
        self._waiting: list[int] = []

    def is_inhibited(self) -> bool:
        """Whether somebody has asked to be told first."""
        return bool(self._manager.pipes)

    def prepare_for_shutdown(self, start: bool) -> None:
        """Tell all that the machine goes down, or that it does not after all."""
        for _, theirs in self._manager.pipes:
            os.close(theirs)  # the copy that they were sent is what counts
        self._waiting += [ours for ours, _ in self._manager.pipes]
        self._manager.pipes.clear()
        self._loop.call_soon_threadsafe(self._manager.prepare_for_shutdown, start)

    def may_go_down(self) -> bool:
        """Whether all who were told have closed their end: now a machine would turn itself off."""
        readable, _, _ = select.select(self._waiting, [], [], 0)
        return len(readable) == len(self._waiting)

    def close(self) -> None:
        for descriptor in (*self._waiting, *(d for pipe in self._manager.pipes for d in pipe)):
            os.close(descriptor)


@contextmanager
def serve(address: str) -> Iterator[Logind]:
    """Serve on the bus at a D-Bus address, until the block ends."""
    loop, manager = asyncio.new_event_loop(), Manager()
    logind = Logind(manager, loop)

    async def begin() -> MessageBus:
        bus = await MessageBus(bus_address=address, negotiate_unix_fd=True).connect()
        bus.export("/org/freedesktop/login1", manager)
        await bus.request_name("org.freedesktop.login1")
        return bus

    async def end(bus: MessageBus) -> None:
        bus.disconnect()
        await bus.wait_for_disconnect()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        bus = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
        try:
            yield logind
        finally:
            asyncio.run_coroutine_threadsafe(end(bus), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        logind.close()
