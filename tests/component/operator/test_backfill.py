"""The Runs of a past range: each tick once, and no more live than allowed."""

import json
from datetime import UTC, datetime

import pytest

from dev.cluster.controlplane import ControlPlane
from labfunctions_operator.providers.store import Store
from tests.providers.provider_servers import Repository, S3Server

from .api import ApiError, Object, until
from .bench import Bench
from .kubelet import SUCCEEDED
from .objects import API_VERSION, project, run, workflow
from .process import Footprint

# Clocks in New York went from 2:00 to 3:00 on the 8th of March 2026.
NIGHTLY = {"schedule": "30 2 * * *", "timeZone": "America/New_York"}
TICKS = [
    "2026-03-06T07:30:00Z",
    "2026-03-07T07:30:00Z",
    "2026-03-08T07:00:00Z",
    "2026-03-09T06:30:00Z",
]
FAILED = {"reason": "NotebookError", "message": "cell 2 raised ValueError: no wine left"}
RANGE = {"from": TICKS[0], "to": TICKS[-1]}


def minutes(tick: str) -> int:
    return int(datetime.fromisoformat(tick).timestamp()) // 60


NAMES = [f"again-{minutes(tick)}" for tick in TICKS]


def backfill(namespace: str, name: str = "again", **spec: object) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "Backfill",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"workflowRef": {"name": "analysis"}, **RANGE, **spec},
    }


@pytest.fixture
def ready(bench: Bench, repository: Repository) -> Bench:
    """A Workflow that runs each night, and whose Runs can start."""
    bench.create(
        project(bench.namespace, repository.url),
        workflow(bench.namespace, suspend=True, **NIGHTLY),
    )
    bench.await_reason("Workflow", "analysis", "Ready")
    return bench


def runs(bench: Bench, name: str = "again") -> list[str]:
    found = bench.api.list("Run", bench.namespace, f"labfunctions.io/backfill={name}")
    return sorted(obj["metadata"]["name"] for obj in found)


def live(bench: Bench) -> list[str]:
    found = bench.api.list("Run", bench.namespace)
    return sorted(r["metadata"]["name"] for r in found if not _has_ended(r))


def _has_ended(obj: Object) -> bool:
    return "completionTime" in obj.get("status", {})


def await_runs(bench: Bench, *names: str) -> None:
    until(lambda: runs(bench) == sorted(names), f"there are the Runs {names}")


def test_a_range_across_a_clock_change(ready: Bench, control_plane: ControlPlane) -> None:
    footprint = Footprint(control_plane.audit_log)
    ready.create(backfill(ready.namespace))
    for place, (name, tick) in enumerate(zip(NAMES, TICKS, strict=True)):
        await_runs(ready, *NAMES[: place + 1])
        assert live(ready) == [name]
        done = ready.complete(name)
        assert done["status"]["snapshot"]["scheduledAt"] == tick
    found = ready.await_reason("Backfill", "again", "Completed")
    status = found["status"]
    assert status["phase"] == "Succeeded"
    assert (status["total"], status["created"], status["succeeded"]) == (4, 4, 4)
    assert status["progress"] == "4/4"
    # Reading the past and the first batch, then one for each Run that ends.
    assert footprint.count(ready.namespace, "patch backfills/status") <= 2 + 4
    assert footprint.count(ready.namespace, "create runs") == 4
    counted = ready.get("Workflow", "analysis")["status"]
    assert (counted["succeeded"], counted["active"]) == (0, [])

    ready.operator.stop()
    quiet = Footprint(control_plane.audit_log)
    ready.operator.ensure()
    ready.create(backfill(ready.namespace, "dry", dryRun=True))
    ready.await_reason("Backfill", "dry", "DryRun")
    assert quiet.writes(ready.namespace) == ["patch backfills/status"] * quiet.count(
        ready.namespace, "patch backfills/status"
    )
    dry = ready.get("Backfill", "dry")["status"]
    assert dry["plan"] == {"run": 0, "skip": 4, "first": [], "last": []}


def test_max_active_suspend_and_resume(ready: Bench) -> None:
    ready.create(backfill(ready.namespace, maxActive=2))
    await_runs(ready, *NAMES[:2])
    ready.complete(NAMES[1])
    await_runs(ready, *NAMES[:3])
    assert live(ready) == [NAMES[0], NAMES[2]]
    ready.patch("Backfill", "again", suspend=True)
    ready.await_reason("Backfill", "again", "Suspended")
    for name in (NAMES[0], NAMES[2]):
        ready.complete(name)
    until(
        lambda: ready.get("Backfill", "again")["status"]["succeeded"] == 3,
        "live Runs go on and are counted",
    )
    assert runs(ready) == NAMES[:3]
    ready.patch("Backfill", "again", suspend=False)
    await_runs(ready, *NAMES)
    pod = ready.pod(NAMES[3])
    ready.kubelet.run(pod)
    ready.kubelet.finish(pod, FAILED)
    found = ready.await_reason("Backfill", "again", "RunsFailed")
    assert found["status"]["phase"] == "Failed"
    assert found["status"]["failedRuns"] == [{"name": NAMES[3]}]
    assert f"1 of 4 Runs failed: {NAMES[3]}" in ready.message("Backfill", "again")


def test_killed_and_restarted_while_runs_come_and_go(
    ready: Bench, control_plane: ControlPlane
) -> None:
    """Runs live no longer than until they are counted."""
    ready.patch("Workflow", "analysis", ttlSecondsAfterFinished=0)
    footprint = Footprint(control_plane.audit_log)
    ready.create(backfill(ready.namespace))
    for name in NAMES:
        pod = ready.pod(name)
        ready.operator.kill()
        ready.kubelet.run(pod)
        ready.kubelet.finish(pod, SUCCEEDED)
        ready.operator.ensure()
    found = ready.await_reason("Backfill", "again", "Completed")
    assert (found["status"]["created"], found["status"]["succeeded"]) == (4, 4)
    made = [
        r
        for r in footprint.requests()
        if str(r) == "create runs" and r.namespace == ready.namespace
    ]
    assert len([r for r in made if r.code == 201]) == 4
    until(lambda: runs(ready) == [], "each Run goes once it is counted")


def test_what_ran_already_is_known_from_runs_and_from_records(ready: Bench, stored: Store) -> None:
    ready.create(backfill(ready.namespace, "first", to=TICKS[1], maxActive=2))
    first = [f"first-{minutes(tick)}" for tick in TICKS[:2]]
    for name, end in zip(first, (SUCCEEDED, FAILED), strict=True):
        pod = ready.pod(name)
        ready.kubelet.run(pod)
        ready.kubelet.finish(pod, end)
    ready.await_reason("Backfill", "first", "RunsFailed")
    # Its Runs go with it; what is left are their records.
    ready.api.delete("Backfill", ready.namespace, "first")
    until(lambda: runs(ready, "first") == [], "the Runs go with their Backfill", seconds=60)
    folder = f"{ready.namespace}/wine/analysis/"
    records = [f.key for f in stored.list(folder) if f.key.endswith("/run.json")]
    assert len(records) == 2
    assert json.loads(stored.get(records[0]))["metadata"]["labels"]["labfunctions.io/backfill"]

    ready.create(
        backfill(ready.namespace, "none", dryRun=True),
        backfill(ready.namespace, "failed", dryRun=True, reprocess="Failed"),
        backfill(ready.namespace, "all", dryRun=True, reprocess="All"),
    )
    plans = {
        name: ready.await_reason("Backfill", name, "DryRun")["status"]["plan"]["first"]
        for name in ("none", "failed", "all")
    }
    assert plans == {"none": TICKS[2:], "failed": TICKS[1:], "all": TICKS}
    assert live(ready) == []


def test_without_the_store_it_waits(ready: Bench, outage: S3Server) -> None:
    ready.create(backfill(ready.namespace))
    ready.await_reason("Backfill", "again", "StoreUnavailable")
    assert runs(ready) == []
    outage.start()
    until(lambda: runs(ready) == NAMES[:1], "it reads and goes on", seconds=60)


def test_deletion_takes_its_runs(ready: Bench) -> None:
    ready.create(backfill(ready.namespace, maxActive=2))
    await_runs(ready, *NAMES[:2])
    ready.api.delete("Backfill", ready.namespace, "again")
    until(lambda: runs(ready) == [], "its Runs are gone", seconds=60)


def test_a_run_of_somebody_else_is_waited_for(ready: Bench) -> None:
    ready.create(run(ready.namespace, NAMES[0]), backfill(ready.namespace))
    ready.await_reason("Backfill", "again", "NameTaken")
    ready.api.delete("Run", ready.namespace, NAMES[0])
    await_runs(ready, NAMES[0])


def test_a_workflow_that_comes_late(bench: Bench, repository: Repository) -> None:
    bench.create(project(bench.namespace, repository.url), backfill(bench.namespace))
    bench.await_reason("Backfill", "again", "WorkflowNotFound")
    bench.create(workflow(bench.namespace))
    bench.await_reason("Backfill", "again", "WorkflowInvalid")
    bench.patch("Workflow", "analysis", suspend=True, **NIGHTLY)
    await_runs(bench, NAMES[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"to": TICKS[0], "from": TICKS[1]}, "to is before from", id="reversed"),
        pytest.param({"maxActive": 101}, "maxActive", id="too many at once"),
        pytest.param({"reprocess": "Some"}, "reprocess", id="no such choice"),
    ],
)
def test_refused_at_admission(bench: Bench, change: Object, words: str) -> None:
    with pytest.raises(ApiError, match=words):
        bench.create(backfill(bench.namespace, **change))


def test_it_never_changes_but_for_suspend_and_max_active(bench: Bench) -> None:
    bench.create(backfill(bench.namespace, suspend=True))
    bench.patch("Backfill", "again", maxActive=7)
    for change in ({"to": TICKS[0]}, {"reprocess": "All"}, {"dryRun": True}):
        with pytest.raises(ApiError, match="a Backfill never changes"):
            bench.patch("Backfill", "again", **change)


def test_what_lies_ahead_is_not_made(ready: Bench) -> None:
    ahead = datetime.now(UTC).year + 1
    ready.create(backfill(ready.namespace, to=f"{ahead}-12-31T00:00:00Z"))
    ready.await_reason("Backfill", "again", "InvalidSpec")
    assert ready.message("Backfill", "again").startswith("spec.to: ")
    assert runs(ready) == []
