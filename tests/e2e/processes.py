"""The processes of a pod as its node sees them, for tests that do what only a node can do."""

import os
import signal
from contextlib import suppress
from pathlib import Path

from .objects import Object


def kill_container(pod: Object, name: str) -> None:
    """End every process of one container at once, as the kernel or an administrator would."""
    [status] = [s for s in pod["status"]["containerStatuses"] if s["name"] == name]
    _kill(status["containerID"].rpartition("/")[2])


def kill_pod(pod: Object) -> None:
    """End every process of a pod at once, its sandbox too, as a power cut would."""
    _kill(f"pod{pod['metadata']['uid']}")


def _kill(group: str) -> None:
    found = [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cgroup") if _is_in(p, group)]
    assert found, f"no process is in a cgroup named {group}"
    for process in found:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _is_in(path: Path, group: str) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return group in path.read_text()
    return False
