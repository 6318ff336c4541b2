"""Which objects concern which others: Runs of a schedule, its Workflow, and their queue."""

from datetime import timedelta
from typing import Any

from objects import NOW, Object, make_object, uid_of

from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.controllers.dependents import Dependents
from labfunctions_operator.controllers.world import World
from labfunctions_operator.reconcile.plan import Key

WORKFLOW = Key("Workflow", "team", "report")


def scheduled(minutes: int, *, phase: str | None = None, owner: str = "w1") -> Object:
    reference = {"kind": "Workflow", "name": "report", "uid": owner, "controller": True}
    return make_object(
        "Run",
        f"report-{minutes}",
        {"workflowRef": {"name": "report"}},
        {"phase": phase} if phase else None,
        uid=uid_of(minutes, owner),
        ownerReferences=[reference],
        annotations={"labfunctions.io/scheduled-at": rfc3339(NOW + timedelta(minutes=minutes))},
        resourceVersion=str(minutes + 1),
    )


def by_hand(**meta: Any) -> Object:
    spec = {"workflowRef": {"name": "report"}}
    return make_object("Run", "by-hand", spec, resourceVersion="99", **meta)


def world_of(*runs: Object) -> World:
    world = World()
    world.caches["Run"].replace(runs, "100")
    return world


def run(minutes: int) -> Key:
    return Key("Run", "team", f"report-{minutes}")


def test_a_run_of_a_schedule_concerns_its_workflow() -> None:
    world = world_of(scheduled(1), scheduled(2), scheduled(3))
    assert Dependents(world).concerned(scheduled(2)) == [run(2), WORKFLOW]


def test_one_that_ends_concerns_the_first_in_the_queue_and_the_next_one() -> None:
    world = world_of(*(scheduled(n) for n in (1, 2, 4, 5)), scheduled(3, phase="Cancelled"))
    assert Dependents(world).concerned(scheduled(3, phase="Cancelled")) == [
        run(3),
        WORKFLOW,
        run(1),
        run(4),
    ]


def test_one_that_is_deleted_concerns_them_too() -> None:
    world = world_of(scheduled(2), scheduled(3))
    assert Dependents(world).concerned(scheduled(1)) == [run(1), WORKFLOW, run(2)]


def test_one_made_by_hand_concerns_nobody_and_is_in_no_queue() -> None:
    annotated = {"annotations": {"labfunctions.io/scheduled-at": rfc3339(NOW)}}
    for obj in (by_hand(), by_hand(**annotated)):
        world = world_of(scheduled(2), obj)
        assert Dependents(world).concerned(obj) == [Key("Run", "team", "by-hand")]
        assert world.ahead(obj) is None
        assert world.ahead(scheduled(2)) is None
        assert [r.name for r in world.scheduled_runs("team", "report")] == ["report-2"]


def test_what_is_ahead_is_the_live_run_just_before() -> None:
    world = world_of(
        scheduled(1), scheduled(2), scheduled(3, phase="Succeeded"), scheduled(4), scheduled(5)
    )
    assert world.ahead(scheduled(4)) == "report-2"
    assert world.ahead(scheduled(1)) is None


def test_runs_of_a_deleted_workflow_of_that_name_are_not_ahead() -> None:
    world = world_of(scheduled(1, owner="w0"), scheduled(2))
    assert world.ahead(scheduled(2)) is None
