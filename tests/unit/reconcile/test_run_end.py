from typing import Any

import pytest
from objects import (
    ALL_STORED,
    at,
    courier_says,
    make_pod,
    make_workflow,
    runner_says,
    stamp,
    terminated,
)
from run_world import JOB, OUTPUTS, RunWorld, outputs, runs, started
from world import (
    job_gone,
    pod_evicted,
    pod_fails,
    pod_out_of_memory,
    pod_pending,
    pod_runs,
    pod_shut_down,
    pod_succeeds,
)

from labfunctions_operator.reconcile.record import with_record


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
    assert world.status["outputs"] == outputs("notebook")
    assert [(e.type, e.reason) for e in world.events] == [("Warning", "NotebookError")]


@pytest.mark.parametrize(
    ("courier", "expected"),
    [
        (terminated(0, ALL_STORED), OUTPUTS),
        (
            terminated(0, courier_says("result.json", "notebook.ipynb")),
            outputs("notebook", "result"),
        ),
        (terminated(1, courier_says(error="HTTP 403")), None),
        (terminated(137), None),
        (terminated(137, reason="ContainerStatusUnknown"), {"notebook": "s3://b/notebook.ipynb"}),
    ],
)
def test_outputs_name_only_what_lies_in_the_store(courier: Any, expected: Any) -> None:
    world = runs()
    said = runner_says("NotebookError")
    world.pods[JOB] = make_pod(
        world.jobs[JOB], phase="Failed", notebook=terminated(1, said), courier=courier
    )
    world.settle()
    assert world.status.get("outputs") == expected


CHECKPOINT = {"notebook": "s3://b/notebook.ipynb"}


def pod_on_a_lost_node(world: RunWorld) -> None:
    pod_runs(world, JOB)
    world.pods[JOB]["metadata"]["deletionTimestamp"] = stamp(20)
    world.node_silent = True
    world.seconds = 60


def test_of_a_lost_node_only_a_checkpoint_is_named() -> None:
    world = runs()
    pod_on_a_lost_node(world)
    world.settle()
    assert world.condition[1] == "Retrying"
    assert world.status["outputs"] == CHECKPOINT
    assert world.status["attempts"][0]["notebook"] == CHECKPOINT["notebook"]


def test_a_checkpoint_is_named_whatever_the_reason_of_the_end() -> None:
    world = runs(workflowRef={"name": "report"}, timeoutSeconds=100)
    world.seconds = 162
    world.settle()
    world.jobs.clear()
    pod_on_a_lost_node(world)
    world.seconds = 200
    world.settle()
    assert world.condition[:2] == ("False", "TimedOut")
    assert world.status["outputs"] == CHECKPOINT


def test_an_evicted_pod_of_whose_containers_nothing_is_known_may_have_left_a_checkpoint() -> None:
    world = runs()
    pod_evicted(world, JOB)
    world.settle()
    assert world.status["outputs"] == CHECKPOINT


@pytest.mark.parametrize("end", [pod_evicted, job_gone])
def test_an_attempt_that_never_started_names_no_outputs(end: Any) -> None:
    world = started()
    pod_pending(world, JOB)
    world.seconds = 10
    world.settle()
    end(world, JOB)
    world.settle()
    assert world.condition[1] == "Retrying"
    assert "outputs" not in world.status
    assert "notebook" not in world.status["attempts"][0]


def test_the_runner_says_which_notebook_ran_where_nobody_else_can() -> None:
    world = RunWorld()
    world.source = None
    world.settle()
    said = runner_says(notebookSha256="0a" * 32)
    world.pods[JOB] = make_pod(
        world.jobs[JOB],
        phase="Succeeded",
        notebook=terminated(0, said),
        courier=terminated(0, ALL_STORED),
    )
    world.settle()
    assert world.status["snapshot"]["notebookSha256"] == "0a" * 32


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


def record(world: RunWorld) -> None:
    """Say that the Run's record is in the store, as the archive does."""
    world.obj = {**world.obj, "status": with_record(world.status, 1, at(60), uri="s3://b/run.json")}


def test_a_run_is_deleted_so_long_after_its_end_as_it_says() -> None:
    world = runs(workflowRef={"name": "report"}, ttlSecondsAfterFinished=100)
    world.seconds = 60
    pod_succeeds(world, JOB)
    world.settle()
    assert world.decide().requeue_after == 100
    world.seconds = 159
    assert world.settle() == []
    world.seconds = 160
    assert world.settle() == [], "its record is not in the store yet"
    record(world)
    plan = world.decide()
    assert [(r.kind, r.name, r.uid) for r in plan.delete] == [
        ("Run", "first", world.obj["metadata"]["uid"])
    ]


def test_a_run_takes_its_ttl_from_the_workflow_as_it_was() -> None:
    world = RunWorld()
    world.workflow = make_workflow(ttlSecondsAfterFinished=100)
    world.settle()
    pod_succeeds(world, JOB)
    world.settle()
    record(world)
    world.workflow = make_workflow(ttlSecondsAfterFinished=1)
    assert world.decide().requeue_after == 100
    world.edit(ttlSecondsAfterFinished=50)
    assert world.decide().requeue_after == 50


def test_a_run_without_a_ttl_stays() -> None:
    world = runs()
    pod_succeeds(world, JOB)
    world.settle()
    world.seconds = 10**8
    plan = world.decide()
    assert (plan.delete, plan.requeue_after) == ((), None)


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
        assert not world.run.is_finished
        world.seconds += 60
        pod_out_of_memory(world, f"first-{number}")
        world.settle()
        world.seconds += 600
        world.settle()
    limits = [
        job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
        for job in world.jobs.values()
    ]
    assert limits == ["1Gi", "2048Mi", "3072Mi"]
    assert world.condition[:2] == ("False", "OutOfMemory")
    assert world.condition[2].endswith(
        "; not tried again: 3072Mi of memory cannot grow any more, as retries.memory.max is 3Gi"
        " (attempt 3)"
    )


def test_a_node_that_is_shut_down_costs_no_retry_and_is_told_as_what_it_is() -> None:
    world = runs()
    pod_shut_down(world, JOB)
    world.settle()
    assert world.condition[:2] == ("Unknown", "Retrying")
    assert world.condition[2].startswith(
        "attempt 1 failed with Disrupted: ended because its node was shut down; disruption 1 of 5"
    )


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
