"""Many Runs of the past: they cost nothing at the start, and delay nothing new."""

from concurrent.futures import ThreadPoolExecutor

from dev.cluster.controlplane import ControlPlane
from tests.providers.provider_servers import Repository

from .bench import Bench
from .objects import inline_run, project
from .process import Footprint

COUNT = 2000
WRITERS = 8
FINISHED = {
    "phase": "Succeeded",
    "observedGeneration": 1,
    "completionTime": "2026-01-01T00:00:00Z",
    "conditions": [
        {
            "type": "Succeeded",
            "status": "True",
            "reason": "Succeeded",
            "message": "3 of 3 cells ran",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        },
        {
            "type": "Recorded",
            "status": "True",
            "reason": "Stored",
            "message": "run.json is in the store",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        },
    ],
}


def test_start_beside_many_finished_runs_writes_nothing(
    bench: Bench, repository: Repository, control_plane: ControlPlane
) -> None:
    bench.create(project(bench.namespace, repository.url))
    bench.await_reason("Project", "wine", "Ready")
    bench.operator.stop()

    def finished(number: int) -> None:
        name = f"past-{number}"
        bench.create(inline_run(bench.namespace, name))
        bench.api.patch("Run", bench.namespace, name, {"status": FINISHED}, subresource="/status")

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(finished, range(COUNT)))
    footprint = Footprint(control_plane.audit_log)
    bench.operator.ensure()
    bench.create(inline_run(bench.namespace, "new"))
    bench.complete("new")
    assert footprint.writes(bench.namespace) == ["create jobs", *["patch runs/status"] * 2]
