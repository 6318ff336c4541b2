from typing import Any

import pytest
from crd_schema import status_errors
from objects import at, make_object, stamp

from labfunctions_operator.reconcile.invalid import refuse


def refused(obj: dict[str, Any], *, final: bool = True, seconds: float = 0) -> dict[str, Any]:
    status = refuse(
        obj, reason="InvalidSpec", message="spec.x: is wrong", now=at(seconds), final=final
    )
    assert status_errors(obj["kind"], status) == []
    return status


def condition(type: str, status: str) -> dict[str, Any]:
    return {
        "type": type,
        "status": status,
        "reason": "InvalidSpec",
        "message": "spec.x: is wrong",
        "lastTransitionTime": stamp(),
        "observedGeneration": 1,
    }


@pytest.mark.parametrize("kind", ["Project", "Workflow"])
@pytest.mark.parametrize("final", [True, False])
def test_an_object_that_cannot_be_worked_with_is_not_ready(kind: str, final: bool) -> None:
    assert refused(make_object(kind, "demo", {}), final=final) == {
        "observedGeneration": 1,
        "conditions": [condition("Ready", "False")],
    }


def test_a_run_that_cannot_be_worked_with_has_failed() -> None:
    assert refused(make_object("Run", "first", {})) == {
        "observedGeneration": 1,
        "phase": "Failed",
        "failure": {"reason": "InvalidSpec"},
        "completionTime": stamp(),
        "conditions": [condition("Succeeded", "False")],
    }


def test_a_run_that_waits_for_an_administrator_is_pending() -> None:
    assert refused(make_object("Run", "first", {}), final=False) == {
        "observedGeneration": 1,
        "phase": "Pending",
        "conditions": [condition("Succeeded", "Unknown")],
    }


def test_a_backfill_that_cannot_be_worked_with_has_failed_but_has_not_ended() -> None:
    for final, phase, succeeded in ((True, "Failed", "False"), (False, "Pending", "Unknown")):
        assert refused(make_object("Backfill", "again", {}), final=final) == {
            "observedGeneration": 1,
            "phase": phase,
            "conditions": [condition("Succeeded", succeeded)],
        }
    known = {"phase": "Succeeded", "completionTime": stamp()}
    assert refused(make_object("Backfill", "again", {}, known)) == known


def test_a_group_that_cannot_be_worked_with_does_not_scale() -> None:
    status = refused(make_object("NodeGroup", "gpu", {}))
    assert status["conditions"] == [
        condition("Ready", "False"),
        condition("ScalingActive", "False"),
    ]


@pytest.mark.parametrize("kind", ["Project", "Workflow", "Run", "NodeGroup"])
@pytest.mark.parametrize("final", [True, False])
def test_saying_it_again_changes_nothing(kind: str, final: bool) -> None:
    obj = make_object(kind, "demo", {})
    first = refused(obj, final=final)
    assert refused({**obj, "status": first}, final=final, seconds=99) == first


def test_what_else_is_known_stays() -> None:
    known = {"parametersSchema": {"a": {}}, "conditions": [condition("Other", "True")]}
    status = refused(make_object("Workflow", "demo", {}, known))
    assert status["parametersSchema"] == {"a": {}}
    assert [c["type"] for c in status["conditions"]] == ["Other", "Ready"]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Cancelled"])
@pytest.mark.parametrize("final", [True, False])
def test_a_run_that_has_ended_stays_as_it_ended(phase: str, final: bool) -> None:
    known = {"phase": phase, "conditions": [condition("Succeeded", "True")]}
    assert refused(make_object("Run", "first", {}, known), final=final) == known


@pytest.mark.parametrize("conditions", [[{"type": 1}], ["x"], "x", None, {}, 3])
def test_conditions_that_cannot_be_read_are_dropped(conditions: Any) -> None:
    obj = make_object("Project", "demo", {}, {"conditions": conditions})
    assert refused(obj)["conditions"] == [condition("Ready", "False")]
