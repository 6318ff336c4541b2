"""What an object's status says when its spec cannot be worked with, and whom it concerns."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from labfunctions_operator.api import labels
from labfunctions_operator.api.conditions import readable_conditions, set_condition
from labfunctions_operator.api.nodegroup import NodeGroup, NodeGroupSpec
from labfunctions_operator.api.notification import Notifications
from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.run import FINAL_PHASES, Run, RunSpec, RunStatus
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.api.types import LocalRef, Metadata, Model
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.scheduled_run import parse_tick
from labfunctions_operator.reconcile.ticks import SCHEDULED

M = TypeVar("M", bound=Model)


def refuse(
    obj: Mapping[str, Any], *, reason: str, message: str, now: datetime, final: bool
) -> dict[str, Any]:
    """Return the status of an object that cannot go on; one that has ended stays as it ended.

    Args:
        obj: As stored.
        reason: A CamelCase word.
        message: One line that names the field.
        now: The time of the change.
        final: Whether only another spec can help: a Run or Backfill fails with this, as its own
            can never change.
    """
    status: dict[str, Any] = dict(obj.get("status") or {})
    is_run = obj["kind"] == "Run"
    ends = obj["kind"] in ("Run", "Backfill")
    if ends and status.get("phase") in FINAL_PHASES:
        return status
    generation = obj["metadata"].get("generation", 0)
    conditions = readable_conditions(status.get("conditions"))
    also = _at_work(obj, status, now, final=final)
    for type in ["Succeeded" if ends else "Ready", *([also] if also else [])]:
        conditions = set_condition(
            conditions,
            type=type,
            status=None if ends and not final else False,
            reason=reason,
            message=message,
            generation=generation,
            now=now,
        )
    status["conditions"] = [c.wire() for c in conditions]
    status["observedGeneration"] = generation
    if ends:
        status["phase"] = "Failed" if final else "Pending"
    if is_run and final:
        status["failure"] = {"reason": reason}
        status.setdefault("completionTime", rfc3339(now))
    return status


def _at_work(
    obj: Mapping[str, Any], status: Mapping[str, Any], now: datetime, *, final: bool
) -> str | None:
    """Name the condition that may not say any more that the object is at work, if there is one."""
    if obj["kind"] == "NodeGroup":
        return "ScalingActive"
    spec = obj.get("spec") or {}
    if obj["kind"] != "Workflow" or not (spec.get("schedule") or spec.get("interval")):
        return None
    due = parse_tick(status.get("nextScheduleTime"))
    is_unknown = "schedule" not in status
    return SCHEDULED if final or is_unknown or (due is not None and due <= now) else None


def readable_run(obj: Mapping[str, Any]) -> Run:
    """Read a Run as far as it can be: if not all of it, then whose it is and whom it tells."""
    try:
        return parse(Run, obj)
    except InvalidSpec:
        pass
    metadata = Metadata.model_validate(obj["metadata"])
    spec = obj.get("spec") or {}
    found: dict[str, Any] = {
        "workflow_ref": _read(LocalRef, spec.get("workflowRef"))
        or _read(LocalRef, {"name": metadata.labels.get(labels.WORKFLOW)}),
        "project_ref": _read(LocalRef, spec.get("projectRef"))
        or _read(LocalRef, {"name": metadata.labels.get(labels.PROJECT)}),
        "notifications": _read(Notifications, spec.get("notifications")),
    }
    return Run.model_construct(
        metadata=metadata,
        spec=RunSpec.model_construct(**{n: v for n, v in found.items() if v is not None}),
        status=_read(RunStatus, obj.get("status")) or RunStatus(),
    )


def readable_group(obj: Mapping[str, Any]) -> NodeGroup | None:
    """Read a NodeGroup without the fields that cannot be read, as one that only observes.

    None where what is left is no NodeGroup.
    """
    spec = dict(obj.get("spec") or {})
    try:
        NodeGroupSpec.model_validate(spec)
    except ValidationError as error:
        for problem in error.errors():
            # One that concerns no field alone: a warm time asks for more than max.
            spec.pop(str(problem["loc"][0]) if problem["loc"] else "warm", None)
    try:
        return parse(NodeGroup, {**obj, "spec": {**spec, "observeOnly": True}})
    except InvalidSpec:
        return None


def _read(model: type[M], value: Any) -> M | None:
    try:
        return model.model_validate(value)
    except ValidationError:
        return None
