"""Reading a stored object as it is, of which any field may be absent or be anything."""

from collections.abc import Mapping
from typing import Any


def part(obj: Any, *path: str) -> Mapping[str, Any]:
    """Return the mapping at a path of fields, and an empty one where there is none."""
    for name in path:
        obj = obj.get(name) if isinstance(obj, Mapping) else None
    return obj if isinstance(obj, Mapping) else {}


def workflow_of(run: Any) -> str | None:
    """Return the name of the Workflow that a Run is of.

    A repeat of another Run names none itself; its status says so once it has taken over what that
    has run.
    """
    snapshot, ref = part(run, "status", "snapshot"), part(run, "spec", "workflowRef")
    name = snapshot.get("workflow") or ref.get("name")
    return name if isinstance(name, str) and name else None
