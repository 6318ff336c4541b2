"""The runner's program."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from labfunctions_operator.runner.notebook_run.conclusion import finish
from labfunctions_operator.runner.notebook_run.config import Config
from labfunctions_operator.runner.notebook_run.execution import execute
from labfunctions_operator.runner.notebook_run.mask import Mask, take_secrets
from labfunctions_operator.runner.notebook_run.pod import prepare_home
from labfunctions_operator.runner.notebook_run.session import Session
from labfunctions_operator.runner.notebook_run.watchdog import Watchdog


def main() -> int:
    """Runs the notebook that the environment names; returns the exit code of its verdict."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    out = Path(os.environ.get("LABFUNCTIONS_DIR", "/labfunctions")) / "out"
    out.mkdir(parents=True, exist_ok=True)
    try:
        # Taken out: the kernel has no use for it.
        words, job = (os.environ.pop(name, "") for name in ("RUNNER_CONFIG", "RUNNER_JOB"))
        config, problem = Config.parse(words, job), None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        config, problem = Config("", {}, {}, "Strict", None, None), error
    session = Session(config, out, Mask(take_secrets(os.environ, config.mask)))
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: session.stop("Cancelled"))
    watchdog = Watchdog(session)
    watchdog.start()
    caught: BaseException | None = None
    try:
        if problem:
            raise ValueError(f"RUNNER_CONFIG cannot be read: {problem!r}")
        prepare_home()
        execute(session)
    except BaseException as error:
        caught = error
    watchdog.ended.set()
    return finish(session, caught)
