"""Which verdict an execution gets."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from executions import session

from labfunctions_operator.runner.notebook_run import judgement
from labfunctions_operator.runner.notebook_run.errors import Refused, Stopped
from labfunctions_operator.runner.notebook_run.judgement import judge


class Dead(Exception):
    pass


Dead.__name__ = "DeadKernelError"


def test_a_stop_is_blamed_on_the_cell_that_was_running_and_nothing_starts_after(
    tmp_path: Path,
) -> None:
    stopped = session(tmp_path, cell=2)
    stopped.cell_started(2)
    stopped.stop("CellTimedOut")
    stopped.stop("Cancelled")
    with pytest.raises(Stopped):
        stopped.cell_started(0)
    verdict = judge(stopped, Stopped("CellTimedOut"))
    assert verdict.reason == "CellTimedOut"
    assert verdict.cell == 1
    assert verdict.message == "cell 2 of 2 (boom()) ran longer than 2 s"


def test_what_happened_first_is_the_verdict(tmp_path: Path) -> None:
    raised = session(tmp_path)
    raised.cell_started(2)
    error: Any = Exception()
    error.ename, error.evalue = "ValueError", "\x1b[31mbad\x1b[0m"
    raised.cell_failed(error)
    raised.stop("Cancelled")
    verdict = judge(raised, None)
    assert (verdict.reason, verdict.cell) == ("NotebookError", 1)
    assert verdict.exception == {"name": "ValueError", "message": "bad"}
    done = session(tmp_path)
    done.finished = True
    done.stop("Cancelled")
    assert judge(done, Dead()).reason == "Succeeded"


@pytest.mark.parametrize(("more", "want"), [(0, "KernelDied"), (1, "OutOfMemory")])
def test_a_dead_kernel_is_out_of_memory_if_the_counter_rose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int, want: str
) -> None:
    dead = session(tmp_path)
    dead.cell_started(2)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as kernel:
        kernel.send_signal(signal.SIGKILL)
        kernel.wait()
        dead.kernel = kernel
    monkeypatch.setattr(judgement, "oom_kills", lambda: dead.oom_kills + more)
    verdict = judge(dead, Dead())
    assert (verdict.reason, verdict.cell) == (want, 1)
    assert ("SIGKILL" in verdict.message) == (more == 0)


def test_anything_else_before_and_after_the_kernel_starts(tmp_path: Path) -> None:
    assert judge(session(tmp_path), Refused("NotebookNotFound", "x")).reason == "NotebookNotFound"
    verdict = judge(session(tmp_path), OSError(28, "No space left on device"))
    assert verdict.reason == "InternalError"
    assert "No space left" in verdict.message


def test_a_kernel_that_takes_too_long_to_start_is_no_fault_of_ours(tmp_path: Path) -> None:
    slow = session(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as kernel:
        slow.kernel = kernel
        late = RuntimeError("Kernel didn't respond in 120 seconds")
        verdict = judge(slow, late)
        kernel.kill()
    assert (verdict.reason, verdict.message) == (
        "KernelDied",
        "the kernel was not ready within 120 s",
    )
    assert judge(slow, late) == verdict, "it was killed for it"
