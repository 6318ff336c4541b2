"""What the running operator does beside its engine: that it is wired up at all."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from objects import NOW, Object, make_object, make_settings, stamp

from labfunctions_operator.controllers import operator, retention
from labfunctions_operator.controllers.clock import watch_clock
from labfunctions_operator.controllers.operator import Operator
from labfunctions_operator.controllers.reconcilers import Reconcilers
from labfunctions_operator.kube.client import ListResult
from labfunctions_operator.kube.resources import Resource
from labfunctions_operator.providers.store import StoredFile
from labfunctions_operator.reconcile.plan import Key

OLD = "demo/report/report-1-0123abcd/run.json"
OBJECTS = [
    make_object("Project", "demo", {"outputs": {"retention": {"days": 30}}}),
    make_object("Workflow", "report", {"schedule": "0 * * * *"}),
    make_object("Backfill", "again", {"workflowRef": {"name": "report"}, "to": stamp(3600)}),
    make_object(
        "Run",
        "first",
        {"workflowRef": {"name": "report"}},
        {"phase": "Running", "attempts": [{"number": 1}]},
    ),
]
OBJECTS[0]["spec"]["source"] = {"git": {"url": "https://git.example.com/demo.git"}}


class FakeClient:
    """Lists what there is; no watch tells of anything."""

    def __init__(self) -> None:
        self.objects = [_stored(obj) for obj in OBJECTS]
        self.version = 1
        self.requests: dict[tuple[str, int], int] = {}

    async def list(self, resource: Resource, **_: Any) -> ListResult:
        found = [obj for obj in self.objects if obj["kind"] == resource.kind]
        self.version += 1
        return ListResult(found, str(self.version))

    async def watch(self, *_: Any, **__: Any) -> AsyncGenerator[tuple[str, Object], None]:
        await asyncio.Event().wait()
        yield "", {}

    async def close(self) -> None:
        pass


def _stored(obj: Object) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": "1"}}


class FakeStore:
    def __init__(self) -> None:
        self.deleted: list[str] = []
        self.records: list[str] = []

    def ensure_bucket(self) -> None:
        pass

    def uri(self, key: str) -> str:
        return key

    def exists(self, key: str) -> bool:
        return key in self.records

    def put_json(self, key: str, value: Any) -> None:
        self.records.append(key)

    def list(self, prefix: str) -> Iterator[StoredFile]:
        yield StoredFile(key=f"team/{OLD}", written=NOW - timedelta(days=31))

    def delete(self, keys: Sequence[str]) -> None:
        self.deleted += keys

    def close(self) -> None:
        pass


class Stage:
    """An operator that runs, the clock that it reads, and the keys that it looks at."""

    operator: Operator

    def __init__(self) -> None:
        self.client = FakeClient()
        self.store = FakeStore()
        self.looked: list[Key] = []
        self.shift = timedelta(0)

    def clock(self) -> Any:
        return NOW + timedelta(seconds=asyncio.get_running_loop().time()) + self.shift

    async def reconcile(self, key: Key) -> None:
        self.looked.append(key)

    def kinds(self) -> list[str]:
        return sorted(key.kind for key in self.looked)

    async def until_looked_at(self, count: int) -> None:
        while len(self.looked) < count:  # noqa: ASYNC110 -- the engine has no event for that
            await asyncio.sleep(0.005)


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    made = Stage()
    (tmp_path / "key").write_text("a key")
    monkeypatch.setattr(operator, "open_store", lambda settings: made.store)
    monkeypatch.setattr(operator, "watch_clock", partial(watch_clock, seconds=0.005))
    monkeypatch.setattr(retention, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(Reconcilers, "reconcile", made.reconcile)
    settings = make_settings(
        reports={"url": "http://127.0.0.1", "keyFile": str(tmp_path / "key"), "port": 0},
        metrics={"port": 0},
        cacheDir=str(tmp_path / "cache"),
    )
    made.operator = Operator(made.client, settings, clock=made.clock)  # type: ignore[arg-type]
    await made.operator.start()
    yield made
    await made.operator.stop()


async def test_what_depends_on_the_time_is_looked_at_when_the_clock_was_set(stage: Stage) -> None:
    await stage.until_looked_at(len(OBJECTS))
    stage.looked.clear()
    stage.shift = timedelta(hours=2)
    await stage.until_looked_at(2)
    assert stage.kinds() == ["Backfill", "Workflow"]


async def test_retention_is_applied_soon_after_the_start(stage: Stage) -> None:
    while not stage.store.deleted:  # noqa: ASYNC110 -- the store has no event for that
        await asyncio.sleep(0.005)
    assert stage.store.deleted == [f"team/{OLD}"]


@pytest.mark.parametrize("is_told", [True, False], ids=["a watch tells of it", "a list lacks it"])
async def test_a_run_that_is_gone_is_to_be_recorded(stage: Stage, *, is_told: bool) -> None:
    run = stage.client.objects.pop()
    await stage.until_looked_at(len(OBJECTS))
    stage.looked.clear()
    if is_told:
        stage.operator.observe("Run", "DELETED", run)
    else:
        await stage.operator._list()
    await stage.until_looked_at(1)
    key = Key("Run", "team", "first")
    assert key in stage.looked
    await stage.operator._parts.archive.record_deleted(key)
    uid = run["metadata"]["uid"]
    assert stage.store.records == [f"team/unknown/report/first-{uid[:8]}/run.json"]


def test_retention_begins_within_minutes_and_not_at_once() -> None:
    assert 60 <= retention.FIRST_SECONDS <= 600 < retention.INTERVAL_SECONDS
