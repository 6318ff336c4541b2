"""From tick to Run and to Job, for a thousand Workflows each minute, beside as many CronJobs.

Prints what it measures and asserts no speed: `make bench`.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from dev.cluster.controlplane import ControlPlane
from dev.cluster.kwok import Kwok
from tests.component.operator.api import ROOTS, Api, Object, condition, until
from tests.component.operator.objects import project, workflow
from tests.component.operator.process import OperatorProcess
from tests.component.operator.scrape import Scrape
from tests.providers.provider_servers import Repository

from .scraping import process_value

COUNT = int(os.environ.get("BENCH_COUNT", "1000"))
PRESENT = int(os.environ.get("BENCH_PRESENT", "5000"))
TICKS = int(os.environ.get("BENCH_TICKS", "2"))
WRITERS = 16
OURS, NATIVE = "bench-ours", "bench-native"


class Log:
    """The API server's audit log: who created what, and when the answer was out."""

    def __init__(self, control: ControlPlane) -> None:
        self._path = control.audit_log

    def created(self, resource: str, namespace: str) -> Iterator[tuple[str, float]]:
        with self._path.open() as log:
            for line in log:
                if '"create"' not in line or f'"{namespace}"' not in line:
                    continue
                entry = json.loads(line)
                target = entry.get("objectRef") or {}
                is_it = (target.get("resource"), target.get("namespace")) == (resource, namespace)
                if is_it and "subresource" not in target and entry["responseStatus"]["code"] == 201:
                    moment = datetime.fromisoformat(entry["stageTimestamp"])
                    yield target["name"], moment.timestamp()


def lags(created: Iterable[tuple[str, float]], first: int) -> list[float]:
    """Seconds from the tick that is in a name, for ticks from a minute on."""
    found = []
    for name, moment in created:
        minutes = int(name.rsplit("-", 1)[-1])
        if first <= minutes < first + TICKS:
            found.append(moment - minutes * 60)
    return sorted(found)


def percentile(seconds: list[float], share: float) -> float:
    return seconds[math.ceil(share * len(seconds)) - 1]


def report(rows: dict[str, list[float]], native: list[float]) -> None:
    """Print seconds after the tick, and how they compare with those of CronJobs."""
    print(
        f"\n{'seconds after the tick':<24}{'made':>12}{'p50':>8}{'p99':>8}{'max':>8}{'ratio':>14}"
    )
    for what, seconds in rows.items():
        line = f"{what:<24}{f'{len(seconds)}/{COUNT * TICKS}':>12}"
        if seconds and native:
            p50, p99 = percentile(seconds, 0.5), percentile(seconds, 0.99)
            ratios = f"{p50 / percentile(native, 0.5):.2f} {p99 / percentile(native, 0.99):.2f}"
            line += f"{p50:8.2f}{p99:8.2f}{seconds[-1]:8.2f}{ratios:>14}"
        print(line)


def report_cost(before: Scrape, after: Scrape) -> None:
    """Print what a tick costs the operator, until the last of its Runs has ended."""

    def spent(name: str, **labels: str) -> str:
        return f"{(after.value(name, **labels) - before.value(name, **labels)) / TICKS:.0f}"

    cpu = (
        process_value(after, "cpu_seconds_total") - process_value(before, "cpu_seconds_total")
    ) / TICKS
    verbs = ("create", "patch_status", "get", "list", "delete")
    requests = (f"{verb} {spent('api_requests_total', verb=verb)}" for verb in verbs)
    kinds = ("Workflow", "Run")
    reconciles = (f"{kind} {spent('reconciles_total', kind=kind)}" for kind in kinds)
    print(f"a tick: {cpu:.1f} s of the operator's CPU")
    print(f"        requests: {', '.join(requests)}")
    print(f"        reconciliations: {', '.join(reconciles)}")
    print(f"memory: {process_value(after, 'resident_memory_bytes') / 2**20:.0f} MiB")


def create_all(api: Api, manifests: Iterable[Object]) -> None:
    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(api.create, manifests))


def cron_job(number: int) -> Object:
    container = {"name": "main", "image": "none"}
    pod = {"restartPolicy": "Never", "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"namespace": NATIVE, "name": f"c{number}"},
        "spec": {
            "schedule": "* * * * *",
            "jobTemplate": {"spec": {"backoffLimit": 0, "template": {"spec": pod}}},
        },
    }


def minute(number: float) -> str:
    return datetime.fromtimestamp(number * 60, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def await_minute(number: float) -> None:
    time.sleep(max(0.0, number * 60 - time.time()))


@pytest.fixture
def kwok(control_plane: ControlPlane) -> Iterator[Kwok]:
    kwok = Kwok(control_plane)
    kwok.start()
    kwok.add_nodes(4)
    yield kwok
    kwok.stop()


@pytest.mark.usefixtures("kwok")
def test_a_thousand_each_minute(
    api: Api,
    control_plane: ControlPlane,
    repository: Repository,
    operator: OperatorProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ROOTS, "CronJob", "/apis/batch/v1")
    for name in (OURS, NATIVE):
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    log = Log(control_plane)
    rows = measure(api, log, repository, operator)
    native = measure_native(api, log)
    report({**rows, "CronJob: Job": native}, native)


def measure(
    api: Api, log: Log, repository: Repository, operator: OperatorProcess
) -> dict[str, list[float]]:
    api.create(project(OURS, repository.url, git={"interval": "1h"}))
    rare = (workflow(OURS, f"r{n}", schedule="0 0 1 1 *") for n in range(PRESENT - COUNT))
    busy = (workflow(OURS, f"w{n}", schedule="* * * * *", suspend=True) for n in range(COUNT))
    create_all(api, rare)
    create_all(api, busy)
    started = time.monotonic()
    operator.ensure()
    until(lambda: all_scheduled(api), "all are known", seconds=300)
    print(f"\nstart with {PRESENT} Workflows: {time.monotonic() - started:.1f} s")
    # Far enough away for all to be told.
    first = int(time.time() + 45) // 60 + 1
    ticks = {"startAt": minute(first), "endAt": minute(first + TICKS - 1), "suspend": False}
    each(lambda number: api.patch("Workflow", OURS, f"w{number}", {"spec": ticks}))
    await_minute(first - 0.05)
    before = operator.scrape()
    await_minute(first + TICKS - 1)
    settle(lambda: int(operator.scrape().value("runs_ended_total")))
    report_cost(before, operator.scrape())
    operator.stop()
    return {
        "ours: Run": lags(log.created("runs", OURS), first),
        "ours: Job": lags(log.created("jobs", OURS), first),
    }


def measure_native(api: Api, log: Log) -> list[float]:
    create_all(api, (cron_job(number) for number in range(COUNT)))
    first = int(time.time() + 5) // 60 + 1
    await_minute(first + TICKS - 1)
    settle(lambda: len(lags(log.created("jobs", NATIVE), first)))
    return lags(log.created("jobs", NATIVE), first)


def each(change: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(change, range(COUNT)))


def settle(count: Callable[[], int]) -> None:
    """Wait until all is there, or for some minutes."""
    deadline = time.monotonic() + 240
    while count() < COUNT * TICKS and time.monotonic() < deadline:
        time.sleep(5)


def all_scheduled(api: Api) -> bool:
    last = (f"r{PRESENT - COUNT - 1}", f"w{COUNT - 1}")
    return all(condition(api.get("Workflow", OURS, name), "Scheduled") for name in last)
