import json
from typing import Any

import pytest
from crd_schema import status_errors
from hypothesis import given
from objects import at, make_object, stamp
from run_world import JOB, runs
from test_run_properties import histories
from world import pod_succeeds

from labfunctions_operator.reconcile.record import (
    build_record,
    last_status,
    needs_record,
    with_record,
)

ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"


def condition(status: Any) -> Any:
    [found] = [c for c in status["conditions"] if c["type"] == "Recorded"]
    return found


def test_a_run_needs_a_record_once_it_has_ended() -> None:
    world = runs()
    assert not needs_record(None)
    assert not needs_record(world.status)
    world.seconds = 60
    pod_succeeds(world, JOB)
    world.settle()
    assert needs_record(world.status)
    failed = with_record(world.status, 1, at(60), problem="it is down")
    assert needs_record(failed)
    assert not needs_record(with_record(failed, 1, at(70), uri="s3://b/run.json"))


def test_the_record_joins_all_that_is_known_of_the_run() -> None:
    world = runs()
    pod_succeeds(world, JOB)
    world.settle()
    world.obj["metadata"]["labels"] = {"team": "wine"}
    world.obj["metadata"]["annotations"] = {ANNOTATION: "{}", "note": "kept"}
    status = with_record(world.status, 1, at(60), uri="s3://b/run.json")
    record = build_record(world.obj, status, project="demo", workflow="report")
    uid = world.obj["metadata"]["uid"]
    assert record.key == f"team/demo/report/first-{uid[:8]}/run.json"
    content = json.loads(json.dumps(record.content))
    assert content["metadata"]["annotations"] == {"note": "kept"}
    assert content["metadata"]["labels"] == {"team": "wine"}
    assert content["spec"] == world.obj["spec"]
    kept = content["status"]
    assert {"commit", "image", "requirementsHash", "notebookSha256"} <= set(kept["snapshot"])
    assert kept["attempts"][0]["node"] == "node-1"
    assert kept["outputs"]["etags"]["notebook"] == "tag-notebook.ipynb"
    assert kept["outputs"]["record"] == "s3://b/run.json"


def test_a_run_that_is_deleted_while_it_runs_has_failed_with_that() -> None:
    world = runs()
    status = last_status({**world.obj, "status": world.status}, at(60))
    assert status is not None
    assert status["attempts"] == world.status["attempts"]
    assert (status["phase"], status["failure"]) == ("Failed", {"reason": "Deleted"})
    assert status["completionTime"] == stamp(60)
    [said] = [c for c in status["conditions"] if c["type"] == "Succeeded"]
    assert (said["status"], said["message"]) == ("False", f"deleted while {world.status['phase']}")
    assert not status_errors("Run", status)


@pytest.mark.parametrize("status", [None, {"phase": "Queued", "conditions": []}])
def test_a_deleted_run_that_had_not_begun_leaves_no_record(status: Any) -> None:
    assert last_status(make_object("Run", "first", {}, status), at(60)) is None


def test_a_deleted_run_that_had_ended_is_recorded_as_it_ended() -> None:
    world = runs()
    pod_succeeds(world, JOB)
    world.settle()
    assert last_status({**world.obj, "status": world.status}, at(60)) == world.status
    stored = with_record(world.status, 1, at(60), uri="s3://b/run.json")
    assert last_status({**world.obj, "status": stored}, at(60)) is None


def test_a_run_without_workflow_lies_under_adhoc() -> None:
    obj = make_object("Run", "first", {})
    record = build_record(obj, {"phase": "Failed"}, project="demo", workflow=None)
    assert record.key.startswith("team/demo/adhoc/first-")


def test_trying_again_changes_no_word() -> None:
    ended = {"phase": "Failed", "conditions": []}
    once = with_record(ended, 1, at(0), problem="connection refused")
    twice = with_record(once, 1, at(500), problem="timed out")
    assert twice == once
    assert "connection refused" in condition(once)["message"]
    stored = with_record(twice, 1, at(600), uri="s3://b/run.json")
    assert (condition(stored)["status"], condition(stored)["lastTransitionTime"]) == (
        "True",
        stamp(600),
    )


@given(world=histories())
def test_whatever_a_run_is_its_record_can_be_made(world: Any) -> None:
    world.settle()
    if needs_record(world.status):
        status = with_record(world.status, 1, at(0), uri="s3://b/run.json")
        assert status_errors("Run", status) == []
        json.dumps(build_record(world.obj, status, project="p", workflow=None).content)
