"""Conditions that change only when something has changed."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.api.types import Condition

MESSAGE_LIMIT = 1024
_CONDITIONS = TypeAdapter(list[Condition])


def set_condition(
    conditions: Iterable[Condition],
    *,
    type: str,
    status: bool | None,
    reason: str,
    message: str,
    generation: int,
    now: datetime,
) -> list[Condition]:
    """Return the conditions with one replaced, in the same order.

    `lastTransitionTime` moves only when the status flips, so that an unchanged world gives an
    unchanged object (metav1.Condition).

    Args:
        conditions: What the object has now.
        type: The condition's type.
        status: True, False, or None for Unknown.
        reason: A stable CamelCase word.
        message: One line for a person; cut at 1024 characters.
        generation: The `metadata.generation` this was decided for.
        now: The time of a flip.
    """
    known = list(conditions)
    word = {True: "True", False: "False", None: "Unknown"}[status]
    old = find_condition(known, type)
    since = old.last_transition_time if old and old.status == word else rfc3339(now)
    new = Condition(
        type=type,
        status=word,
        reason=reason,
        message=message[:MESSAGE_LIMIT],
        last_transition_time=since,
        observed_generation=generation,
    )
    if old is None:
        return [*known, new]
    return [new if c.type == type else c for c in known]


def find_condition(conditions: Iterable[Condition], type: str) -> Condition | None:
    """Return the condition of a type, if the object has it."""
    return next((c for c in conditions if c.type == type), None)


def readable_conditions(conditions: Any) -> list[Condition]:
    """Read conditions; those that cannot be read are made anew, as all of an unreadable status."""
    try:
        return _CONDITIONS.validate_python(conditions)
    except ValidationError:
        return []
