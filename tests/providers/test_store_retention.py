"""Retention against a real S3 server: what goes, and all that stays."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from labfunctions_operator.api.project import Project
from labfunctions_operator.controllers.retention import RetentionKeeper
from labfunctions_operator.controllers.world import World
from labfunctions_operator.errors import Transient
from labfunctions_operator.providers.store import Store
from tests.providers.provider_servers import S3Server

UID = "12345678-0000-0000-0000-000000000000"


def project(**retention: int) -> Project:
    spec: dict[str, Any] = {
        "source": {"git": {"url": "https://git.example.com/wine.git"}},
        "outputs": {"retention": retention} if retention else {},
    }
    return Project.model_validate({"metadata": {"name": "wine", "namespace": "team"}, "spec": spec})


def keys(store: Store) -> list[str]:
    return sorted(file.key for file in store.list(""))


def keeper(store: Store, world: World, *, in_days: float = 0) -> RetentionKeeper:
    return RetentionKeeper(store, world, lambda: datetime.now(UTC) + timedelta(days=in_days))


async def test_what_is_too_old_goes_and_nothing_else_does(store: Store) -> None:
    world = World()
    metadata = {"name": "live", "namespace": "team", "uid": UID, "resourceVersion": "1"}
    world.caches["Run"].upsert({"kind": "Run", "metadata": metadata, "status": {}})
    strangers = [
        "other/wine/report/first-aaaaaaaa/run.json",
        "team/wine-2/report/first-aaaaaaaa/run.json",
        "team/wine/report/live-12345678/1/notebook.ipynb",
        "team/wine/readme.json",
    ]
    old = ["team/wine/report/first-aaaaaaaa/run.json", "team/wine/adhoc/x-bbbbbbbb/1/result.json"]
    for key in (*strangers, *old):
        store.put_json(key, {})

    assert await keeper(store, world).apply(project(days=30)) == []
    assert await keeper(store, world, in_days=31).apply(project()) == []
    assert keys(store) == sorted(strangers + old)
    gone = await keeper(store, world, in_days=31).apply(project(days=30))
    assert sorted(folder.name for folder in gone) == ["first-aaaaaaaa", "x-bbbbbbbb"]
    assert keys(store) == sorted(strangers)


async def test_more_files_than_fit_into_one_request(store: Store) -> None:
    for number in range(1005):
        store.put_json(f"team/wine/report/first-aaaaaaaa/{number}/result.json", {})
    store.put_json("team/wine/report/second-bbbbbbbb/run.json", {})
    await keeper(store, World(), in_days=1).apply(project(keepLast=1))
    assert keys(store) == ["team/wine/report/second-bbbbbbbb/run.json"]


async def test_a_store_that_is_away_is_a_failure_that_passes(
    store: Store, s3_server: S3Server
) -> None:
    store.put_json("team/wine/report/first-aaaaaaaa/run.json", {})
    s3_server.stop()
    try:
        with pytest.raises(Transient):
            await keeper(store, World(), in_days=9).apply(project(days=1))
    finally:
        s3_server.start()
    assert len(keys(store)) == 1
