"""How the last Run of a Workflow ended: what a success is a recovery from."""

from typing import Any

import pytest
from objects import make_object, stamp

from labfunctions_operator.controllers.world import World

FAILED, SUCCEEDED, CANCELLED = "Failed", "Succeeded", "Cancelled"


def world_with(*ends: tuple[float, str], **status: Any) -> World:
    world = World()
    workflow = make_object("Workflow", "report", {}, status, resourceVersion="1")
    world.caches["Workflow"].upsert(workflow)
    for number, (second, phase) in enumerate(ends):
        spec = {"workflowRef": {"name": "report"}}
        add(world, f"r-{number}", spec, phase=phase, completionTime=stamp(second))
    return world


def add(world: World, name: str, spec: Any, **status: Any) -> None:
    world.caches["Run"].upsert(make_object("Run", name, spec, status, resourceVersion="1"))


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([], None),
        ([(1, SUCCEEDED), (2, FAILED)], FAILED),
        ([(1, FAILED), (2, SUCCEEDED)], SUCCEEDED),
        ([(1, FAILED), (2, CANCELLED)], FAILED),
        ([(1, SUCCEEDED), (1, FAILED)], FAILED),
        ([(1, FAILED), (1, SUCCEEDED)], FAILED),
    ],
)
def test_the_last_run_tells(ends: list[tuple[float, str]], expected: str | None) -> None:
    assert world_with(*ends).last_end("team", "report") == expected
    assert world_with(*ends).last_end("team", "other") is None


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"lastFailedTime": stamp(1)}, FAILED),
        ({"lastFailedTime": stamp(1), "lastSuccessfulTime": stamp(2)}, SUCCEEDED),
        ({"lastFailedTime": stamp(2), "lastSuccessfulTime": stamp(1)}, FAILED),
        ({"lastFailedTime": stamp(2), "lastSuccessfulTime": stamp(2)}, FAILED),
    ],
)
def test_a_schedules_runs_that_are_deleted_tell_too(status: Any, expected: str) -> None:
    assert world_with((3, CANCELLED), **status).last_end("team", "report") == expected


def test_a_repeat_counts_for_the_workflow_that_it_repeats() -> None:
    world = world_with((1, FAILED))
    snapshot = {"workflow": "report"}
    repeat = {"from": "r-0"}
    add(world, "again", repeat, phase=SUCCEEDED, completionTime=stamp(2), snapshot=snapshot)
    assert world.last_end("team", "report") == SUCCEEDED
