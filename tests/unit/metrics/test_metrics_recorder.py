"""What is counted: each change once, by the write that made it."""

import asyncio
from typing import Any

import pytest
from objects import make_object, stamp
from scrape import Object, Scraped, make_run, make_stored_workflow

from labfunctions_operator.api import labels
from labfunctions_operator.desired.names import build_job_name
from labfunctions_operator.errors import Denied
from labfunctions_operator.metrics import catalog
from labfunctions_operator.reconcile.plan import Key

REPORT = {"namespace": "team", "workflow": "report"}
RUNNING = {"phase": "Running", "queuedSeconds": 4}
DONE = {"phase": "Succeeded", "queuedSeconds": 4, "durationSeconds": 90}


def ended(reason: str, number: int = 1) -> Object:
    return {"number": number, "job": f"r-{number}", "reason": reason, "finishTime": stamp()}


def test_run_is_counted_when_it_ends_and_its_times_when_they_are_known() -> None:
    scraped = Scraped(make_stored_workflow())
    metrics = scraped.metrics
    metrics.status_written(make_run("r"), make_run("r", **RUNNING))
    assert scraped.value("run_queued_seconds_sum", **REPORT) == 4
    assert scraped.samples("runs_ended_total") == {}
    metrics.status_written(make_run("r", **RUNNING), make_run("r", **DONE))
    assert scraped.samples("runs_ended_total") == {("team", "report", "Succeeded"): 1}
    assert scraped.value("run_duration_seconds_sum", **REPORT) == 90
    assert scraped.value("run_queued_seconds_count", **REPORT) == 1


def test_run_that_had_ended_before_is_not_counted_again() -> None:
    scraped = Scraped(make_stored_workflow())
    changed = make_run("r", **DONE, observedGeneration=2)
    scraped.metrics.status_written(make_run("r", **DONE), changed)
    assert scraped.samples("runs_ended_total") == {}
    assert scraped.samples("run_duration_seconds_count") == {}


def test_failures_and_attempts_are_counted_by_reason() -> None:
    scraped = Scraped(make_stored_workflow())
    first = make_run("r", phase="Pending", attempts=[ended("OutOfMemory")])
    second = make_run(
        "r",
        phase="Failed",
        attempts=[ended("OutOfMemory"), ended("NotebookError", 2)],
        failure={"reason": "NotebookError"},
    )
    scraped.metrics.status_written(make_run("r", **RUNNING), first)
    scraped.metrics.status_written(first, second)
    assert scraped.samples("run_attempts_total") == {
        ("team", "report", "OutOfMemory"): 1,
        ("team", "report", "NotebookError"): 1,
    }
    assert scraped.samples("run_failures_total") == {("team", "report", "NotebookError"): 1}
    assert scraped.samples("runs_ended_total") == {("team", "report", "Failed"): 1}


def test_reason_that_an_image_made_up_has_no_series_of_its_own() -> None:
    scraped = Scraped(make_stored_workflow())
    for number in range(50):
        run = make_run(f"r{number}", phase="Failed", failure={"reason": f"Reason{number}"})
        scraped.metrics.status_written(make_run(f"r{number}"), run)
    assert scraped.samples("run_failures_total") == {("team", "report", "_other"): 50}


@pytest.mark.parametrize(("workflow", "label"), [(None, ""), ("nowhere", "_other")])
def test_run_without_a_workflow_that_exists(workflow: str | None, label: str) -> None:
    scraped = Scraped()
    scraped.metrics.status_written(make_run("r", workflow), make_run("r", workflow, **DONE))
    assert scraped.samples("runs_ended_total") == {("team", label, "Succeeded"): 1}


def test_workflows_beyond_the_limit_share_a_label() -> None:
    count = catalog.WORKFLOW_LIMIT + 5
    scraped = Scraped(*(make_stored_workflow(f"w{n}") for n in range(count)))
    for n in range(count):
        scraped.metrics.status_written(make_run("r", f"w{n}"), make_run("r", f"w{n}", **DONE))
    found = scraped.samples("runs_ended_total")
    assert len(found) == catalog.WORKFLOW_LIMIT + 1
    assert found["team", "_other", "Succeeded"] == 5


def test_series_of_what_is_gone_are_dropped_and_make_room() -> None:
    scraped = Scraped(make_stored_workflow(), make_stored_workflow("kept"))
    for name in ("report", "kept"):
        scraped.metrics.status_written(make_run("r", name), make_run("r", name, **DONE))
    scraped.metrics.source_read(Key("Project", "gone", "p"), "Succeeded", 0.2)
    cache = scraped.caches["Workflow"]
    held = cache.get("team", "report")
    assert held is not None
    cache.remove(held)
    scraped.metrics.forget_gone({"team"})
    assert scraped.samples("runs_ended_total") == {("team", "kept", "Succeeded"): 1}
    assert scraped.samples("run_duration_seconds_count") == {("team", "kept"): 1}
    assert scraped.samples("source_reads_total") == {}


def build_job(inputs: str, *, end: str) -> Object:
    job = make_object("Job", build_job_name("wine", "default", inputs), {})
    job["metadata"]["labels"] = {labels.PROJECT: "wine"}
    job["metadata"]["creationTimestamp"] = stamp()
    job["status"] = {
        "conditions": [{"type": end, "status": "True", "lastTransitionTime": stamp(75)}]
    }
    return job


def wine(runtime: Object | None = None, versions: tuple[str, ...] = ()) -> Object:
    status: Object = {
        "runtimes": [{"name": "default", "phase": "Building", **(runtime or {})}],
        "versions": [
            {"runtime": "default", "inputsHash": inputs, "image": "i@sha256:1"}
            for inputs in versions
        ],
    }
    return make_object("Project", "wine", {}, status)


def test_builds_are_counted_with_their_time() -> None:
    scraped = Scraped(wine(), build_job("a", end="Complete"), build_job("b", end="Failed"))
    written = scraped.metrics.status_written
    written(wine(), wine(versions=("a",)))
    written(wine(versions=("a",)), wine({"message": "waits"}, versions=("a",)))
    failed = wine({"failedHash": "b", "failures": 1}, versions=("a",))
    again = wine({"failedHash": "b", "failures": 2}, versions=("a",))
    written(wine(versions=("a",)), failed)
    written(failed, failed)
    written(failed, again)
    assert scraped.samples("builds_total") == {
        ("team", "wine", "Succeeded"): 1,
        ("team", "wine", "Failed"): 2,
    }
    assert scraped.samples("build_duration_seconds_sum") == {("team", "wine"): 3 * 75}


async def test_reconciliations_are_counted_by_kind_and_result() -> None:
    async def reconcile(key: Key) -> float | None:
        if key.name == "bad":
            raise Denied("not granted")
        return 7.0

    scraped = Scraped()
    measured = scraped.metrics.timed(reconcile)
    assert await measured(Key("Run", "team", "good")) == 7.0
    with pytest.raises(Denied):
        await measured(Key("Run", "team", "bad"))
    assert scraped.samples("reconciles_total") == {("Run", "Succeeded"): 1, ("Run", "Denied"): 1}
    assert scraped.value("reconcile_duration_seconds_count", kind="Run") == 2


async def test_reconciliation_that_is_ended_from_outside_is_counted() -> None:
    async def reconcile(key: Key) -> float | None:
        await asyncio.Event().wait()
        return None

    scraped = Scraped()
    task = asyncio.ensure_future(scraped.metrics.timed(reconcile)(Key("Run", "team", "r")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert scraped.samples("reconciles_total") == {("Run", "TimedOut"): 1}


@pytest.mark.parametrize(
    ("call", "family", "labels"),
    [
        (("node_group_written", "gpu", "Failed"), "node_group_writes_total", ("gpu", "Failed")),
        (("event", "Limited"), "events_total", ("Limited",)),
        (
            ("message_ended", "team", "Failed", "slack", "Sent"),
            "notifications_total",
            ("team", "Failed", "slack", "Sent"),
        ),
    ],
)
def test_what_others_tell(call: tuple[str, ...], family: str, labels: tuple[str, ...]) -> None:
    scraped = Scraped()
    method: Any = getattr(scraped.metrics, call[0])
    method(*call[1:])
    assert scraped.samples(family) == {labels: 1}
