"""A restart beside ten thousand Runs of the past, beside one with none and beside a mere list.

Prints what it measures and asserts no speed: `make bench`.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

from dev.cluster.controlplane import ControlPlane
from tests.component.operator.api import GROUP, Api, until
from tests.component.operator.objects import FINISHED, inline_run, project, run
from tests.component.operator.process import Footprint, OperatorProcess
from tests.providers.provider_servers import Repository

from .scraping import process_value

COUNT = int(os.environ.get("BENCH_RUNS", "10000"))
WRITERS = 16
PAGE = 500
NAMESPACE = "bench-start"


def test_a_start_beside_ten_thousand_runs(
    api: Api, control_plane: ControlPlane, repository: Repository, operator: OperatorProcess
) -> None:
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    api.create(project(NAMESPACE, repository.url))
    alone = start(api, operator, "before")
    operator.stop()

    def past(number: int) -> None:
        name = f"past-{number}"
        # Each of a Workflow of its own, which does not exist.
        api.create(run(NAMESPACE, name, workflowRef={"name": f"old-{number}"}))
        api.patch("Run", NAMESPACE, name, {"status": FINISHED}, subresource="/status")

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(past, range(COUNT)))
    listed = seconds(lambda: list_runs(api))
    footprint = Footprint(control_plane.audit_log)
    full = start(api, operator, "after")
    scraped = operator.scrape()
    operator.stop()
    writes = footprint.writes(NAMESPACE)
    print(f"\n{'seconds from the start':<28}{'ready':>8}{'Job of a new Run':>18}")
    for what, (ready, job) in {"beside no Run": alone, f"beside {COUNT} Runs": full}.items():
        print(f"{what:<28}{ready:8.1f}{job:18.1f}")
    print(f"a list of {COUNT} Runs by itself: {listed:.1f} s")
    print(f"ready later than beside none: {(full[0] - alone[0]) / listed:.1f} such lists")
    print(f"writes: {', '.join(writes)}")
    print(f"memory: {process_value(scraped, 'resident_memory_bytes') / 2**20:.0f} MiB")


def start(api: Api, operator: OperatorProcess, name: str) -> tuple[float, float]:
    """Return the seconds until the operator is ready, and until a Run that waits has its Job."""
    api.create(inline_run(NAMESPACE, name))
    began = time.monotonic()
    operator.ensure()
    ready = time.monotonic() - began

    def has_job() -> bool:
        return bool(api.list("Job", NAMESPACE, f"labfunctions.io/run={name}"))

    until(has_job, f"Run {name} has a Job", seconds=120)
    return ready, time.monotonic() - began


def list_runs(api: Api) -> None:
    query = {"limit": str(PAGE)}
    while True:
        path = f"{GROUP}/namespaces/{NAMESPACE}/runs?{urlencode(query)}"
        found = api.request("GET", path)["metadata"].get("continue")
        if not found:
            return
        query["continue"] = found


def seconds(action: Callable[[], None]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began
