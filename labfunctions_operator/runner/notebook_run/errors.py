"""What ends an execution before its notebook does."""

from __future__ import annotations


class Refused(Exception):
    """The notebook cannot be executed, for a reason the user can mend."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Stopped(Exception):
    """Nothing more is to be executed: the run was cancelled or ran out of time."""
