"""What is read at a scrape: the truth of the caches, whatever lies in them."""

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from objects import NOW, make_object, stamp
from prometheus_client import generate_latest
from scrape import Object, Scraped, make_run, make_stored_workflow

from labfunctions_operator.metrics import catalog

SECOND = timedelta(seconds=1)


def seconds(offset: float) -> float:
    return NOW.timestamp() + offset


def of_group(run: Object, group: str) -> Object:
    return {**run, "spec": {**run["spec"], "nodeGroup": group}}


def test_live_runs_by_phase_workflow_and_node_group() -> None:
    scraped = Scraped(
        make_stored_workflow(),
        make_object("NodeGroup", "gpu", {}, namespace=""),
        make_run("a"),
        make_run("b", phase="Running"),
        of_group(make_run("c", phase="Queued"), "gpu"),
        of_group(make_run("d", phase="Queued"), "typo"),
        make_run("e", None, phase="Running"),
        make_run("f", "nowhere", phase="Pending"),
        make_run("g", phase="Succeeded"),
        make_run("h", phase="Sleeping"),
    )
    assert scraped.samples("runs") == {
        ("team", "report", "", "Pending"): 1,
        ("team", "report", "", "Running"): 1,
        ("team", "report", "gpu", "Queued"): 1,
        ("team", "report", "_other", "Queued"): 1,
        ("team", "", "", "Running"): 1,
        ("team", "_other", "", "Pending"): 1,
        ("team", "report", "", "_other"): 1,
    }


def test_oldest_waiting_run() -> None:
    young = make_run("young", phase="Starting")
    old = make_run("old", phase="Pending")
    old["metadata"]["creationTimestamp"] = stamp(-500)
    running = make_run("running", phase="Running")
    running["metadata"]["creationTimestamp"] = stamp(-900)
    scraped = Scraped(young, old, running)
    since = scraped.value("runs_waiting_since_timestamp_seconds", namespace="team", node_group="")
    assert since == seconds(-500)


def test_last_result_of_a_workflow_is_that_of_the_run_that_ended_last() -> None:
    scraped = Scraped(
        make_stored_workflow(),
        make_stored_workflow("mended"),
        make_stored_workflow("new"),
        make_run("a", phase="Succeeded", completionTime=stamp(10)),
        make_run("b", phase="Failed", completionTime=stamp(20)),
        make_run("c", phase="Cancelled", completionTime=stamp(30)),
        make_run("d", "mended", phase="Failed", completionTime=stamp(10)),
        make_run("h", phase="Succeeded", completionTime=stamp(20)),
        make_run("e", "mended", phase="Succeeded", completionTime=stamp(20)),
        make_run("f", "nowhere", phase="Failed", completionTime=stamp(20)),
        make_run("g", None, phase="Failed", completionTime=stamp(20)),
    )
    assert scraped.samples("workflow_last_run_succeeded") == {
        ("team", "report"): 0,
        ("team", "mended"): 1,
    }
    assert scraped.samples("workflow_last_success_timestamp_seconds") == {
        ("team", "report"): seconds(20),
        ("team", "mended"): seconds(20),
    }


def test_what_a_workflow_remembers_outlives_its_runs() -> None:
    cancelled = {"type": "LastRunSucceeded", "status": "False", "reason": "Cancelled"}
    scraped = Scraped(
        make_stored_workflow(lastSuccessfulTime=stamp(-100), lastFailedTime=stamp(-50)),
        make_stored_workflow("fine", lastSuccessfulTime=stamp(-100), conditions=[cancelled]),
    )
    assert scraped.samples("workflow_last_run_succeeded") == {
        ("team", "report"): 0,
        ("team", "fine"): 1,
    }
    assert scraped.samples("workflow_last_success_timestamp_seconds") == {
        ("team", "report"): seconds(-100),
        ("team", "fine"): seconds(-100),
    }


def test_schedule_of_a_workflow() -> None:
    scraped = Scraped(
        make_stored_workflow(lastScheduleTime=stamp(-3600), nextScheduleTime=stamp(-40), missed=3),
        make_stored_workflow("in-time", nextScheduleTime=stamp(60)),
        make_stored_workflow("unscheduled"),
    )
    report = {"namespace": "team", "workflow": "report"}
    assert scraped.value("workflow_last_schedule_timestamp_seconds", **report) == seconds(-3600)
    assert scraped.value("workflow_next_schedule_timestamp_seconds", **report) == seconds(-40)
    assert scraped.samples("workflow_missed_schedules") == {
        ("team", "report"): 3,
        ("team", "in-time"): 0,
    }
    assert scraped.samples("workflow_schedule_lag_seconds") == {
        ("team", "report"): 40,
        ("team", "in-time"): 0,
    }


@pytest.mark.parametrize(
    ("scheduler", "policy", "active", "lag"),
    [
        ("CronJob", "Forbid", [{"name": "report-1"}], 0),
        ("CronJob", "Forbid", [], 400),
        ("CronJob", "Allow", [{"name": "report-1"}], 400),
        ("Operator", "Forbid", [{"name": "report-1"}], 400),
    ],
)
def test_a_cron_job_that_waits_for_a_live_run_is_not_late(
    scheduler: str, policy: str, active: list[Object], lag: float
) -> None:
    workflow = make_stored_workflow(nextScheduleTime=stamp(-400), active=active)
    workflow["spec"] |= {"scheduler": scheduler, "concurrencyPolicy": policy}
    scraped = Scraped(workflow)
    assert scraped.samples("workflow_schedule_lag_seconds") == {("team", "report"): lag}


def test_images_by_phase() -> None:
    runtimes = [{"name": "a", "phase": "Ready"}, {"name": "b", "phase": "Failed"}]
    scraped = Scraped(make_object("Project", "wine", {}, {"runtimes": runtimes}))
    assert scraped.samples("project_images") == {
        ("team", "wine", "Pending"): 0,
        ("team", "wine", "Building"): 0,
        ("team", "wine", "Ready"): 1,
        ("team", "wine", "Failed"): 1,
    }


def test_node_groups() -> None:
    status = {"min": 0, "max": 4, "desired": 2, "ready": 1, "busy": None, "pendingRuns": 3}
    scraped = Scraped(make_object("NodeGroup", "gpu", {}, status, namespace=""))
    assert scraped.samples("node_group_nodes") == {
        ("gpu", "min"): 0,
        ("gpu", "max"): 4,
        ("gpu", "desired"): 2,
        ("gpu", "ready"): 1,
    }
    assert scraped.samples("node_group_pending_runs") == {("gpu",): 3}


def test_workflows_beyond_the_limit_share_the_worst_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "WORKFLOW_LIMIT", 1)
    monkeypatch.setattr(catalog, "PROJECT_LIMIT", 1)
    failed, due = {"lastFailedTime": stamp(5)}, {"nextScheduleTime": stamp(-90)}
    scraped = Scraped(
        make_stored_workflow("a", lastSuccessfulTime=stamp(), missed=1),
        make_stored_workflow("b", lastSuccessfulTime=stamp(), missed=2, **failed),
        make_stored_workflow("c", lastSuccessfulTime=stamp(9), missed=4, **due),
        *(make_object("Project", n, {}, {"runtimes": [{"phase": "Ready"}]}) for n in "abc"),
    )
    own, others = ("team", "a"), ("team", "_other")
    assert scraped.samples("workflow_last_run_succeeded") == {own: 1, others: 0}
    assert scraped.samples("workflow_last_success_timestamp_seconds") == {
        own: seconds(0),
        others: seconds(0),
    }
    assert scraped.samples("workflow_missed_schedules") == {own: 1, others: 6}
    assert scraped.samples("workflow_schedule_lag_seconds") == {others: 90}
    assert scraped.value("project_images", namespace="team", project="_other", phase="Ready") == 2


def test_queue_and_requests() -> None:
    scraped = Scraped()
    assert scraped.value("queue_depth") == 2
    assert scraped.value("queue_later") == 3
    assert scraped.value("queue_oldest_seconds") == 1.5
    assert scraped.samples("api_requests_total") == {("get", "200"): 4, ("create", "0"): 1}
    assert scraped.value("objects", kind="Run") == 0


WORD = st.sampled_from(
    [
        "phase",
        "type",
        "status",
        "name",
        "workflow",
        "nodeGroup",
        "completionTime",
        "snapshot",
        "lastSuccessfulTime",
        "lastFailedTime",
        "missed",
        "nextScheduleTime",
        "lastScheduleTime",
        "conditions",
        "runtimes",
        "nodes",
        "LastRunSucceeded",
        "Failed",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, max_size=4),
    max_leaves=8,
)


@given(kind=st.sampled_from(["Run", "Workflow", "Project", "NodeGroup"]), status=JSON)
def test_nothing_in_a_status_ends_a_scrape(kind: str, status: Any) -> None:
    odd = {**make_object(kind, "any", {}), "status": status}
    scraped = Scraped(make_stored_workflow("a"), odd)
    assert generate_latest(scraped.registry)


@pytest.mark.parametrize("count", [10, 2000])
def test_number_of_series_does_not_grow_with_runs(count: int) -> None:
    phases = ("Running", "Succeeded", "Failed", "Pending")
    runs = [
        make_run(f"r{n}", f"w{n % 7}", phase=phases[n % 4], completionTime=stamp(n))
        for n in range(count)
    ]
    scraped = Scraped(make_stored_workflow("w0"), *runs)
    for run in runs:
        scraped.metrics.status_written(make_run("r", "w0"), run)
    lines = generate_latest(scraped.registry).decode().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) < 180
    assert math.isfinite(scraped.value("objects", kind="Run") or math.nan)
