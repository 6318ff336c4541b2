"""Who or what started a Run, as far as the object tells: Kubernetes itself keeps no user."""

from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

from labfunctions_operator.api import labels
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.times import parse_time

OURS = "labfunctions"
CHANGE_CAUSE = "kubernetes.io/change-cause"


def started_by(run: Run, tool: str | None = None) -> str:
    """Name the schedule's tick, the Backfill, the Run that is repeated, or who is said to ask.

    Args:
        run: As stored.
        tool: What created it; see `creator`.
    """
    meta = run.metadata
    if due := meta.annotations.get(labels.SCHEDULED_AT_ANNOTATION):
        backfill = meta.labels.get(labels.BACKFILL)
        maker = f"Backfill {backfill}" if backfill else "the schedule"
        return f"{maker}, for {local_time(due, meta.annotations.get(labels.TIME_ZONE_ANNOTATION))}"
    who = meta.annotations.get(labels.STARTED_BY_ANNOTATION)
    what = f"a repeat of Run {run.spec.from_run}" if run.spec.from_run else None
    said = ", by ".join(filter(None, [what, who])) or "a request"
    if tool := meta.labels.get(labels.MANAGED_BY) or tool:
        said += f" through {tool}"
    cause = meta.annotations.get(CHANGE_CAUSE)
    return f"{said}: {cause}" if cause else said


def is_by_request(run: Run) -> bool:
    """Whether only the object's managers could tell more of who made it."""
    made = (labels.SCHEDULED_AT_ANNOTATION, labels.STARTED_BY_ANNOTATION)
    return not any(name in run.metadata.annotations for name in made)


def creator(managers: Iterable[Mapping[str, Any]]) -> str | None:
    """Return which of an object's managers came first: the program that created it."""
    entries = [
        (str(entry.get("time") or ""), str(entry["manager"]))
        for entry in managers
        if entry.get("manager") not in (None, "", OURS) and not entry.get("subresource")
    ]
    return min(entries)[1] if entries else None


def local_time(moment: str, time_zone: str | None) -> str:
    """Write a time for a person, in a zone by name; what is no time stays as it is."""
    try:
        zone = ZoneInfo(time_zone) if time_zone else UTC
        local = parse_time(moment).astimezone(zone)
    except (ValueError, KeyError, OSError, OverflowError):
        return moment
    return f"{local:%Y-%m-%d %H:%M} {time_zone or 'UTC'}"
