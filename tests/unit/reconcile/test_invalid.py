from typing import Any

import pytest
from crd_schema import status_errors
from objects import at, make_object, make_project, make_settings, make_workflow, stamp
from run_world import JOB, runs, started

from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.run import Run
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.invalid import readable_run, refuse
from labfunctions_operator.reconcile.notify import announce, is_pending
from labfunctions_operator.reconcile.plan import Plan
from labfunctions_operator.reconcile.run import reconcile_run
from labfunctions_operator.reconcile.run_observed import RunObserved


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


@pytest.mark.parametrize(
    ("final", "following", "is_said"),
    [
        (True, stamp(60), True),
        (False, stamp(60), False),
        (False, stamp(), True),
        (False, None, False),
        (False, "some day", False),
    ],
    ids=["its spec", "before the next tick", "at the next tick", "none is to come", "garbage"],
)
def test_a_schedule_that_cannot_go_on_does_not_say_that_it_does(
    final: bool, following: str | None, is_said: bool
) -> None:
    well = {**condition("Scheduled", "True"), "reason": "Scheduled"}
    known = {"schedule": {"hash": "x", "since": stamp(-60)}, "conditions": [well]}
    if following:
        known["nextScheduleTime"] = following
    obj = make_object("Workflow", "report", {"schedule": "* * * * *"}, known)
    status = refuse(obj, reason="InvalidSpec", message="spec.x: is wrong", now=at(0), final=final)
    [scheduled] = [c for c in status["conditions"] if c["type"] == "Scheduled"]
    assert scheduled == (condition("Scheduled", "False") if is_said else well)


@pytest.mark.parametrize("final", [True, False])
def test_a_schedule_that_never_began_says_so(final: bool) -> None:
    for field in ("schedule", "interval"):
        status = refused(make_object("Workflow", "report", {field: "x"}), final=final)
        assert [c["type"] for c in status["conditions"]] == ["Ready", "Scheduled"]


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


def hook(name: str) -> dict[str, Any]:
    return {"webhook": {"url": f"https://example.com/{name}", "format": "Json"}}


WRONG: dict[str, Any] = {"notebook": "../../etc/passwd"}
UNREADABLE = {"onFailure": [{"webhook": {"url": "ftp://x"}}]}


@pytest.mark.parametrize(
    ("spec", "labels", "told"),
    [
        (WRONG | {"notifications": {"onFailure": [hook("own"), "chat"]}}, {}, ["own", "lost"]),
        (
            WRONG
            | {
                "workflowRef": {"name": "report"},
                "notifications": {"onFailure": [hook("own"), "chat"]},
            },
            {},
            ["own", "chat"],
        ),
        (WRONG | {"workflowRef": {"name": "report"}}, {}, ["workflow"]),
        (
            WRONG | {"workflowRef": {"name": "report"}, "notifications": UNREADABLE},
            {},
            ["workflow"],
        ),
        (WRONG | {"workflowRef": {"name": "report"}, "notifications": {}}, {}, []),
        (WRONG | {"workflowRef": "report"}, {"labfunctions.io/workflow": "report"}, ["workflow"]),
        (WRONG | {"projectRef": {"name": "demo"}}, {}, ["project"]),
        (WRONG | {"workflowRef": {"name": 7}}, {"labfunctions.io/project": "demo"}, ["project"]),
        (WRONG, {}, []),
        ({"notifications": UNREADABLE}, {}, []),
    ],
)
def test_who_is_told_of_a_run_that_cannot_be_read(spec: Any, labels: Any, told: list[str]) -> None:
    obj = make_object("Run", "first", spec, labels=labels)
    with pytest.raises(InvalidSpec):
        parse(Run, obj)
    run = readable_run(obj)
    workflow = make_workflow(notifications={"onFailure": [hook("workflow")]})
    project = make_project(
        defaults={"notifications": {"onFailure": [hook("project")]}},
        notificationTargets=[{"name": "chat", **hook("chat")}],
    )
    named = {"workflow_ref": workflow, "project_ref": project}
    found = {name: obj if getattr(run.spec, name) else None for name, obj in named.items()}
    plan = announce(
        Plan(status=refused(obj)),
        run,
        workflow=found["workflow_ref"],  # type: ignore[arg-type]
        project=project if any(found.values()) else None,
        before=None,
        now=at(0),
    )
    assert plan.status
    assert status_errors("Run", plan.status) == []
    targets = [d["target"] for d in plan.status.get("notifications", ())]
    assert [
        t["webhook"]["url"].rsplit("/")[-1] if "webhook" in t else "lost" for t in targets
    ] == told


def test_what_became_of_messages_about_such_a_run_is_known() -> None:
    status = {"phase": "Failed", "notifications": [{"event": "Failed", "target": hook("a")}]}
    run = readable_run(make_object("Run", "first", WRONG, status))
    assert run.is_finished
    assert is_pending(run)
    assert not readable_run(make_object("Run", "first", WRONG, {"attempts": 7})).is_finished


UNREADABLE = {"env": ["A=1"], "notifications": 1}


def test_a_run_that_was_edited_into_nonsense_goes_on_from_its_snapshot() -> None:
    world = runs()
    world.edit(**UNREADABLE)
    assert world.settle() == []
    world.edit(cancel=True)
    assert f"delete Job {JOB}" in world.settle()


def test_one_whose_snapshot_was_not_written_yet_leaves_no_job_behind() -> None:
    world = started()
    world.edit(**UNREADABLE)
    world.obj["status"] = refused(world.obj)
    seen = RunObserved(jobs=list(world.jobs.values()))
    plan = reconcile_run(readable_run(world.obj), seen, make_settings(), at(1))
    assert [ref.name for ref in plan.delete] == [JOB]
