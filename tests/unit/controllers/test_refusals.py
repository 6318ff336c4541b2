"""Who tries again what was refused: the engine, or nobody before the object changes."""

import asyncio
from typing import Any

import pytest
from objects import NOW, make_object

from labfunctions_operator.controllers.reconcilers import Reconcilers
from labfunctions_operator.errors import ChildRefused, Denied, InvalidSpec
from labfunctions_operator.reconcile.plan import Key, Plan


class Archive:
    """Has nothing to do."""

    async def record_deleted(self, key: Key) -> None:
        return None


class Refused(Reconcilers):
    """Finds an object that cannot go on.

    Attributes:
        written: Its status.
    """

    def __init__(self, kind: str, error: Exception) -> None:
        self._world: Any = {Key(kind, "team", "report"): make_object(kind, "report", {})}
        self._archive: Any = Archive()
        self._clock = lambda: NOW
        self._error = error
        self.written: dict[str, Any] = {}

    async def _bring_nearer(self, key: Key, obj: Any) -> float | None:
        raise self._error

    def _tell(self, plan: Plan, obj: Any) -> Plan:
        return plan

    async def _carry_out(self, plan: Plan, obj: Any) -> float | None:
        self.written = dict(plan.status or {})
        return plan.requeue_after


@pytest.mark.parametrize("kind", ["Workflow", "Project", "Backfill"])
def test_a_refused_child_is_tried_again_as_what_is_forbidden(kind: str) -> None:
    reconcilers = Refused(kind, ChildRefused("spec", "a policy says no"))
    with pytest.raises(Denied, match="spec: a policy says no"):
        asyncio.run(reconcilers.reconcile(Key(kind, "team", "report")))
    [condition] = reconcilers.written["conditions"]
    assert (condition["reason"], condition["message"]) == ("InvalidSpec", "spec: a policy says no")
    assert reconcilers.written.get("phase") in (None, "Pending")


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("Workflow", InvalidSpec("spec.notebook", "is wrong")),
        ("Run", InvalidSpec("spec.notebook", "is wrong")),
        ("Run", ChildRefused("spec.volumes", "is wrong")),
    ],
)
def test_what_only_its_user_can_change_waits_for_that(kind: str, error: Exception) -> None:
    reconcilers = Refused(kind, error)
    assert asyncio.run(reconcilers.reconcile(Key(kind, "team", "report"))) is None
    assert reconcilers.written.get("phase") in (None, "Failed")
