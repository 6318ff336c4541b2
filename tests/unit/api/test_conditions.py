from typing import Any

import pytest
from objects import at, stamp

from labfunctions_operator.api.conditions import find_condition, set_condition
from labfunctions_operator.api.types import Condition


def put(conditions: list[Condition], seconds: float, **changes: Any) -> list[Condition]:
    fields = {
        "type": "Ready",
        "status": True,
        "reason": "Built",
        "message": "it is",
        "generation": 1,
        **changes,
    }
    return set_condition(conditions, now=at(seconds), **fields)


def test_a_condition_starts_with_the_time_of_its_first_word() -> None:
    [condition] = put([], 5)
    assert condition.wire() == {
        "type": "Ready",
        "status": "True",
        "reason": "Built",
        "message": "it is",
        "lastTransitionTime": stamp(5),
        "observedGeneration": 1,
    }


def test_an_unchanged_world_gives_an_unchanged_condition() -> None:
    first = put([], 0)
    assert put(first, 99) == first


@pytest.mark.parametrize(
    "changes", [{"reason": "Rebuilt"}, {"message": "it still is"}, {"generation": 2}]
)
def test_the_transition_time_stays_while_the_status_does(changes: dict[str, Any]) -> None:
    [condition] = put(put([], 0), 99, **changes)
    assert condition.last_transition_time == stamp(0)
    assert condition.observed_generation == changes.get("generation", 1)


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, None), (None, True)])
def test_the_transition_time_moves_when_the_status_flips(
    before: bool | None, after: bool | None
) -> None:
    [condition] = put(put([], 0, status=before), 99, status=after)
    assert condition.last_transition_time == stamp(99)
    assert condition.status == {True: "True", False: "False", None: "Unknown"}[after]


def test_a_condition_keeps_its_place_among_the_others() -> None:
    conditions: list[Condition] = []
    for type in ("A", "B", "C"):
        conditions = put(conditions, 0, type=type)
    changed = put(conditions, 1, type="B", status=False)
    assert [c.type for c in changed] == ["A", "B", "C"]
    assert (changed[0], changed[2]) == (conditions[0], conditions[2])
    assert find_condition(changed, "B") == changed[1]
    assert find_condition(changed, "D") is None


def test_a_long_message_is_cut() -> None:
    [condition] = put([], 0, message="x" * 5000)
    assert condition.message == "x" * 1024
