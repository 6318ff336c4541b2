"""Ends an execution that does not end by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

from labfunctions_operator.runner.notebook_run.conclusion import conclude
from labfunctions_operator.runner.notebook_run.judgement import judge
from labfunctions_operator.runner.notebook_run.pod import reap_orphans
from labfunctions_operator.runner.notebook_run.session import Session

TICK_SECONDS = 0.2
INTERRUPT_GRACE_SECONDS = 5
KILL_GRACE_SECONDS = 10


class Watchdog(threading.Thread):
    """Ends an execution that was cancelled or is overdue, whatever its cell is doing.

    It interrupts the kernel, so that the cell can say where it was; kills it if that does not
    help; and, if even then the main thread does not come back, writes the verdict itself.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(daemon=True)
        self.session = session
        self.ended = threading.Event()

    def run(self) -> None:
        """Watches until the execution has ended."""
        session = self.session
        while not session.stop_reason:
            if self.ended.wait(TICK_SECONDS):
                return
            if session.kernel:
                reap_orphans(session.kernel.pid)
            overdue = session.overdue()
            if overdue:
                session.stop(overdue)
        session.console.say(f"{session.stop_reason}: interrupting the kernel")
        self._signal_kernel(signal.SIGINT)
        if self.ended.wait(INTERRUPT_GRACE_SECONDS):
            return
        session.console.say("the cell ignores the interrupt: killing the kernel")
        self._signal_kernel(signal.SIGKILL)
        if not self.ended.wait(KILL_GRACE_SECONDS):
            os._exit(conclude(session, judge(session, None)))

    def _signal_kernel(self, signum: int) -> None:
        kernel = self.session.kernel
        if kernel and kernel.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(kernel.pid, signum)
