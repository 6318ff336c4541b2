"""A Run that was made for a tick, as its maker and its neighbours in the queue see it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from labfunctions_operator.api.labels import API_VERSION, SCHEDULED_AT_ANNOTATION
from labfunctions_operator.api.run import FINAL_PHASES, RECORDED
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.reconcile.notify import PENDING
from labfunctions_operator.reconcile.plan import Ref


@dataclass(frozen=True, kw_only=True)
class ScheduledRun:
    """One tick's Run.

    Attributes:
        maker: The name of the Workflow or Backfill that made it.
        owner: The uid of that.
        tick: What it was made for.
        phase: None before the operator has said anything.
        reason: Of its condition Succeeded, like the message.
        is_cancelled: Whether it is asked to stop.
        is_recorded: Whether its record is known to be in the store.
        is_told: Whether no message about its end is still to be sent.
        is_terminating: Whether its deletion is under way.
    """

    namespace: str
    name: str
    uid: str
    maker: str
    owner: str
    tick: datetime
    phase: str | None
    reason: str
    message: str
    completion_time: str | None
    is_cancelled: bool
    is_recorded: bool
    is_told: bool
    is_terminating: bool

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.phase not in FINAL_PHASES

    @property
    def ref(self) -> Ref:
        """Names this Run and no later one of its name."""
        return Ref(
            api_version=API_VERSION,
            kind="Run",
            namespace=self.namespace,
            name=self.name,
            uid=self.uid,
        )


def scheduling_workflow(run: Mapping[str, Any]) -> str | None:
    """Return the name of the Workflow whose schedule made a stored Run."""
    owner = _owner(run)
    return str(owner["name"]) if owner and tick_of(run) else None


def scheduled_run(run: Mapping[str, Any], kind: str = "Workflow") -> ScheduledRun | None:
    """Read a stored Run; None if no object of that kind made it for a tick."""
    owner, tick = _owner(run, kind), tick_of(run)
    if owner is None or tick is None:
        return None
    metadata, status = run["metadata"], run.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    condition: Mapping[str, Any] = conditions.get("Succeeded", {})
    ended = parse_tick(status.get("completionTime"))
    return ScheduledRun(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        maker=owner["name"],
        owner=owner["uid"],
        tick=tick,
        phase=status.get("phase"),
        reason=condition.get("reason") or "Unknown",
        message=condition.get("message") or "",
        completion_time=rfc3339(ended) if ended else None,
        is_cancelled=bool((run.get("spec") or {}).get("cancel")),
        is_recorded=conditions.get(RECORDED, {}).get("status") == "True",
        is_told=all(d.get("state") != PENDING for d in status.get("notifications") or ()),
        is_terminating="deletionTimestamp" in metadata,
    )


def tick_of(run: Mapping[str, Any]) -> datetime | None:
    """Return the tick that a stored Run says it was made for."""
    return parse_tick((run["metadata"].get("annotations") or {}).get(SCHEDULED_AT_ANNOTATION))


def parse_tick(text: object) -> datetime | None:
    """Read a time that anybody can have written, so that it may be anything."""
    try:
        return parse_time(text).astimezone(UTC) if isinstance(text, str) else None
    except (ValueError, OverflowError):
        return None


def _owner(run: Mapping[str, Any], kind: str = "Workflow") -> Mapping[str, Any] | None:
    for owner in run["metadata"].get("ownerReferences") or ():
        if owner.get("controller") and owner.get("kind") == kind:
            found: Mapping[str, Any] = owner
            return found
    return None
