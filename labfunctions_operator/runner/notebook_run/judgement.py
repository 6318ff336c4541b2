"""Which verdict an execution gets."""

from __future__ import annotations

import signal

from labfunctions_operator.runner.notebook_run.errors import Refused
from labfunctions_operator.runner.notebook_run.kernels import KERNEL_START_SECONDS
from labfunctions_operator.runner.notebook_run.pod import oom_kills
from labfunctions_operator.runner.notebook_run.session import Session
from labfunctions_operator.runner.notebook_run.verdict import Verdict

# What jupyter_client says of a kernel that takes longer than it may.
KERNEL_NOT_READY = "Kernel didn't respond in"


def judge(session: Session, error: BaseException | None) -> Verdict:
    """How the execution ended, from what was seen and what was raised."""
    if session.failure:
        return session.failure
    if session.finished:
        return Verdict("Succeeded", f"all {len(session.source)} cells completed")
    if isinstance(error, Refused):
        return Verdict(error.reason, str(error))
    if session.stop_reason:
        return _stopped(session)
    return _broken(session, error)


def _broken(session: Session, error: BaseException | None) -> Verdict:
    kind = type(error).__name__
    if kind == "RuntimeError" and KERNEL_NOT_READY in str(error):
        # Whatever its status is: it was stopped for it.
        return Verdict("KernelDied", f"the kernel was not ready within {KERNEL_START_SECONDS} s")
    status = session.kernel.poll() if session.kernel else None
    if status is not None and kind in ("DeadKernelError", "RuntimeError"):
        return _dead_kernel(session, status)
    if session.kernel is None and kind == "PapermillException":
        return Verdict("NotebookInvalid", str(error))
    return Verdict("InternalError", f"{kind}: {error}", session.current)


def _stopped(session: Session) -> Verdict:
    where = session.where(session.stop_cell)
    message = {
        "Cancelled": f"stopped by SIGTERM at {where}",
        "TimedOut": f"ran longer than {session.config.timeout} s, at {where}",
        "CellTimedOut": f"{where} ran longer than {session.config.cell_timeout} s",
    }[session.stop_reason]
    return Verdict(session.stop_reason, message, session.stop_cell)


def _dead_kernel(session: Session, status: int) -> Verdict:
    how = f"status {status}"
    if status < 0:
        how = next((s.name for s in signal.Signals if s == -status), f"signal {-status}")
    where = session.where(session.current)
    if oom_kills() > session.oom_kills:
        message = f"the kernel ran out of memory and was killed at {where}"
        return Verdict("OutOfMemory", message, session.current)
    return Verdict("KernelDied", f"the kernel died ({how}) at {where}", session.current)
