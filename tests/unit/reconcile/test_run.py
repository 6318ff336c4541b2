import pytest
from objects import (
    COMMIT,
    created,
    ended,
    held,
    make_pod,
    make_workflow,
    runner_says,
    running,
    stamp,
    terminated,
)
from run_world import IMAGE, JOB, RunWorld, ready_project, runs, started
from world import (
    job_gone,
    pod_cannot_pull,
    pod_gone,
    pod_pending,
    pod_runs,
    pod_succeeds,
    pod_unschedulable,
)

from labfunctions_operator.api.run import Progress


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


def test_a_pod_that_starts_soon_costs_one_write_from_nothing_to_running() -> None:
    world = started()
    assert world.decide().requeue_after == 4
    world.seconds = 1
    pod_pending(world, JOB)
    assert world.settle() == []
    world.seconds = 2
    pod_runs(world, JOB)
    assert world.settle() == ["status"]
    assert world.condition == ("Unknown", "Running", "starting the kernel")
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
    assert world.decide().requeue_after == 10


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


@pytest.mark.parametrize("started_at", ["1970-01-01T00:00:00Z", None])
def test_a_container_that_ended_without_a_start_has_not_run_for_too_long(
    started_at: str | None,
) -> None:
    """The courier may live on for a while."""
    world = started()
    failed = terminated(128, "exec: /bin/sh: no such file", reason="StartError")
    failed["terminated"]["startedAt"] = started_at
    world.pods[JOB] = make_pod(world.jobs[JOB], phase="Running", notebook=failed)
    assert world.settle() == []
    world.pods[JOB] = make_pod(world.jobs[JOB], phase="Failed", notebook=failed)
    world.settle()
    assert world.condition[:2] == ("False", "StartError")
    assert "no such file" in world.condition[2]
    assert "durationSeconds" not in world.status


def test_a_kernel_starts_until_the_first_cell_is_told_of() -> None:
    world = runs()
    assert world.condition[2] == "starting the kernel"
    assert world.decide().requeue_after == 120
    world.progress = Progress(cell=1, cells=20, name="n", summary="1/20")
    assert world.settle() == ["status"]
    assert world.condition[2] == "the notebook is running"


def test_a_notebook_whose_courier_cannot_report_is_not_said_to_start_for_ever() -> None:
    world = runs()
    world.seconds = 122
    assert world.settle() == ["status"]
    assert world.condition[2] == "the notebook is running"
    world.seconds = 600
    assert world.settle() == []


def test_a_restart_forgets_no_progress() -> None:
    world = runs()
    world.progress = Progress(cell=1, cells=20)
    world.settle()
    world.restart()
    assert world.settle() == []


def test_a_notebook_that_its_runner_does_not_end_is_stopped() -> None:
    world = runs(workflowRef={"name": "report"}, timeoutSeconds=100)
    world.seconds = 130
    assert world.settle() == ["status"]
    world.seconds = 161
    assert world.settle() == []
    world.seconds = 162
    assert world.settle() == ["status", f"delete Job {JOB}"]
    assert world.condition[1] == "Stopping"
    pod_gone(world, JOB)
    world.settle()
    assert world.condition[:2] == ("False", "TimedOut")
    assert world.status["phase"] == "Failed"


def test_a_run_that_has_run_does_not_wait_for_its_start_while_its_end_is_seen() -> None:
    """The pod is gone, and its Job says so a moment later."""
    world = runs(workflowRef={"name": "report"}, pendingTimeoutSeconds=600)
    world.seconds = 1000
    world.pods.clear()
    assert world.settle() == []
    assert world.decide().requeue_after == 5
    world.jobs[JOB] = ended(world.jobs[JOB], "Failed", 1000)
    world.settle()
    assert world.condition[:2] == ("Unknown", "Retrying")
