"""Running a program and telling what went wrong in one line."""

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from dev.cluster.errors import ClusterError


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    text: str | None = None,
    log: Path | None = None,
    seconds: float | None = None,
) -> str:
    """Run a program to its end and return its standard output.

    Args:
        argv: The program and its arguments.
        env: Variables set on top of the caller's.
        cwd: Where it runs.
        text: Its standard input.
        log: A file that receives all of its output instead of the caller.
        seconds: How long it may take.

    Raises:
        ClusterError: it is missing, took too long or failed.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            input=text,
            text=True,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"`{_short(words)}` did not end within {seconds:.0f} s") from error
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(done.stdout + done.stderr)
    if done.returncode:
        raise ClusterError(_failure(words, done, log))
    return done.stdout


def succeeds(argv: Sequence[str | Path], *, seconds: float = 10) -> bool:
    """Tell whether a program exists, ends in time and exits with 0."""
    try:
        run(argv, seconds=seconds)
    except ClusterError:
        return False
    return True


def _failure(words: list[str], done: subprocess.CompletedProcess[str], log: Path | None) -> str:
    lines = [line for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
    last = lines and (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]
    where = f" (all of it: {log})" if log else ""
    return f"`{_short(words)}` failed with {done.returncode}: {last or 'no output'}{where}"


def _short(words: list[str]) -> str:
    text = shlex.join(words)
    return text if len(text) <= 100 else text[:97] + "..."
