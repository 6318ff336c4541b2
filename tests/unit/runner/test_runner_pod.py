"""What the runner asks of the pod around it."""

import os
import subprocess
from pathlib import Path

import pytest

from labfunctions_operator.runner.notebook_run.pod import oom_kills, reap_orphans


@pytest.mark.parametrize(
    ("file", "text", "want"),
    [
        ("memory.events", "low 0\noom 3\noom_kill 2\n", 2),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", 1),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", 0),
        ("other", "", 0),
    ],
    ids=["v2", "v1", "old v1", "none"],
)
def test_oom_kills_of_both_cgroups(tmp_path: Path, file: str, text: str, want: int) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert oom_kills(tmp_path) == want


def test_orphans_are_reaped_but_never_the_kernel() -> None:
    with subprocess.Popen(["sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE) as kernel:
        orphan = os.posix_spawn("/bin/true", ["true"], {})
        _wait_until_ended(orphan)
        reap_orphans(kernel.pid)
        assert not _is_child(orphan)
        kernel.communicate()
    with subprocess.Popen(["sh", "-c", "exit 7"]) as kernel:
        _wait_until_ended(kernel.pid)
        reap_orphans(kernel.pid)
        assert kernel.wait() == 7


def _wait_until_ended(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _is_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
