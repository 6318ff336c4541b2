"""Failures that the engine tells apart; whatever else is raised is a bug of ours."""


class InvalidSpec(Exception):
    """A field of a user's object must change before anything can be tried again."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


class ChildRefused(InvalidSpec):
    """The API server refuses what was made of an object: its words, or a policy that may change."""


class Transient(Exception):
    """The same call may succeed later.

    Args:
        message: What failed, in one line.
        retry_after: Seconds the server asked us to wait, if it did.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NameTaken(Transient):
    """An object of the name that we need belongs to somebody else, who may delete it."""


class Denied(Exception):
    """An administrator must grant something before the call can succeed."""


class NotFound(Exception):
    """The object that was asked for does not exist."""


class Drifted(Exception):
    """Someone else changed what we were about to change; look again before deciding."""
