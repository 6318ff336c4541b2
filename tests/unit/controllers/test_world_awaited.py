"""Which Runs wait to be counted, and what concerns a Backfill."""

from objects import NOW, make_object, stamp

from labfunctions_operator.controllers.dependents import Dependents
from labfunctions_operator.controllers.world import Object, World
from labfunctions_operator.reconcile.past import PastRun, minute_of
from labfunctions_operator.reconcile.plan import Key


def made_run(owner: str = "uid-1") -> Object:
    """A Run of the tick at 12:00 that has ended."""
    reference = {"kind": "Workflow", "name": "report", "uid": owner, "controller": True}
    return make_object(
        "Run",
        "report-29454480",
        {"workflowRef": {"name": "report"}},
        {"phase": "Succeeded", "completionTime": stamp(60)},
        annotations={"labfunctions.io/scheduled-at": stamp()},
        ownerReferences=[reference],
        resourceVersion="2",
    )


def world_with(since: str | None = None, *active: str, **spec: object) -> World:
    status = {
        "active": [{"name": name} for name in active],
        **({"schedule": {"hash": "x", "since": since}} if since else {}),
    }
    spec = {"projectRef": {"name": "demo"}, "notebook": "a.ipynb", **spec}
    world = World()
    workflow = make_object("Workflow", "report", spec, status, uid="uid-1", resourceVersion="1")
    world.caches["Workflow"].upsert(workflow)
    return world


def test_a_run_is_awaited_until_its_schedule_has_counted_it() -> None:
    run = made_run()
    name = run["metadata"]["name"]
    assert world_with().is_awaited(run)
    assert world_with(stamp(-60)).is_awaited(run)
    assert world_with(stamp(60), name).is_awaited(run)
    assert not world_with(stamp(60)).is_awaited(run)


def test_nobody_awaits_the_run_of_a_schedule_that_is_gone() -> None:
    assert not World().is_awaited(made_run())
    assert not world_with().is_awaited(made_run(owner="uid-0"))


def test_a_workflow_that_cannot_be_read_counts_later() -> None:
    assert world_with(stamp(60), notebook="../a.ipynb").is_awaited(made_run())


def test_nobody_awaits_a_run_that_a_user_made() -> None:
    run = make_object("Run", "mine", {"workflowRef": {"name": "report"}})
    assert not world_with().is_awaited(run)


BACKFILL = Key("Backfill", "team", "again")


def backfilled_run(**meta: object) -> Object:
    """A Run of a Backfill, of the tick at 12:00, that has ended."""
    reference = {"kind": "Backfill", "name": "again", "uid": "b", "controller": True}
    return make_object(
        "Run",
        f"again-{minute_of(NOW)}",
        {"workflowRef": {"name": "report"}},
        {"phase": "Failed", "completionTime": stamp(60)},
        **{
            "annotations": {"labfunctions.io/scheduled-at": stamp()},
            "ownerReferences": [reference],
            "resourceVersion": "2",
            **meta,
        },
    )


def world_with_backfill(name: str = "again", **status: object) -> World:
    spec = {"workflowRef": {"name": "report"}, "from": stamp(-60), "to": stamp()}
    world = World()
    obj = make_object("Backfill", name, spec, status, uid="b", resourceVersion="1")
    world.caches["Backfill"].upsert(obj)
    return world


def test_a_run_of_a_backfill_is_awaited_until_it_is_counted() -> None:
    run = backfilled_run()
    active = [{"name": run["metadata"]["name"]}]
    assert world_with_backfill().is_awaited(run)
    assert world_with_backfill(cursor=stamp(), active=active).is_awaited(run)
    assert not world_with_backfill(cursor=stamp(), active=[]).is_awaited(run)
    assert not World().is_awaited(run)


def concerned(world: World, obj: Object) -> list[Key]:
    return Dependents(world).concerned(obj)


def test_a_backfill_is_concerned_by_runs_of_its_name_whoever_made_them() -> None:
    world = world_with_backfill()
    for run in (backfilled_run(), backfilled_run(ownerReferences=[])):
        assert BACKFILL in concerned(world, run)
    assert BACKFILL not in concerned(World(), backfilled_run())


def test_a_backfill_is_concerned_by_its_workflow_and_by_one_of_its_own_name() -> None:
    workflow = make_object("Workflow", "report", {})
    assert BACKFILL in concerned(world_with_backfill(), workflow)
    assert BACKFILL not in concerned(world_with_backfill(completionTime=stamp()), workflow)
    namesake = make_object("Workflow", "again", {})
    assert BACKFILL in concerned(world_with_backfill(), namesake)


def test_a_run_of_a_backfill_is_none_of_the_schedule() -> None:
    world = world_with_backfill()
    run = backfilled_run()
    world.caches["Run"].upsert(dict(run))
    assert world.scheduled_runs("team", "report") == []
    assert world.ahead(run) is None
    assert world.past_runs("team", "report", minute_of(NOW)) == [
        PastRun(created=run["metadata"]["creationTimestamp"], phase="Failed")
    ]
    assert world.past_runs("team", "other", minute_of(NOW)) == []
