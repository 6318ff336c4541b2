"""The pod around the runner: its files, processes, memory and clock."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path


def oom_kills(root: str | Path = "/sys/fs/cgroup") -> int:
    """How many processes of this container the kernel has killed for memory (cgroup v2 or v1)."""
    for name in ("memory.events", "memory/memory.oom_control"):
        try:
            lines = Path(root, name).read_text("ascii").splitlines()
        except OSError:
            continue
        counts = dict(line.split() for line in lines if len(line.split()) == 2)
        return int(counts.get("oom_kill", 0))
    return 0


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file, text as UTF-8, so that a reader sees the old or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    os.replace(temporary, path)


def reap_orphans(kernel: int) -> None:
    """Collects what the kernel's processes left to PID 1, but never the kernel's own status."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == kernel:
            return
        os.waitpid(ended.si_pid, 0)


def prepare_home() -> None:
    """Gives IPython and Jupyter folders that they can write; images rarely have a home for us."""
    scratch = tempfile.mkdtemp(prefix="labfunctions-")
    if not os.access(os.environ.get("HOME", ""), os.W_OK):
        os.environ["HOME"] = tempfile.gettempdir()
    os.environ["IPYTHONDIR"] = os.path.join(scratch, "ipython")
    os.environ["JUPYTER_RUNTIME_DIR"] = os.path.join(scratch, "runtime")


def now() -> str:
    """The present as RFC 3339 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
