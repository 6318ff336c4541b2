"""Whether a schedule was edited since its status was written, and when: not when that is seen."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from labfunctions_operator.api.schedule import ScheduleSpec
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.desired.names import digest
from labfunctions_operator.reconcile.scheduled_run import parse_tick

_FIELDS = ("schedule", "time_zone", "interval", "start_at", "end_at", "repeat", "suspend")
# They say how long the same ticks go on, so that an edit of them makes none of before another's.
_BOUNDS = frozenset({"end_at", "repeat"})
_OWNED = frozenset(f"f:{ScheduleSpec.model_fields[name].alias}" for name in _FIELDS)


def schedule_hash(spec: ScheduleSpec, *, is_over: bool) -> str:
    """Return a hash of the fields that say when.

    Args:
        spec: The schedule.
        is_over: Whether it has no tick to come: an edit of its bounds begins it anew then.
    """
    words = [getattr(spec, n) if is_over or n not in _BOUNDS else None for n in _FIELDS]
    return digest(*words)[:16]


def is_edited(workflow: Workflow) -> bool:
    """Whether a Workflow's schedule is another one than its status tells of."""
    old = workflow.status.schedule
    known = {schedule_hash(workflow.spec, is_over=is_over) for is_over in (True, False)}
    return old is not None and old.hash not in known


def time_of_edit(managers: Iterable[Mapping[str, Any]]) -> datetime | None:
    """Return when the API server took a Workflow's schedule in; None if it does not say.

    A field that is taken away leaves no trace. So a time before the status was last written is
    another edit's.

    Args:
        managers: The Workflow's `metadata.managedFields`.
    """
    edits, statuses = [], []
    for entry in managers:
        time = parse_tick(entry.get("time"))
        if time and entry.get("subresource") == "status":
            statuses.append(time)
        elif time and _OWNED & set((entry.get("fieldsV1") or {}).get("f:spec") or ()):
            edits.append(time)
    last = max(edits, default=None)
    return None if last is None or any(status >= last for status in statuses) else last
