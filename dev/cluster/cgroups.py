"""The cgroup that holds a node's pods: how all their processes are found and ended."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

CGROUP = "/labfunctions"
MOUNT = Path("/sys/fs/cgroup")


def ensure_cgroup(name: str = CGROUP) -> None:
    """Make the cgroup in every hierarchy: kubelet wants to find it."""
    for folder in _folders(name):
        folder.mkdir(exist_ok=True)
        # On cgroup v1 a new cpuset is empty, and nothing may run in it.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            inherited = folder.parent / setting
            if inherited.exists() and (folder / setting).exists():
                (folder / setting).write_text(inherited.read_text())


def kill_all(name: str = CGROUP) -> None:
    """Kill every process of every pod, and those they start meanwhile."""
    deadline = time.monotonic() + 20
    while (pids := set(_pids(name))) and time.monotonic() < deadline:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)


def remove_cgroup(name: str = CGROUP) -> None:
    """Remove the empty cgroup with all below it."""
    for folder in _folders(name):
        for below, _, _ in os.walk(folder, topdown=False):
            Path(below).rmdir()


def _pids(name: str) -> Iterator[int]:
    for folder in _folders(name):
        for procs in folder.rglob("cgroup.procs"):
            try:
                yield from map(int, procs.read_text().split())
            except FileNotFoundError:
                continue


def _folders(name: str) -> list[Path]:
    """Return the cgroup's folder in the single hierarchy of v2, or in each one of v1."""
    if (MOUNT / "cgroup.controllers").exists():
        return [MOUNT / name[1:]]
    hierarchies = [p for p in MOUNT.iterdir() if p.is_dir() and not p.is_symlink()]
    return [hierarchy / name[1:] for hierarchy in hierarchies]
