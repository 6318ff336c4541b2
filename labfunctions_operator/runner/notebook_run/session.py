"""What is known about an execution while it goes on."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from labfunctions_operator.runner.notebook_run.config import Config
from labfunctions_operator.runner.notebook_run.console import Console
from labfunctions_operator.runner.notebook_run.errors import Stopped
from labfunctions_operator.runner.notebook_run.mask import Mask
from labfunctions_operator.runner.notebook_run.notebook import cell_names, source_indexes, source_of
from labfunctions_operator.runner.notebook_run.pod import now, oom_kills, write_atomically
from labfunctions_operator.runner.notebook_run.text import first_line, strip_ansi
from labfunctions_operator.runner.notebook_run.verdict import Verdict


class Session:
    """What is known about the execution while it goes on; the engine tells it, the watchdog asks.

    Attributes:
        notebook: the notebook as it is being executed, once papermill has it.
        current: the source index of the running cell, None outside cells and in the injected one.
        failure: the verdict on the cell that raised, if one did.
        finished: every cell that was to run has completed.
        stop_reason: why nothing more is to run, if so; `stop_cell` was running then.
    """

    def __init__(self, config: Config, out: Path, mask: Mask) -> None:
        self.config = config
        self.out = out
        self.mask = mask
        self.console = Console(mask)
        self.started = time.monotonic()
        self.started_at = now()
        self.oom_kills = oom_kills()
        self.source: list[dict[str, Any]] = []
        self.names: list[str] = []
        self.order: list[int | None] = []
        self.sha256: str | None = None
        self.notebook: Any = None
        self.kernel: subprocess.Popen[bytes] | None = None
        self.kernel_name = ""
        self.current: int | None = None
        self.cell_started_at: float | None = None
        self.progress: dict[str, Any] | None = None
        self.unsaved = False
        self.failure: Verdict | None = None
        self.finished = False
        self.stop_reason = ""
        self.stop_cell: int | None = None

    def read(self, notebook: dict[str, Any]) -> None:
        """Learns the cells as their author numbered them."""
        self.source = notebook["cells"]
        self.names = [self.mask.text(name) for name in cell_names(self.source)]
        injects = bool(self.config.parameters or self.config.inject)
        self.order = source_indexes(self.source, injects=injects)

    def stop(self, reason: str) -> None:
        """Asks that nothing more be executed; safe in a signal handler."""
        if not self.stop_reason:
            self.stop_cell = self.current
            self.stop_reason = reason

    def overdue(self) -> str:
        """The reason of the time limit that has passed, if one has."""
        elapsed, limits = time.monotonic(), self.config
        if limits.timeout and elapsed - self.started > limits.timeout:
            return "TimedOut"
        begun = self.cell_started_at
        if limits.cell_timeout and begun and elapsed - begun > limits.cell_timeout:
            return "CellTimedOut"
        return ""

    def check(self) -> None:
        """Raises Stopped if nothing more is to be executed."""
        if self.stop_reason:
            raise Stopped(self.stop_reason)

    def cell_started(self, index: int) -> None:
        """A cell, by papermill's numbering, is about to run."""
        self.check()
        self.current = self.order[index]
        self.cell_started_at = time.monotonic()
        if self.current is None:
            return
        number, cells, name = self.current + 1, len(self.source), self.names[self.current]
        self.progress = {"cell": number, "cells": cells, "name": name}
        write_atomically(self.out / "progress.json", json.dumps(self.progress))
        if self.source[self.current].get("cell_type") == "code":
            self.console.say(f"[{number}/{cells}] {name}")

    def cell_ended(self) -> None:
        """The running cell has ended, one way or the other."""
        self.cell_started_at = None
        self.console.release()

    def cell_failed(self, error: BaseException) -> None:
        """The running cell raised; unless it was told to stop, that is the verdict."""
        if self.stop_reason or not hasattr(error, "ename"):
            return
        name, text = strip_ansi(error.ename), strip_ansi(str(error.evalue))  # type: ignore[attr-defined]
        message = f"{self.where(self.current)} raised {name}: {text}".rstrip(": ")
        exception = {"name": name, "message": text}
        self.failure = Verdict("NotebookError", message, self.current, exception)

    def where(self, index: int | None) -> str:
        """A cell for a person."""
        if index is None:
            return "the start" if self.progress is None else "the injected parameters"
        line = first_line(source_of(self.source[index]))
        return f"cell {index + 1} of {len(self.source)} ({line[:60]})"

    def save(self) -> None:
        """Writes the notebook as it is now, without its secrets."""
        masked = self.mask.notebook(self.notebook)
        write_atomically(self.out / "notebook.ipynb", json.dumps(masked, indent=1))
        self.unsaved = False
