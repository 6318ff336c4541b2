"""Where things lie on this machine: outside the checkout, shared by all checkouts."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.cluster.errors import ClusterError
from dev.cluster.progress import say


def cache_root() -> Path:
    """Return the folder that outlives checkouts: `LABFUNCTIONS_CACHE`, or the user's cache."""
    named = os.environ.get("LABFUNCTIONS_CACHE")
    if named:
        return Path(named).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).resolve() / "labfunctions"


def cluster_root() -> Path:
    """Return the folder of the running cluster: keys, data, logs and process records."""
    return cache_root() / "cluster"


@contextmanager
def locked(name: str, *, doing: str) -> Iterator[None]:
    """Hold the machine-wide lock `name`; say so when another process has it."""
    folder = cache_root() / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / name).open("a+")
    except OSError as error:
        raise ClusterError(f"cannot use the cache folder {folder}: {error.strerror}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            say(f"waiting for process {handle.read().strip() or '?'}, which is {doing}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
