"""Ticks as a user sees them: the operator's own process, on the clock on the wall."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dev.cluster.controlplane import ControlPlane
from dev.cluster.kubectl import Kubectl
from tests.providers.provider_servers import Repository

from .api import GROUP, ApiError, Object, condition, until
from .bench import Bench
from .kubelet import SUCCEEDED
from .objects import project, run, workflow
from .process import Footprint

SOON = 6


def soon(seconds: float = SOON) -> datetime:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).replace(microsecond=0)


def stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def name_of(tick: datetime) -> str:
    return f"analysis-{int(tick.timestamp()) // 60}"


def ticking(bench: Bench, repository: Repository, **spec: Any) -> datetime:
    """Create a Workflow with one tick in some seconds, and the next one an hour later."""
    bench.create(project(bench.namespace, repository.url))
    bench.await_reason("Project", "wine", "Ready")
    tick = soon()
    bench.create(workflow(bench.namespace, interval="1h", startAt=stamp(tick), **spec))
    bench.await_reason("Workflow", "analysis", "Scheduled", type="Scheduled")
    return tick


def earlier(bench: Bench, tick: datetime, minutes: int) -> str:
    """Make the Run of an earlier tick, as the schedule would have."""
    then = tick - timedelta(minutes=minutes)
    made = run(bench.namespace, name_of(then))
    uid = bench.get("Workflow", "analysis")["metadata"]["uid"]
    owner = {
        "apiVersion": made["apiVersion"],
        "kind": "Workflow",
        "name": "analysis",
        "uid": uid,
        "controller": True,
    }
    made["metadata"] |= {
        "ownerReferences": [owner],
        "annotations": {"labfunctions.io/scheduled-at": stamp(then)},
    }
    bench.create(made)
    return str(made["metadata"]["name"])


@contextmanager
def refused_ticks(bench: Bench, kubectl: Kubectl) -> Iterator[None]:
    """Have a policy refuse the Runs of ticks, as invalid."""
    name = bench.namespace
    match = {"matchLabels": {"kubernetes.io/metadata.name": name}}
    rule = {
        "apiGroups": ["labfunctions.io"],
        "apiVersions": ["*"],
        "operations": ["CREATE"],
        "resources": ["runs"],
    }
    labels = "object.metadata.labels"
    no_label = f"!has({labels}) || !('labfunctions.io/workflow' in {labels})"
    policy = {
        "matchConstraints": {"namespaceSelector": match, "resourceRules": [rule]},
        "validations": [{"expression": no_label, "message": "no ticks today"}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    kinds = {"ValidatingAdmissionPolicy": policy, "ValidatingAdmissionPolicyBinding": binding}
    made = [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        }
        for kind, spec in kinds.items()
    ]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
    probe = run(name, "probe")
    probe["metadata"]["labels"] = {"labfunctions.io/workflow": "analysis"}

    def refusal() -> int:
        try:
            bench.api.request("POST", f"{GROUP}/namespaces/{name}/runs?dryRun=All", probe)
        except ApiError as error:
            return error.code
        return 0

    kubectl.apply(text)
    until(lambda: refusal() == 422, "they are refused")
    yield
    kubectl.run("delete", "-f", "-", text=text)
    until(lambda: refusal() == 0, "they are refused no more")


def await_run(bench: Bench, name: str) -> Object:
    return until(lambda: bench.api.get("Run", bench.namespace, name), f"Run {name} exists")


def test_a_tick_runs_the_notebook_and_costs_little(
    bench: Bench, repository: Repository, control_plane: ControlPlane
) -> None:
    tick = ticking(bench, repository)
    status = bench.get("Workflow", "analysis")["status"]
    assert status["nextScheduleTime"] == stamp(tick)
    footprint = Footprint(control_plane.audit_log)
    made = await_run(bench, name_of(tick))
    late = datetime.fromisoformat(made["metadata"]["creationTimestamp"]) - tick
    assert late < timedelta(seconds=30)
    name = made["metadata"]["name"]
    [container] = bench.pod(name)["spec"]["containers"]
    [config] = [e["value"] for e in container["env"] if e["name"] == "RUNNER_CONFIG"]
    assert json.loads(config)["inject"]["SCHEDULED_AT"] == stamp(tick)
    done = bench.complete(name)
    assert done["status"]["snapshot"]["scheduledAt"] == stamp(tick)
    bench.await_reason("Workflow", "analysis", "Succeeded", type="LastRunSucceeded")
    status = bench.get("Workflow", "analysis")["status"]
    assert status["lastScheduleTime"] == stamp(tick)
    assert status["nextScheduleTime"] == stamp(tick + timedelta(hours=1))
    assert status["lastRun"] == {"name": name, "phase": "Succeeded"}
    assert (status["succeeded"], status["active"]) == (1, [])
    assert Counter(footprint.writes(bench.namespace)) == {
        "create runs": 1,
        "create jobs": 1,
        "patch runs/status": 2,
        "patch workflows/status": 2,
    }
    bench.operator.stop()
    footprint = Footprint(control_plane.audit_log)
    bench.operator.ensure()
    time.sleep(2)
    assert footprint.writes(bench.namespace) == []


def test_killed_over_a_tick(bench: Bench, repository: Repository) -> None:
    tick = ticking(bench, repository)
    bench.operator.kill()
    time.sleep(max(0.0, (tick - datetime.now(UTC)).total_seconds()) + 1)
    bench.operator.ensure()
    await_run(bench, name_of(tick))
    bench.operator.kill()
    bench.operator.ensure()
    bench.complete(name_of(tick))
    bench.await_reason("Workflow", "analysis", "Succeeded", type="LastRunSucceeded")
    assert bench.footprint.count(bench.namespace, "create runs") == 1
    assert bench.footprint.count(bench.namespace, "create jobs") == 1


def test_an_edit_that_is_seen_late_counts_from_when_it_was_made(
    bench: Bench, repository: Repository
) -> None:
    ticking(bench, repository)
    bench.operator.kill()
    time.sleep(2)
    tick = soon()
    bench.patch("Workflow", "analysis", startAt=stamp(tick))
    time.sleep(SOON + 1)
    bench.operator.ensure()
    await_run(bench, name_of(tick))


def test_queue_keeps_order(bench: Bench, repository: Repository) -> None:
    tick = ticking(bench, repository, concurrencyPolicy="Queue")
    first, second = earlier(bench, tick, 2), earlier(bench, tick, 1)
    pods = {first: bench.pod(first)}
    waiting = bench.await_reason("Run", second, "Queued")
    assert waiting["status"]["phase"] == "Queued"
    third = name_of(tick)
    await_run(bench, third)
    bench.await_reason("Run", third, "Queued")
    assert bench.message("Run", third).startswith(f"waits for Run {second} to end: ")
    # One made by hand neither waits nor is waited for.
    bench.create(run(bench.namespace, "by-hand"))
    pods["by-hand"] = bench.pod("by-hand")
    assert bench.jobs(run=second) == bench.jobs(run=third) == []
    bench.kubelet.finish(pods[first], SUCCEEDED)
    pods[second] = bench.pod(second)
    assert bench.jobs(run=third) == []
    bench.kubelet.finish(pods[second], SUCCEEDED)
    bench.complete(third)
    bench.kubelet.finish(pods["by-hand"], SUCCEEDED)
    bench.await_reason("Run", "by-hand", "Succeeded")
    until(
        lambda: bench.get("Workflow", "analysis")["status"]["succeeded"] == 3,
        "the schedule's Runs are counted, and no other",
    )


def test_a_queue_goes_on_when_a_run_in_it_is_deleted_or_cancelled(
    bench: Bench, repository: Repository
) -> None:
    tick = ticking(bench, repository, concurrencyPolicy="Queue")
    names = [earlier(bench, tick, minutes) for minutes in (4, 3, 2)]
    pod = bench.pod(names[0])
    bench.await_reason("Run", names[2], "Queued")
    bench.patch("Run", names[1], cancel=True)
    bench.await_reason("Run", names[1], "Cancelled")
    until(
        lambda: bench.message("Run", names[2]).startswith(f"waits for Run {names[0]} "),
        "it says behind whom it waits now",
    )
    bench.api.delete("Run", bench.namespace, names[0])
    bench.kubelet.remove(pod)
    bench.complete(names[2])


def test_replace_stops_the_run_before_and_waits_for_its_end(
    bench: Bench, repository: Repository
) -> None:
    tick = ticking(bench, repository, concurrencyPolicy="Replace")
    first, second = earlier(bench, tick, 1), name_of(tick)
    pod = bench.pod(first)
    bench.kubelet.run(pod)
    await_run(bench, second)
    until(lambda: bench.get("Run", first)["spec"].get("cancel"), "the first is cancelled")
    bench.await_reason("Run", second, "Queued")
    assert bench.jobs(run=second) == []
    interrupted = {"reason": "Cancelled", "message": "interrupted in cell 2 of 3"}
    bench.kubelet.finish(pod, interrupted, exit_code=1)
    bench.kubelet.remove(pod)
    stopped = bench.await_reason("Run", first, "Cancelled")
    assert stopped["status"]["outputs"]["notebook"].endswith("/1/notebook.ipynb")
    bench.complete(second)
    bench.await_reason("Workflow", "analysis", "Succeeded", type="LastRunSucceeded")


def test_a_run_goes_on_while_the_one_that_replaces_it_is_refused(
    bench: Bench, repository: Repository, kubectl: Kubectl
) -> None:
    with refused_ticks(bench, kubectl):
        tick = ticking(bench, repository, concurrencyPolicy="Replace")
        first = earlier(bench, tick, 1)
        bench.kubelet.run(bench.pod(first))
        bench.await_reason("Workflow", "analysis", "InvalidSpec", type="Scheduled")
        assert "no ticks today" in bench.message("Workflow", "analysis")
        assert not bench.get("Run", first)["spec"].get("cancel")
    # Whatever touches the Workflow ends the wait of a minute.
    bench.patch("Workflow", "analysis", timeoutSeconds=600)
    await_run(bench, name_of(tick))
    until(lambda: bench.get("Run", first)["spec"].get("cancel"), "the first is cancelled")


def test_forbid_skips_and_says_so(bench: Bench, repository: Repository) -> None:
    tick = ticking(bench, repository, concurrencyPolicy="Forbid")
    first = earlier(bench, tick, 1)
    pod = bench.pod(first)
    bench.await_reason("Workflow", "analysis", "RunAlreadyActive", type="Scheduled")
    message = bench.message("Workflow", "analysis", "Scheduled")
    assert message.startswith(f"the tick of {stamp(tick)} got no Run: Run {first} is live")
    assert bench.get("Workflow", "analysis")["status"]["missed"] == 1
    until(lambda: bench.footprint.count(bench.namespace, "create events") == 1, "it is told")
    assert bench.api.get("Run", bench.namespace, name_of(tick)) is None
    bench.kubelet.finish(pod, SUCCEEDED)
    bench.await_reason("Run", first, "Succeeded")


def test_runs_go_with_their_workflow(bench: Bench, repository: Repository) -> None:
    tick = ticking(bench, repository)
    await_run(bench, name_of(tick))
    bench.pod(name_of(tick))
    bench.create(run(bench.namespace, "by-hand", workflowRef={"name": "analysis"}))
    bench.api.delete("Workflow", bench.namespace, "analysis")
    until(
        lambda: (
            [r["metadata"]["name"] for r in bench.api.list("Run", bench.namespace)] == ["by-hand"]
        ),
        "only the Run made by hand is left",
    )


def test_deleted_and_created_again_within_a_minute(bench: Bench, repository: Repository) -> None:
    """The tick was run; the Workflow that is new counts from its creation."""
    tick = ticking(bench, repository)
    await_run(bench, name_of(tick))
    bench.api.delete("Workflow", bench.namespace, "analysis")
    bench.create(workflow(bench.namespace, interval="1h", startAt=stamp(tick)))
    bench.await_reason("Workflow", "analysis", "Scheduled", type="Scheduled")
    status = bench.get("Workflow", "analysis")["status"]
    assert status["nextScheduleTime"] == stamp(tick + timedelta(hours=1))
    assert "lastScheduleTime" not in status
    until(lambda: not bench.api.list("Run", bench.namespace), "the Run goes")
    assert bench.footprint.count(bench.namespace, "create runs") == 1


def test_a_typo_is_named_and_a_fix_counts_at_once(bench: Bench, repository: Repository) -> None:
    bench.create(project(bench.namespace, repository.url))
    bench.await_reason("Project", "wine", "Ready")
    bench.create(workflow(bench.namespace, schedule="0 0 31 2 *", timeZone="Europe/Pairs"))
    bench.await_reason("Workflow", "analysis", "InvalidSpec")
    assert "spec.timeZone" in bench.message("Workflow", "analysis")
    bench.patch("Workflow", "analysis", timeZone="Europe/Paris")
    until(
        lambda: bench.message("Workflow", "analysis").startswith("spec.schedule: "),
        "the other mistake is named",
    )
    # It can be run by hand meanwhile.
    bench.create(run(bench.namespace))
    bench.complete("first")
    bench.patch("Workflow", "analysis", schedule="0 5 * * *")
    bench.await_reason("Workflow", "analysis", "Scheduled", type="Scheduled")
    bench.await_reason("Workflow", "analysis", "Ready")


def test_the_table_tells_whether_it_is_fine(
    bench: Bench, repository: Repository, kubectl: Kubectl
) -> None:
    tick = ticking(bench, repository)
    await_run(bench, name_of(tick))
    pod = bench.pod(name_of(tick))
    failed = {"reason": "NotebookError", "message": "cell 2 raised ValueError: no wine left"}
    bench.kubelet.finish(pod, failed, exit_code=1)
    bench.await_reason("Workflow", "analysis", "NotebookError", type="LastRunSucceeded")
    listed = kubectl.run("get", "workflows", "-n", bench.namespace, "-o", "wide")
    for words in (
        "Scheduled",
        "Failed",
        stamp(tick + timedelta(hours=1)),
        "no wine left; no Run of the schedule has ever succeeded",
    ):
        assert words in listed
    found = condition(bench.get("Workflow", "analysis"), "LastRunSucceeded")
    assert found["status"] == "False"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"schedule": "* * * * *", "interval": "1m"}, "schedule and interval exclude each other"),
        ({"schedule": "TZ=UTC * * * * *"}, "takes no TZ= or CRON_TZ="),
        ({"schedule": "CRON_TZ=UTC * * * * *"}, "takes no TZ= or CRON_TZ="),
        ({"schedule": "0 * * * * *"}, "schedule has five fields"),
        ({"schedule": "* * * *"}, "schedule has five fields"),
        ({"interval": "59s"}, "interval is at least 1m"),
        ({"interval": "0m"}, "interval is at least 1m"),
        ({"startAt": "tomorrow"}, "spec.startAt"),
        (
            {"startAt": "2026-01-02T00:00:00Z", "endAt": "2026-01-01T23:00:00Z"},
            "endAt is before startAt",
        ),
        ({"concurrencyPolicy": "Wait"}, "spec.concurrencyPolicy"),
        ({"catchUp": {"policy": "All", "max": 101}}, "spec.catchUp.max"),
        ({"repeat": 0}, "spec.repeat"),
    ],
)
def test_the_api_server_refuses_a_schedule(
    bench: Bench, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(ApiError, match=message):
        bench.create(workflow(bench.namespace, **spec))


@pytest.mark.parametrize(
    "schedule", ["@daily", "*/5 8-18 * JAN-MAR mon-fri", " 0  0 1,15 * ? ", "0 0 * * 7"]
)
def test_the_api_server_takes_a_schedule(bench: Bench, schedule: str) -> None:
    name = "w" * 42
    bench.create(workflow(bench.namespace, name, schedule=schedule, suspend=True))
    bench.await_reason("Workflow", name, "Suspended", type="Scheduled")
