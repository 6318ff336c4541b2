"""Which Runs wait to be counted."""

from objects import make_object, stamp

from labfunctions_operator.controllers.world import Object, World


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
