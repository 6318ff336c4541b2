"""From what the API server stores to types; the only place where a user's object can be refused."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from labfunctions_operator.api.backfill import Backfill
from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.types import Model
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.errors import InvalidSpec

KINDS: Mapping[str, type[Model]] = {
    "Project": Project,
    "Workflow": Workflow,
    "Backfill": Backfill,
    "Run": Run,
    "NodeGroup": NodeGroup,
}

M = TypeVar("M", bound=Model)


def parse(kind: type[M], obj: Mapping[str, Any]) -> M:
    """Read a stored object.

    Raises:
        InvalidSpec: A field has a value that cannot be worked with; the path names it.
    """
    try:
        return kind.model_validate(obj)
    except ValidationError as error:
        if any(e["loc"][:1] == ("status",) for e in error.errors()):
            # Status is ours: one that cannot be read (a newer or a hand-made one) is made anew.
            return parse(kind, {k: v for k, v in obj.items() if k != "status"})
        first = error.errors()[0]
        raise InvalidSpec(_path(first), _message(first)) from None


def _path(error: ErrorDetails) -> str:
    path = ""
    for part in error["loc"]:
        if part == "[key]":  # pydantic's mark that the key itself is refused
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.lstrip(".")


def _message(error: ErrorDetails) -> str:
    if error["type"] == "string_pattern_mismatch":
        return f"{str(error['input'])[:80]!r} has characters or a form not allowed here"
    return error["msg"].removeprefix("Value error, ")
