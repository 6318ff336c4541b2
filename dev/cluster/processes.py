"""Long-lived processes that outlive the command which started them.

A process is known by its record: its pid and the moment the kernel started it. A pid that was
given to another process since has another start, so it is never taken for ours nor killed.
"""

import hashlib
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from dev.cluster.errors import ClusterError


@dataclass(frozen=True)
class Service:
    """A program that is to run; `files` are those whose change asks for a restart."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    def fingerprint(self) -> str:
        """Return a digest of everything that decides how the program runs."""
        digest = hashlib.sha256(repr((self.argv, sorted(self.env.items()))).encode())
        for file in self.files:
            digest.update(file.read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Record:
    """What is kept of a started process."""

    pid: int
    started: int
    fingerprint: str


def start_time(pid: int) -> int | None:
    """Return when the kernel started a process, in ticks since boot; None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may hold spaces and brackets: what follows it begins after the last bracket.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


class Supervisor:
    """Starts, finds and stops processes by their records in one folder."""

    def __init__(self, root: Path) -> None:
        self.logs = root / "logs"
        self.records = root / "processes"

    def names(self) -> list[str]:
        """Return the names of all recorded processes, alive or not."""
        return sorted(path.stem for path in self.records.glob("*.json"))

    def pid(self, name: str) -> int | None:
        """Return the pid of a recorded process that is alive."""
        record = self._record(name)
        if record is None:
            return None
        _reap(record.pid)
        return record.pid if start_time(record.pid) == record.started else None

    def started_at(self, name: str) -> datetime:
        """Return when a recorded process was started."""
        changed = (self.records / f"{name}.json").stat().st_mtime
        return datetime.fromtimestamp(changed, UTC)

    def log(self, name: str) -> Path:
        """Return the file that receives a process's output."""
        return self.logs / f"{name}.log"

    def ensure(self, service: Service) -> bool:
        """Start a service unless it runs as described; tell whether it was started."""
        record = self._record(service.name)
        if self.pid(service.name) is not None and record is not None:
            if record.fingerprint == service.fingerprint():
                return False
            self.stop(service.name)
        self._start(service)
        return True

    def require(self, *names: str) -> None:
        """Check that processes live.

        Raises:
            ClusterError: one ended; the message holds its last words.
        """
        for name in names:
            if self.pid(name) is None:
                raise ClusterError(
                    f"{name} ended: {self._last_words(name)} (log: {self.log(name)})"
                )

    def stop(self, name: str, *, grace: float = 5) -> None:
        """End a process: ask, wait `grace` seconds, then insist."""
        for sign, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
            pid = self.pid(name)
            if pid is None:
                break
            os.kill(pid, sign)
            self._await_end(name, seconds)
        if self.pid(name) is not None:
            raise ClusterError(f"{name} does not end, even when killed")
        (self.records / f"{name}.json").unlink(missing_ok=True)

    def _await_end(self, name: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.pid(name) is not None and time.monotonic() < deadline:
            time.sleep(0.05)

    def _start(self, service: Service) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        self.records.mkdir(parents=True, exist_ok=True)
        log = self.log(service.name)
        if log.exists():
            log.replace(log.with_suffix(".previous.log"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawn(
            service.argv[0],
            service.argv,
            {**os.environ, **service.env},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                # A service that outlives us must not hold a lock or a pipe of whoever called us.
                *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inherited()),
            ],
            # Its own session: neither Ctrl-C nor the end of the terminal reaches it.
            setsid=True,
        )
        started = start_time(pid) or 0
        record = {"pid": pid, "started": started, "fingerprint": service.fingerprint()}
        (self.records / f"{service.name}.json").write_text(json.dumps(record))

    def _record(self, name: str) -> Record | None:
        try:
            return Record(**json.loads((self.records / f"{name}.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _last_words(self, name: str) -> str:
        try:
            lines = self.log(name).read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            return "it never ran"
        # Cobra prints its usage after an error: the error is what a person needs.
        errors = [line for line in lines if line.lower().startswith(("error", "f1", "e1", "fatal"))]
        chosen = (errors or lines or ["no output"])[-1]
        return chosen[:300]


def _inherited() -> list[int]:
    """Return what our caller left open for us and for all we start."""
    held = [int(name) for name in os.listdir("/proc/self/fd")]
    return [fd for fd in held if fd > 2 and _is_inheritable(fd)]


def _is_inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False  # that of the listing itself, closed by now


def _reap(pid: int) -> None:
    """Collect an ended child, if it is ours, so that it does not linger as a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
