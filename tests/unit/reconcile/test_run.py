from typing import Any

import pytest
from crd_schema import status_errors
from objects import (
    ALL_STORED,
    COMMIT,
    courier_says,
    created,
    held,
    make_pod,
    make_project,
    make_source,
    make_workflow,
    runner_says,
    running,
    stamp,
    terminated,
)
from run_world import IMAGE, RunWorld, ready_project
from world import (
    job_gone,
    pod_cannot_pull,
    pod_evicted,
    pod_fails,
    pod_gone,
    pod_out_of_memory,
    pod_pending,
    pod_runs,
    pod_succeeds,
    pod_unschedulable,
)

from labfunctions_operator.api.run import Progress
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.source import Notebook

JOB = "first-1"
OUTPUTS = {
    "notebook": "s3://b/notebook.ipynb",
    "html": "s3://b/notebook.html",
    "result": "s3://b/result.json",
}


def started(**spec: Any) -> RunWorld:
    """A Run whose Job was just made."""
    world = RunWorld(**spec)
    assert world.settle() == [f"create Job {JOB}"]
    return world


def runs(**spec: Any) -> RunWorld:
    """A Run whose notebook runs."""
    world = started(**spec)
    world.seconds = 2
    pod_runs(world, JOB)
    assert world.settle() == ["status"]
    return world


# --- gates ---------------------------------------------------------------------------------------

NO_NOTEBOOK = Notebook(sha256="0" * 64, error="is not a notebook: no JSON")
GATES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, str], str]] = {
    "the workflow is missing": (
        {},
        {"workflow": None, "project": None},
        ("WorkflowNotFound", "Workflow report does not exist in this namespace"),
        "Pending",
    ),
    "the workflow cannot be read": (
        {},
        {"workflow": InvalidSpec("spec.gpu.count", "is wrong")},
        ("WorkflowInvalid", "Workflow report: spec.gpu.count: is wrong"),
        "Pending",
    ),
    "the workflow names no notebook": (
        {},
        {"workflow": make_workflow(notebook=None), "project": None},
        ("InvalidSpec", "neither Run nor Workflow names a project and a notebook"),
        "Pending",
    ),
    "the project is missing": (
        {"runtime": "missing"},
        {"project": None},
        ("ProjectNotFound", "Project demo does not exist in this namespace"),
        "Pending",
    ),
    "the project cannot be read": (
        {},
        {"project": InvalidSpec("spec.source", "Field required")},
        ("ProjectInvalid", "Project demo: spec.source: Field required"),
        "Pending",
    ),
    "the runtime is missing": (
        {"runtime": "gpu", "parameters": {"unknown": 1}},
        {},
        ("RuntimeNotFound", "Project demo has no runtime gpu"),
        "Pending",
    ),
    "the project has no image yet": (
        {"parameters": {"unknown": 1}},
        {"project": make_project()},
        ("ImagePending", "Project demo has no image default yet; see its status"),
        "Pending",
    ),
    "the image is being built": (
        {},
        {"project": ready_project(runtime={"phase": "Building", "message": "building c0ffee"})},
        ("ImageBuilding", "image default of Project demo: building c0ffee"),
        "Building",
    ),
    "the image cannot be built": (
        {},
        {
            "project": ready_project(
                runtime={"phase": "Failed", "image": None, "message": "no such package"}
            )
        },
        ("ImageBuildFailed", "image default of Project demo cannot be built: no such package"),
        "Pending",
    ),
    "a notebook is missing for good": (
        {"notebook": "analisys.ipynb", "parameters": {"unknown": 1}},
        {},
        (
            "NotebookNotFound",
            f"analisys.ipynb is not in the source at {COMMIT[:12]}; did you mean analysis.ipynb?",
        ),
        "Failed",
    ),
    "a notebook is broken for good": (
        {"parameters": {"unknown": 1}},
        {"source": make_source(notebooks={"analysis.ipynb": NO_NOTEBOOK})},
        ("NotebookInvalid", "analysis.ipynb: is not a notebook: no JSON"),
        "Failed",
    ),
    "parameters are wrong for good": (
        {"parameters": {"day": 3}},
        {},
        ("ParametersInvalid", "parameters.day: expected str, got int 3"),
        "Failed",
    ),
}


def at_gate(case: str) -> RunWorld:
    spec, around, _, _ = GATES[case]
    world = RunWorld(workflowRef={"name": "report"}, **spec)
    for name, value in around.items():
        setattr(world, name, value)
    return world


@pytest.mark.parametrize("case", GATES)
def test_gates_close_in_order_and_say_which(case: str) -> None:
    _, _, why, phase = GATES[case]
    world = at_gate(case)
    assert world.settle() == ["status"]
    assert world.condition == ("False" if phase == "Failed" else "Unknown", *why)
    assert world.status["phase"] == phase
    assert world.jobs == {}
    world.seconds += 60
    assert world.settle() == []


@pytest.mark.parametrize("case", [c for c in GATES if GATES[c][3] != "Failed"])
def test_a_gate_that_opens_lets_the_run_through(case: str) -> None:
    world = at_gate(case)
    world.settle()
    world.workflow, world.project = make_workflow(), ready_project()
    world.obj["spec"] = {"workflowRef": {"name": "report"}}
    assert world.settle() == [f"create Job {JOB}"]


@pytest.mark.parametrize("case", [c for c in GATES if GATES[c][3] == "Failed"])
def test_a_gate_that_never_opens_ends_the_run(case: str) -> None:
    world = at_gate(case)
    world.settle()
    assert world.status["failure"] == {"reason": GATES[case][2][0]}
    assert world.status["completionTime"] == stamp(0)
    assert [e.reason for e in world.events] == [GATES[case][2][0]]


def test_the_last_good_image_lets_a_run_through_while_the_next_one_fails() -> None:
    world = RunWorld()
    world.project = ready_project(runtime={"phase": "Failed", "message": "no such package"})
    assert world.settle() == [f"create Job {JOB}"]


@pytest.mark.parametrize("source", [None, make_source(tree="other", notebooks={})])
def test_what_cannot_be_checked_before_is_left_to_the_runner(source: Any) -> None:
    world = RunWorld(workflowRef={"name": "report"}, parameters={"unknown": 1})
    world.source = source
    assert world.settle() == [f"create Job {JOB}"]


def test_a_run_can_say_everything_itself() -> None:
    world = RunWorld(projectRef={"name": "demo"}, notebook="analysis.ipynb")
    world.workflow = None
    assert world.settle() == [f"create Job {JOB}"]
    assert "labfunctions.io/workflow" not in world.jobs[JOB]["metadata"]["labels"]


def test_a_run_may_not_wait_longer_than_it_is_allowed_to() -> None:
    world = RunWorld(workflowRef={"name": "report"}, pendingTimeoutSeconds=60)
    world.project = None
    world.settle()
    assert world.decide().requeue_after == 50, "it was made ten seconds ago"
    world.seconds = 50
    assert world.settle() == ["status"]
    assert world.condition == (
        "False",
        "PendingTimedOut",
        "not started after 60 s: Project demo does not exist in this namespace",
    )


# --- admission -----------------------------------------------------------------------------------


def test_a_run_keeps_what_it_was_admitted_with() -> None:
    world = RunWorld(
        workflowRef={"name": "report"},
        parameters={"day": "monday"},
        timeoutSeconds=60,
    )
    world.workflow = make_workflow(parameters={"day": "sunday"}, cellTimeoutSeconds=5)
    world.settle()
    pod_runs(world, JOB)
    world.settle()
    before = world.status["snapshot"]
    expected = {
        "project": "demo",
        "workflow": "report",
        "notebook": "analysis.ipynb",
        "commit": COMMIT,
        "image": IMAGE,
        "runtime": "default",
        "inputsHash": "hash",
        "parameters": {"day": "monday"},
        "timeoutSeconds": 60,
        "cellTimeoutSeconds": 5,
    }
    assert {k: before.get(k) for k in expected} == expected
    world.workflow = make_workflow(parameters={"day": "friday"}, notebook="other.ipynb")
    world.project = ready_project(runtime={"image": "i@sha256:ff"})
    pod_succeeds(world, JOB)
    world.settle()
    assert world.status["snapshot"] == before


def test_parameters_are_merged_name_by_name() -> None:
    world = RunWorld(
        workflowRef={"name": "report"}, parametersPolicy="Permissive", parameters={"a": None}
    )
    world.workflow = make_workflow(parameters={"a": 1, "day": "x"})
    world.settle()
    pod_runs(world, JOB)
    world.settle()
    assert world.status["snapshot"]["parameters"] == {"a": None, "day": "x"}


def test_the_project_fills_what_nobody_says() -> None:
    world = RunWorld()
    world.project = ready_project(
        defaults={
            "resources": {"limits": {"memory": "2Gi"}},
            "timeoutSeconds": 77,
            "serviceAccountName": "analyst",
        },
        registry={"repository": "r.example.com/x", "secretRef": {"name": "login"}},
    )
    world.settle()
    pod = world.jobs[JOB]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == {"limits": {"memory": "2Gi"}}
    assert pod["imagePullSecrets"] == [{"name": "login"}]
    assert pod["serviceAccountName"] == "analyst"


@pytest.mark.parametrize("named", [["login"], [f"s{i}" for i in range(20)]])
def test_the_secret_of_the_registry_is_added_once_and_to_any_number(named: list[str]) -> None:
    world = RunWorld(
        workflowRef={"name": "report"}, imagePullSecrets=[{"name": name} for name in named]
    )
    world.project = ready_project(
        registry={"repository": "r.example.com/x", "secretRef": {"name": "login"}}
    )
    world.settle()
    secrets = world.jobs[JOB]["spec"]["template"]["spec"]["imagePullSecrets"]
    assert [s["name"] for s in secrets] == list(dict.fromkeys([*named, "login"]))
    pod_runs(world, JOB)
    world.settle()
    assert world.status["snapshot"]["image"] == IMAGE


def test_a_job_of_a_deleted_run_of_the_same_name_is_waited_for() -> None:
    earlier = started()
    world = RunWorld()
    foreign = created(earlier.jobs[JOB], 5)
    foreign["metadata"]["ownerReferences"][0]["uid"] = "another"
    world.jobs[JOB] = foreign
    world.pods[JOB] = make_pod(
        foreign, phase="Succeeded", notebook=terminated(0, runner_says()), courier=running()
    )
    assert world.settle() == ["status"]
    assert world.condition == (
        "Unknown",
        "Waiting",
        "a Job of a deleted Run of this name still ends",
    )
    job_gone(world, JOB)
    assert world.settle() == [f"create Job {JOB}"]


# --- following -----------------------------------------------------------------------------------


def test_a_pod_that_starts_soon_costs_one_write_from_nothing_to_running() -> None:
    world = started()
    assert world.decide().requeue_after == 4
    world.seconds = 1
    pod_pending(world, JOB)
    assert world.settle() == []
    world.seconds = 2
    pod_runs(world, JOB)
    assert world.settle() == ["status"]
    assert world.condition == ("Unknown", "Running", "the notebook is running")
    assert world.status["phase"] == "Running"
    assert world.status["startTime"] == stamp(2)
    assert world.status["queuedSeconds"] == 12


def test_a_pod_that_takes_longer_is_said_to_start() -> None:
    world = started()
    world.seconds = 4
    assert world.settle() == ["status"]
    assert world.condition == ("Unknown", "Starting", "waiting for the pod to be created")
    assert world.status["phase"] == "Starting"
    pod_unschedulable(world, JOB)
    assert world.settle() == ["status"]
    assert world.condition == ("Unknown", "Unschedulable", "0/1 nodes")
    assert world.decide().requeue_after == 30


def test_two_wordings_of_a_failed_pull_are_one() -> None:
    world = started()
    world.seconds = 5
    pod_cannot_pull(world, JOB)
    assert world.settle() == ["status"]
    before = world.condition
    world.pods[JOB] = make_pod(
        world.jobs[JOB], phase="Pending", notebook=held("ErrImagePull", "404 Not Found")
    )
    assert world.settle() == []
    assert world.condition == before


def test_an_image_that_cannot_be_pulled_ends_the_run_and_its_job() -> None:
    world = started()
    pod_cannot_pull(world, JOB)
    world.settle()
    world.seconds = 400
    writes = world.settle()
    assert world.condition == (
        "False",
        "ImagePullFailed",
        "cannot pull example.com/notebook: no such image",
    )
    assert f"delete Job {JOB}" in writes, "or it would go on trying, and maybe run after all"
    assert world.status["attempts"][0]["reason"] == "ImagePullFailed"


def test_progress_is_written_at_most_once_a_minute() -> None:
    world = runs()
    writes = []
    for second in range(10, 140, 10):
        world.seconds = second
        cell = second // 10
        world.progress = Progress(cell=cell, cells=20, name="n", summary=f"{cell}/20")
        if world.settle():
            writes.append(second)
    assert writes == [10, 70, 130]
    assert world.status["progress"] == {
        "cell": 13,
        "cells": 20,
        "name": "n",
        "summary": "13/20",
        "time": stamp(130),
    }


def test_progress_that_waits_is_looked_at_again_in_time() -> None:
    world = runs()
    for second, cell in ((10, 1), (30, 2)):
        world.seconds = second
        world.progress = Progress(cell=cell, cells=20)
        world.settle()
    assert world.decide().requeue_after == 40
    world.seconds = 70
    assert world.settle() == ["status"]
    assert world.status["progress"]["cell"] == 2


def test_a_restart_forgets_no_progress() -> None:
    world = runs()
    world.progress = Progress(cell=1, cells=20)
    world.settle()
    world.restart()
    assert world.settle() == []


def test_a_notebook_that_its_runner_does_not_end_is_stopped() -> None:
    world = runs(workflowRef={"name": "report"}, timeoutSeconds=100)
    world.seconds = 161
    assert world.settle() == []
    world.seconds = 162
    assert world.settle() == ["status", f"delete Job {JOB}"]
    assert world.condition[1] == "Stopping"
    pod_gone(world, JOB)
    world.settle()
    assert world.condition[:2] == ("False", "TimedOut")
    assert world.status["phase"] == "Failed"


# --- the end -------------------------------------------------------------------------------------


def test_a_run_that_succeeds_costs_three_writes() -> None:
    world = runs()
    world.seconds = 60
    pod_succeeds(world, JOB)
    world.settle()
    assert world.writes == [f"create Job {JOB}", "status", "status"]
    assert world.condition == ("True", "Succeeded", "it is Succeeded")
    expected = {
        "phase": "Succeeded",
        "startTime": stamp(2),
        "completionTime": stamp(60),
        "queuedSeconds": 12,
        "durationSeconds": 58,
        "outputs": OUTPUTS,
    }
    assert {k: world.status[k] for k in expected} == expected
    [attempt] = world.status["attempts"]
    expected = {
        "number": 1,
        "job": JOB,
        "pod": "first-1-abcde",
        "node": "node-1",
        "finishTime": stamp(60),
        "reason": "Succeeded",
    }
    assert {k: attempt[k] for k in expected} == expected
    assert "failure" not in world.status
    assert world.events == []


def test_a_run_that_fails_says_why_and_what_is_stored() -> None:
    world = runs()
    pod_fails(world, JOB)
    world.settle()
    assert world.condition == ("False", "NotebookError", "it is NotebookError")
    assert world.status["phase"] == "Failed"
    assert world.status["failure"] == {"reason": "NotebookError", "exitCode": 1}
    assert world.status["outputs"] == {"notebook": "s3://b/notebook.ipynb"}
    assert [(e.type, e.reason) for e in world.events] == [("Warning", "NotebookError")]


@pytest.mark.parametrize(
    ("courier", "outputs"),
    [
        (terminated(0, ALL_STORED), OUTPUTS),
        (
            terminated(0, courier_says("result.json", "notebook.ipynb")),
            {k: OUTPUTS[k] for k in ("notebook", "result")},
        ),
        (terminated(1, courier_says(error="HTTP 403")), None),
        (terminated(137), None),
    ],
)
def test_outputs_name_only_what_lies_in_the_store(courier: Any, outputs: Any) -> None:
    world = runs()
    said = runner_says("NotebookError")
    world.pods[JOB] = make_pod(
        world.jobs[JOB], phase="Failed", notebook=terminated(1, said), courier=courier
    )
    world.settle()
    assert world.status.get("outputs") == outputs


def test_a_run_whose_job_vanished_says_so_in_the_end() -> None:
    world = runs()
    for number in range(1, 8):
        job_gone(world, f"first-{number}")
        world.settle()
        if world.run.is_finished:
            break
        world.seconds += 60
        world.settle()
        pod_runs(world, world.job)
        world.settle()
    assert world.condition[:2] == ("False", "Disrupted")
    assert len(world.status["attempts"]) == 6, "the first and five for disruptions"


def test_a_run_is_deleted_so_long_after_its_end_as_it_says() -> None:
    world = runs(workflowRef={"name": "report"}, ttlSecondsAfterFinished=100)
    world.seconds = 60
    pod_succeeds(world, JOB)
    world.settle()
    assert world.decide().requeue_after == 100
    world.seconds = 159
    assert world.settle() == []
    world.seconds = 160
    plan = world.decide()
    assert [(r.kind, r.name, r.uid) for r in plan.delete] == [
        ("Run", "first", world.obj["metadata"]["uid"])
    ]


def test_a_run_without_a_ttl_stays() -> None:
    world = runs()
    pod_succeeds(world, JOB)
    world.settle()
    world.seconds = 10**8
    plan = world.decide()
    assert (plan.delete, plan.requeue_after) == ((), None)


# --- cancelling ----------------------------------------------------------------------------------


def cancelled(world: RunWorld) -> None:
    assert world.status["phase"] == "Cancelled"
    assert world.condition[:2] == ("False", "Cancelled")
    assert world.condition[2].startswith("cancelled by spec.cancel")
    assert world.status["failure"]["reason"] == "Cancelled"
    assert status_errors("Run", world.status) == []
    assert world.settle() == []


def test_cancel_before_anything_starts_nothing() -> None:
    world = RunWorld(workflowRef={"name": "report"}, cancel=True)
    assert world.settle() == ["status"]
    cancelled(world)


def test_cancel_at_a_closed_gate_ends_the_run() -> None:
    world = RunWorld()
    world.project = None
    world.settle()
    world.edit(cancel=True)
    assert world.settle() == ["status"]
    cancelled(world)


@pytest.mark.parametrize("before", [None, pod_pending, pod_cannot_pull])
def test_cancel_before_the_notebook_runs_deletes_the_job(before: Any) -> None:
    world = started()
    if before:
        before(world, JOB)
    world.edit(cancel=True)
    assert f"delete Job {JOB}" in world.settle()
    world.pods.clear()
    world.settle()
    cancelled(world)


def test_cancel_of_a_running_notebook_waits_for_what_it_stores() -> None:
    world = runs()
    world.edit(cancel=True)
    assert world.settle() == [f"delete Job {JOB}", "status"]
    assert world.condition == (
        "Unknown",
        "Cancelling",
        "stopping the notebook and storing it as it is",
    )
    world.seconds = 20
    assert world.settle() == []
    world.pods[JOB] = make_pod(
        None,
        phase="Failed",
        notebook=terminated(143, runner_says("Cancelled", message="stopped")),
        courier=terminated(0, ALL_STORED),
    )
    world.pods[JOB]["metadata"]["labels"] = {"labfunctions.io/attempt": "1"}
    world.settle()
    cancelled(world)
    assert world.status["outputs"] == OUTPUTS


def test_cancel_of_a_notebook_whose_pod_is_gone_ends_the_run() -> None:
    world = runs()
    world.edit(cancel=True)
    world.settle()
    world.pods.clear()
    world.settle()
    cancelled(world)


def test_cancel_comes_too_late_for_a_notebook_that_has_ended() -> None:
    world = runs()
    pod_succeeds(world, JOB)
    world.edit(cancel=True)
    world.settle()
    assert world.status["phase"] == "Succeeded"
    world.edit(cancel=True)
    assert world.settle() == []


def test_cancel_of_an_evicted_run_is_not_retried() -> None:
    world = runs()
    pod_evicted(world, JOB)
    world.edit(cancel=True)
    world.settle()
    world.pods.clear()
    world.settle()
    cancelled(world)


def test_cancel_between_two_attempts_starts_no_other() -> None:
    world = runs(workflowRef={"name": "report"}, retries={"limit": 2})
    pod_fails(world, JOB)
    world.settle()
    assert world.condition[1] == "Retrying"
    world.edit(cancel=True)
    world.seconds += 60
    world.settle()
    assert list(world.jobs) == [JOB]
    assert world.run.is_finished


def test_cancel_of_a_new_run_says_nothing_of_an_older_one_of_its_name() -> None:
    world = RunWorld(workflowRef={"name": "report"}, cancel=True)
    world.pods[JOB] = make_pod(
        None,
        phase="Succeeded",
        notebook=terminated(0, runner_says()),
        courier=terminated(0, ALL_STORED),
    )
    world.pods[JOB]["metadata"]["labels"] = {"labfunctions.io/attempt": "1"}
    world.settle()
    assert world.status["phase"] == "Cancelled"


# --- retries -------------------------------------------------------------------------------------


def test_a_failed_attempt_is_tried_again_when_it_is_due() -> None:
    world = runs(workflowRef={"name": "report"}, retries={"limit": 1})
    world.seconds = 60
    pod_fails(world, JOB)
    assert world.settle() == ["status"]
    assert world.condition == (
        "Unknown",
        "Retrying",
        f"attempt 1 failed with NotebookError: it is NotebookError; retry 1 of 1 at {stamp(70)}",
    )
    assert world.decide().requeue_after == 10
    world.seconds = 70
    assert world.settle()[0] == "create Job first-2"
    pod_fails(world, "first-2")
    world.settle()
    assert world.status["phase"] == "Failed"
    assert [a["reason"] for a in world.status["attempts"]] == ["NotebookError"] * 2


def test_a_second_job_that_vanishes_is_not_taken_for_the_first() -> None:
    world = runs(workflowRef={"name": "report"}, retries={"limit": 1})
    pod_fails(world, JOB)
    world.settle()
    world.seconds += 60
    world.settle()
    pod_runs(world, "first-2")
    world.settle()
    job_gone(world, "first-2")
    world.settle()
    assert [a["reason"] for a in world.status["attempts"]] == ["NotebookError", "Disrupted"]
    world.seconds += 60
    assert world.settle()[0] == "create Job first-3"


def test_an_attempt_that_ran_out_of_memory_gets_more() -> None:
    world = runs(
        workflowRef={"name": "report"},
        resources={"limits": {"memory": "1Gi"}},
        retries={"limit": 3, "memory": {"factor": 2, "max": "3Gi"}},
    )
    for number in (1, 2, 3):
        world.seconds += 60
        pod_out_of_memory(world, f"first-{number}")
        world.settle()
        world.seconds += 600
        world.settle()
    limits = [
        job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
        for job in world.jobs.values()
    ]
    assert limits == ["1Gi", "2048Mi", "3072Mi", "3072Mi"]


def test_a_disruption_is_retried_without_being_asked() -> None:
    world = runs()
    pod_evicted(world, JOB)
    world.settle()
    world.seconds += 10
    assert "create Job first-2" in world.settle()
    pod_succeeds(world, "first-2")
    world.settle()
    assert world.condition[:2] == ("True", "Succeeded")
    assert "failure" not in world.status
