"""What has run already, read from a real S3 server."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from labfunctions_operator.api.backfill import Backfill
from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.controllers.past import PastReader
from labfunctions_operator.controllers.world import World
from labfunctions_operator.providers.store import Store
from labfunctions_operator.reconcile.past import Past, minute_of
from labfunctions_operator.reconcile.plan import Key, Problem
from tests.providers.provider_servers import S3Server

KEY = Key("Backfill", "team", "again")
FIRST = datetime(2026, 3, 1, tzinfo=UTC)
TICKS = tuple(FIRST + timedelta(hours=n) for n in range(4))
META: dict[str, Any] = {"namespace": "team", "uid": "u", "generation": 1}


def workflow() -> Workflow:
    spec = {
        "projectRef": {"name": "wine"},
        "notebook": "a.ipynb",
        "schedule": "0 * * * *",
    }
    return parse(Workflow, {"metadata": {**META, "name": "report"}, "spec": spec})


def backfill(reprocess: str = "None") -> Backfill:
    times = {"from": TICKS[0].isoformat(), "to": TICKS[-1].isoformat()}
    spec = {"workflowRef": {"name": "report"}, **times, "reprocess": reprocess}
    return parse(Backfill, {"metadata": {**META, "name": "again"}, "spec": spec})


def record(store: Store, hour: int, phase: str, *, uid: str = "0123abcd", created: int = 0) -> None:
    time = (FIRST + timedelta(days=1, minutes=created)).isoformat()
    content = {"metadata": {"creationTimestamp": time}, "status": {"phase": phase}}
    folder = f"team/wine/report/report-{minute_of(TICKS[hour])}-{uid}"
    store.put_json(f"{folder}/run.json", content)
    store.put_json(f"{folder}/1/result.json", {})


class Reader:
    """A reader whose news can be waited for."""

    def __init__(self, store: Store) -> None:
        self.world = World()
        self.news: asyncio.Queue[Key] = asyncio.Queue()
        self.reader = PastReader(store, self.world, self.news.put_nowait)

    async def read(self, wanted: Backfill) -> Past | Problem | None:
        assert self.reader.view(KEY, wanted, workflow()) is None
        assert await self.news.get() == KEY
        return self.reader.view(KEY, wanted, workflow())


@pytest.fixture
async def reader(store: Store) -> AsyncIterator[Reader]:
    made = Reader(store)
    yield made
    await made.reader.close()


async def test_records_tell_what_has_run(store: Store, reader: Reader) -> None:
    record(store, 0, "Succeeded")
    record(store, 2, "Failed")
    store.put_json(f"team/wine/other/other-{minute_of(TICKS[1])}-0123abcd/run.json", {})
    found = await reader.read(backfill())
    assert isinstance(found, Past)
    assert found.ticks == TICKS
    assert set(found.runs) == {minute_of(TICKS[0]), minute_of(TICKS[2])}


async def test_the_record_of_the_run_that_was_made_last_decides(
    store: Store, reader: Reader
) -> None:
    for hour, phases in enumerate((("Failed", "Succeeded"), ("Succeeded", "Failed"))):
        record(store, hour, phases[1], uid="aaaaaaaa", created=9)
        record(store, hour, phases[0], uid="bbbbbbbb")
    found = await reader.read(backfill("Failed"))
    assert isinstance(found, Past)
    assert [found.runs[minute_of(tick)].phase for tick in TICKS[:2]] == ["Succeeded", "Failed"]


async def test_a_run_that_exists_is_known_even_if_it_goes_later(reader: Reader) -> None:
    annotations = {"labfunctions.io/scheduled-at": TICKS[3].isoformat()}
    metadata = {**META, "name": "x", "resourceVersion": "1", "annotations": annotations}
    spec = {"workflowRef": {"name": "report"}}
    reader.world.caches["Run"].upsert({"metadata": metadata, "spec": spec, "status": {}})
    found = await reader.read(backfill())
    assert isinstance(found, Past)
    assert set(found.runs) == {minute_of(TICKS[3])}


async def test_for_all_the_store_is_not_asked(reader: Reader, s3_server: S3Server) -> None:
    s3_server.stop()
    try:
        found = await reader.read(backfill("All"))
    finally:
        s3_server.start()
    assert found == Past(ticks=TICKS, runs={})


async def test_a_store_that_is_down_is_said_and_asked_again(
    store: Store, reader: Reader, s3_server: S3Server
) -> None:
    record(store, 0, "Succeeded")
    s3_server.stop()
    try:
        found = await reader.read(backfill())
    finally:
        s3_server.start()
    assert isinstance(found, Problem)
    assert found.reason == "StoreUnavailable"
    assert await reader.news.get() == KEY
    assert isinstance(reader.reader.view(KEY, backfill(), workflow()), Past)


async def test_it_is_read_once_and_anew_for_another_schedule(reader: Reader) -> None:
    await reader.read(backfill())
    assert isinstance(reader.reader.view(KEY, backfill(), workflow()), Past)
    edited = workflow().but(spec=workflow().spec.but(schedule="30 * * * *"))
    assert reader.reader.view(KEY, backfill(), edited) is None
