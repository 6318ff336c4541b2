"""The record of a Run: what the store keeps of it once the object is gone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from labfunctions_operator.api.conditions import (
    find_condition,
    readable_conditions,
    set_condition,
)
from labfunctions_operator.api.run import FINAL_PHASES, RECORDED
from labfunctions_operator.api.types import Condition
from labfunctions_operator.desired.names import run_prefix
from labfunctions_operator.reconcile.invalid import refuse

STORED = "Stored"
DELETED = "Deleted"
# What clients keep for themselves, and what says no more than the record itself.
_LEFT_OUT = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})

Object = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One file for the store.

    Attributes:
        key: Its path there.
        content: The Run as it ended, as JSON.
    """

    key: str
    content: Mapping[str, Any]


def needs_record(status: Object | None) -> bool:
    """Whether a Run has ended and its record is not known to be stored."""
    if not status or status.get("phase") not in FINAL_PHASES:
        return False
    return not is_recorded(readable_conditions(status.get("conditions")))


def is_recorded(conditions: list[Condition]) -> bool:
    """Whether the record is known to be stored, so that the object may go."""
    condition = find_condition(conditions, RECORDED)
    return condition is not None and condition.status == "True"


def last_status(obj: Object, now: datetime) -> dict[str, Any] | None:
    """Return what the record of a Run whose object was deleted says of it.

    None if it is on record already, or has not begun: then there is nothing that it has left.
    """
    status = dict(obj.get("status") or {})
    phase = status.get("phase")
    if phase in FINAL_PHASES:
        return status if needs_record(status) else None
    if not status.get("attempts"):
        return None
    return refuse(obj, reason=DELETED, message=f"deleted while {phase}", now=now, final=True)


def build_record(obj: Object, status: Object, *, project: str, workflow: str | None) -> Record:
    """Build the record of a Run: the object as it ended, whatever its spec says.

    Args:
        obj: The Run as stored; its spec need not be one that can be worked with.
        status: As it is about to be written.
        project: Whose folder the record goes to.
        workflow: The same; None for a Run of its own.
    """
    metadata = obj["metadata"]
    prefix = run_prefix(
        namespace=metadata["namespace"],
        project=project,
        workflow=workflow,
        run=metadata["name"],
        uid=metadata["uid"],
    )
    annotations = {
        name: value
        for name, value in (metadata.get("annotations") or {}).items()
        if name not in _LEFT_OUT
    }
    kept = {
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": metadata["uid"],
        "creationTimestamp": metadata.get("creationTimestamp"),
        "labels": metadata.get("labels") or {},
        "annotations": annotations,
    }
    return Record(
        key=f"{prefix}/run.json",
        content={
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "metadata": {name: value for name, value in kept.items() if value},
            "spec": obj.get("spec") or {},
            "status": status,
        },
    )


def with_record(
    status: Object, generation: int, now: datetime, *, uri: str | None = None, problem: str = ""
) -> dict[str, Any]:
    """Return the status with what became of the record: where it lies, or why it does not.

    A problem keeps its first words, as trying again is no news.
    """
    conditions = readable_conditions(status.get("conditions"))
    before = find_condition(conditions, RECORDED)
    reason, message = STORED, "run.json is in the store"
    if uri is None:
        reason = "StoreUnavailable"
        message = f"run.json is not in the store yet, and the Run is kept until it is: {problem}"
        if before and before.reason == reason:
            message = before.message
    conditions = set_condition(
        conditions,
        type=RECORDED,
        status=uri is not None,
        reason=reason,
        message=message,
        generation=generation,
        now=now,
    )
    outputs = {**(status.get("outputs") or {}), **({"record": uri} if uri else {})}
    return {
        **status,
        "conditions": [condition.wire() for condition in conditions],
        **({"outputs": outputs} if outputs else {}),
    }
