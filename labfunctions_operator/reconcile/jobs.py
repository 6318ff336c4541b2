"""Whether a Job has ended, by what it says of itself."""

from collections.abc import Mapping
from typing import Any

Object = Mapping[str, Any]

_ENDS = ("Failed", "Complete")
# It is settled before the last pod is gone.
_ENDINGS = ("FailureTarget", "SuccessCriteriaMet", *_ENDS)


def end_of(job: Object) -> Object | None:
    """Return the condition by which a Job says that it is over, if it does."""
    return _condition(job, _ENDS)


def is_ending(job: Object) -> bool:
    """Whether a Job has ended, or is about to say so: no pod of it starts any more."""
    return _condition(job, _ENDINGS) is not None


def _condition(job: Object, types: tuple[str, ...]) -> Object | None:
    conditions = (job.get("status") or {}).get("conditions") or ()
    held = (c for c in conditions if c.get("type") in types and c.get("status") == "True")
    return next(held, None)
