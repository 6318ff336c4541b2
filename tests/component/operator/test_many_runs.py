"""Many Runs of the past: they cost nothing at the start, delay nothing new, and hide no metric."""

from concurrent.futures import ThreadPoolExecutor

from dev.cluster.controlplane import ControlPlane
from tests.providers.provider_servers import Repository

from .bench import Bench
from .objects import FINISHED, inline_run, project, run
from .process import Footprint

COUNT = 2000
WRITERS = 8
SERIES = 400


def test_start_beside_many_finished_runs_writes_nothing(
    bench: Bench, repository: Repository, control_plane: ControlPlane
) -> None:
    bench.create(project(bench.namespace, repository.url))
    bench.await_reason("Project", "wine", "Ready")
    bench.operator.stop()

    def finished(number: int) -> None:
        name = f"past-{number}"
        # Each of a Workflow of its own, which does not exist.
        bench.create(run(bench.namespace, name, workflowRef={"name": f"old-{number}"}))
        bench.api.patch("Run", bench.namespace, name, {"status": FINISHED}, subresource="/status")

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(finished, range(COUNT)))
    footprint = Footprint(control_plane.audit_log)
    bench.operator.ensure()
    bench.create(inline_run(bench.namespace, "new"))
    bench.complete("new")
    assert footprint.writes(bench.namespace) == ["create jobs", *["patch runs/status"] * 2]
    scraped = bench.operator.scrape()
    assert scraped.value("objects", kind="Run") > COUNT
    assert len(scraped) < SERIES
