"""Which ticks ahead will need a node."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from labfunctions_operator.desired.scheduled_run import scheduled_run_name
from labfunctions_operator.reconcile.scheduled_run import ScheduledRun, parse_tick
from labfunctions_operator.reconcile.story import items

# With these, a tick's Run does not start beside an earlier one, whose node it can have after it.
_ONE_AT_A_TIME = ("Forbid", "Queue")


def tick_ahead(
    workflow: Mapping[str, Any], live: Sequence[ScheduledRun], is_made: Callable[[str], bool]
) -> datetime | None:
    """Return the next tick of a Workflow, unless no Run will start by it or one has been made.

    Args:
        workflow: As stored: anything may be written there.
        live: The Runs of its schedule that have not ended.
        is_made: Tells whether there is a Run of that name.
    """
    status = workflow.get("status") or {}
    tick = parse_tick(status.get("nextScheduleTime"))
    if tick is None or is_made(scheduled_run_name(workflow["metadata"]["name"], tick)):
        return None
    ready = next((c for c in items(status, "conditions") if c.get("type") == "Ready"), {})
    waits = live and workflow["spec"].get("concurrencyPolicy") in _ONE_AT_A_TIME
    return None if waits or ready.get("status") != "True" else tick
