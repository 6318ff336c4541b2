"""How many of a schedule's Runs stay, and that none goes before it is counted and recorded."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from dev.cluster.controlplane import ControlPlane
from labfunctions_operator.reconcile.workflow import DELETE_BATCH
from tests.providers.provider_servers import Repository, S3Server

from .api import Object, condition, until
from .bench import Bench
from .objects import project, run, workflow
from .process import Footprint

WRITERS = 8
MANY = 300
YEARLY = {"schedule": "0 0 1 1 *"}
RECORDED = {
    "type": "Recorded",
    "status": "True",
    "reason": "Stored",
    "message": "run.json is in the store",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


def ended(phase: str = "Succeeded", *, recorded: bool = True) -> Object:
    succeeded = {
        "type": "Succeeded",
        "status": str(phase == "Succeeded"),
        "reason": phase,
        "message": f"it is {phase}",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    return {
        "phase": phase,
        "completionTime": "2026-01-01T00:00:00Z",
        "conditions": [succeeded, RECORDED] if recorded else [succeeded],
    }


class Past:
    """A Workflow, and the Runs that its schedule has made each minute before now."""

    def __init__(self, bench: Bench, **spec: object) -> None:
        self.bench = bench
        self.api, self.namespace = bench.api, bench.namespace
        bench.operator.stop()
        bench.create(workflow(bench.namespace, **YEARLY, **spec))
        self.workflow = bench.get("Workflow", "analysis")
        self.now = datetime.now(UTC).replace(second=0, microsecond=0)

    def name(self, minutes: int) -> str:
        """Return the name of the Run of so many minutes ago."""
        return f"analysis-{int(self.now.timestamp()) // 60 - minutes}"

    def add(self, minutes: int, status: Object, **spec: object) -> None:
        manifest = run(self.namespace, self.name(minutes), **spec)
        tick = self.now - timedelta(minutes=minutes)
        manifest["metadata"] |= {
            "annotations": {"labfunctions.io/scheduled-at": tick.strftime("%Y-%m-%dT%H:%M:%SZ")},
            "ownerReferences": [
                {
                    "apiVersion": manifest["apiVersion"],
                    "kind": "Workflow",
                    "name": "analysis",
                    "uid": self.workflow["metadata"]["uid"],
                    "controller": True,
                }
            ],
        }
        self.api.create(manifest)
        change = {"status": status}
        self.api.patch("Run", self.namespace, self.name(minutes), change, subresource="/status")

    def runs(self) -> list[str]:
        return sorted(obj["metadata"]["name"] for obj in self.api.list("Run", self.namespace))

    def await_runs(self, *minutes: int) -> None:
        """Wait until just the Runs of so many minutes ago exist."""
        wanted = sorted(self.name(m) for m in minutes)
        until(lambda: self.runs() == wanted, f"of all Runs {wanted} are left", seconds=60)

    def counted(self) -> tuple[int, int]:
        status = self.bench.get("Workflow", "analysis")["status"]
        return status["succeeded"], status["failed"]


def test_the_newest_stay_and_all_remain_counted(
    bench: Bench, repository: Repository, control_plane: ControlPlane
) -> None:
    bench.create(project(bench.namespace, repository.url))
    past = Past(bench)
    for minutes in range(8):
        past.add(minutes, ended("Failed" if minutes in (2, 5) else "Succeeded"))
    bench.create(run(bench.namespace, "mine"))
    bench.api.patch("Run", bench.namespace, "mine", {"status": ended()}, subresource="/status")
    footprint = Footprint(control_plane.audit_log)
    bench.operator.ensure()
    until(lambda: len(past.runs()) == 5, "3 + 1 of the schedule's and the user's own one are left")
    assert past.runs() == sorted([*map(past.name, (0, 1, 2, 3)), "mine"])
    assert past.counted() == (6, 2)
    assert footprint.count(bench.namespace, "delete runs") == 4

    bench.patch("Workflow", "analysis", successfulRunsHistoryLimit=1)
    until(lambda: len(past.runs()) == 3, "a lower limit applies")
    bench.patch("Workflow", "analysis", successfulRunsHistoryLimit=0, failedRunsHistoryLimit=0)
    until(lambda: past.runs() == ["mine"], "only the user's own Run is left")
    assert past.counted() == (6, 2)
    assert footprint.count(bench.namespace, "delete runs") == 8


def test_without_the_store_they_stay_and_say_so(
    bench: Bench, repository: Repository, outage: S3Server
) -> None:
    bench.create(project(bench.namespace, repository.url))
    past = Past(bench, successfulRunsHistoryLimit=1)
    for minutes in range(3):
        past.add(minutes, ended(recorded=False))
    bench.operator.ensure()
    for minutes in range(3):
        bench.await_reason("Run", past.name(minutes), "StoreUnavailable", type="Recorded")
    bench.await_status("Workflow", "analysis")
    assert past.counted() == (3, 0)
    past.await_runs(0, 1, 2)
    outage.start()
    bench.operator.restart()  # in place of the minute until it tries again
    past.await_runs(0)


def test_a_run_without_time_to_live_is_counted_before_it_goes(
    bench: Bench, repository: Repository
) -> None:
    bench.create(project(bench.namespace, repository.url))
    past = Past(bench)
    past.add(0, ended(), ttlSecondsAfterFinished=0)
    bench.operator.ensure()
    past.await_runs()
    assert past.counted() == (1, 0)


def test_many_go_in_batches(
    bench: Bench, repository: Repository, control_plane: ControlPlane
) -> None:
    bench.create(project(bench.namespace, repository.url))
    past = Past(bench)
    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(lambda minutes: past.add(minutes, ended()), range(MANY)))
    footprint = Footprint(control_plane.audit_log)
    bench.operator.ensure()
    past.await_runs(0, 1, 2)
    assert past.counted() == (MANY, 0)
    # Read before the next test: a settled world would show in it.
    writes = footprint.writes(bench.namespace)
    assert writes.count("delete runs") == MANY - 3
    assert len(writes) - writes.count("delete runs") <= 4
    found = bench.get("Workflow", "analysis")
    assert len(str(found["status"])) < 4000
    assert condition(found, "Scheduled")["status"] == "True"
    assert DELETE_BATCH < MANY

    bench.operator.stop()
    quiet = Footprint(control_plane.audit_log)
    bench.operator.ensure()
    bench.create(run(bench.namespace, "new"))
    bench.await_status("Run", "new")
    assert quiet.count(bench.namespace, "delete runs") == 0
    assert quiet.count(bench.namespace, "patch workflows/status") == 0
