"""How an execution can end."""

from __future__ import annotations

from typing import NamedTuple

EXIT_CODES = {
    "Succeeded": 0,
    "NotebookError": 1,
    "ParametersInvalid": 64,
    "NotebookNotFound": 65,
    "NotebookInvalid": 65,
    "RunnerMissing": 69,
    "InternalError": 70,
    "TimedOut": 124,
    "CellTimedOut": 124,
    "OutOfMemory": 137,
    "KernelDied": 138,
    "Cancelled": 143,
}


class Verdict(NamedTuple):
    """How the execution ended."""

    reason: str
    message: str
    cell: int | None = None
    exception: dict[str, str] | None = None
