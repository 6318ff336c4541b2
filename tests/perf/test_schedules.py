"""From tick to Run and to Job, for a thousand Workflows each minute, beside as many CronJobs.

Prints what it measures and asserts no speed: `make bench`.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from dev.cluster.controlplane import ControlPlane
from dev.cluster.kwok import Kwok
from tests.component.operator.api import ROOTS, Api, Object, condition, until
from tests.component.operator.objects import project, workflow
from tests.component.operator.process import OperatorProcess
from tests.providers.provider_servers import Repository

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


def report(what: str, seconds: list[float]) -> None:
    def percentile(share: float) -> float:
        return seconds[max(0, math.ceil(share * len(seconds)) - 1)]

    if not seconds:
        print(f"{what:<28} none of {COUNT * TICKS}")
        return
    print(
        f"{what:<28} {len(seconds)} of {COUNT * TICKS}  p50 {percentile(0.5):6.2f} s  "
        f"p99 {percentile(0.99):6.2f} s  max {seconds[-1]:6.2f} s"
    )


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


def next_minute() -> int:
    """Return the number of the minute that begins next, but not at once."""
    return int(time.time() + 5) // 60 + 1


def await_minute(minute: int) -> None:
    time.sleep(max(0.0, minute * 60 - time.time()))


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
    measure(api, log, repository, operator)
    measure_native(api, log)


def measure(api: Api, log: Log, repository: Repository, operator: OperatorProcess) -> None:
    api.create(project(OURS, repository.url, git={"interval": "1h"}))
    rare = (workflow(OURS, f"r{n}", schedule="0 0 1 1 *") for n in range(PRESENT - COUNT))
    busy = (workflow(OURS, f"w{n}", schedule="* * * * *", suspend=True) for n in range(COUNT))
    create_all(api, rare)
    create_all(api, busy)
    started = time.monotonic()
    operator.ensure()
    until(lambda: is_scheduled(api, f"r{PRESENT - COUNT - 1}"), "the last is known", seconds=300)
    print(f"\n{PRESENT} Workflows present: started in {time.monotonic() - started:.1f} s")
    until(lambda: is_scheduled(api, f"w{COUNT - 1}"), "all are known", seconds=300)

    def resume(number: int) -> None:
        api.patch("Workflow", OURS, f"w{number}", {"spec": {"suspend": False}})

    each(resume)
    first = next_minute()
    await_minute(first + TICKS - 1)
    settle(lambda: len(lags(log.created("jobs", OURS), first)))

    def suspend(number: int) -> None:
        api.patch("Workflow", OURS, f"w{number}", {"spec": {"suspend": True}})

    each(suspend)
    report("ours: tick to Run", lags(log.created("runs", OURS), first))
    report("ours: tick to Job", lags(log.created("jobs", OURS), first))
    operator.stop()


def measure_native(api: Api, log: Log) -> None:
    create_all(api, (cron_job(number) for number in range(COUNT)))
    first = next_minute()
    await_minute(first + TICKS - 1)
    settle(lambda: len(lags(log.created("jobs", NATIVE), first)))
    report("CronJob: tick to Job", lags(log.created("jobs", NATIVE), first))


def each(change: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(change, range(COUNT)))


def settle(count: Callable[[], int]) -> None:
    """Wait until all is there, or nothing more comes."""
    before = -1
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        now = count()
        if now >= COUNT * TICKS or now == before:
            return
        before = now
        time.sleep(15)


def is_scheduled(api: Api, name: str) -> Any:
    return condition(api.get("Workflow", OURS, name), "Scheduled")
