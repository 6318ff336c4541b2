"""The cache equals the API server again after every way in which a watch can fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from dev.cluster.controlplane import ControlPlane
from labfunctions_operator.kube import connection
from labfunctions_operator.kube.cache import Cache
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.kube.informer import Informer
from labfunctions_operator.kube.resources import JOBS
from labfunctions_operator.reconcile.plan import Ref

from .harness import PROBES, Proxy, job, probe, until

Object = dict[str, Any]


class Follower:
    """A running informer of Probes, and the names that it reported."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client = client
        self.cache = Cache()
        self.changes: list[str] = []
        self._namespace = namespace
        self.informer = Informer(client, PROBES, self.cache, self._note)

    def _note(self, obj: Object) -> None:
        if obj["metadata"]["namespace"] == self._namespace:
            self.changes.append(obj["metadata"]["name"])

    def names(self) -> set[str]:
        metadata = (obj["metadata"] for obj in self.cache.objects())
        return {m["name"] for m in metadata if m["namespace"] == self._namespace}

    @property
    def lists(self) -> int:
        return self.client.requests["list", 200]

    @property
    def watches(self) -> int:
        return self.client.requests["watch", 200]


@asynccontextmanager
async def following(client: KubeClient, namespace: str) -> AsyncIterator[Follower]:
    follower = Follower(client, namespace)
    task = asyncio.create_task(follower.informer.run())
    try:
        await until(lambda: follower.watches or task.done(), "the informer watches")
        yield follower
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def remove(client: KubeClient, namespace: str, name: str) -> None:
    await client.delete(
        Ref(api_version=PROBES.api_version, kind="Probe", namespace=namespace, name=name)
    )


async def test_informer_shows_what_is_and_what_comes(client: KubeClient, namespace: str) -> None:
    await client.apply(probe(namespace, "before"))
    async with following(client, namespace) as follower:
        assert follower.informer.synced.is_set()
        assert follower.names() == {"before"}
        await client.apply(probe(namespace, "after"))
        await until(lambda: follower.names() == {"before", "after"}, "the new one is known")
        await remove(client, namespace, "before")
        await until(lambda: follower.names() == {"after"}, "the deleted one is forgotten")
        assert follower.changes == ["before", "after", "before"]
        assert "managedFields" not in follower.cache.objects()[0]["metadata"]


async def test_informer_reports_a_change_whose_response_was_taken_in_already(
    client: KubeClient, namespace: str
) -> None:
    async with following(client, namespace) as follower:
        follower.cache.upsert(await client.apply(probe(namespace)))
        await until(lambda: follower.changes == ["p"], "others hear of our own write")


async def test_informer_follows_only_what_its_selector_names(
    client: KubeClient, namespace: str
) -> None:
    cache = Cache()
    informer = Informer(client, JOBS, cache, lambda obj: None, "labfunctions.io/run")
    task = asyncio.create_task(informer.run())
    await informer.synced.wait()
    await client.create(job(namespace, "foreign"))
    marked = job(namespace, "marked")
    marked["metadata"]["labels"] = {"labfunctions.io/run": "r"}
    await client.create(marked)
    await until(lambda: cache.get(namespace, "marked"), "the marked Job is known")
    assert cache.get(namespace, "foreign") is None
    task.cancel()
    await asyncio.wait([task])


async def test_informer_continues_a_broken_watch_where_it_was(
    client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    for name in ("a", "b"):
        await client.apply(probe(namespace, name))
    async with following(proxied, namespace) as follower:
        proxy.cut()
        await remove(client, namespace, "a")
        await client.apply(probe(namespace, "c"))
        proxy.restore()
        await until(lambda: follower.names() == {"b", "c"}, "the gap is closed")
        assert follower.lists == 1


async def test_informer_lists_anew_when_the_server_forgot_and_drops_what_was_deleted_meanwhile(
    client: KubeClient,
    proxied: KubeClient,
    proxy: Proxy,
    control_plane: ControlPlane,
    namespace: str,
) -> None:
    for name in ("a", "b", "c"):
        await client.apply(probe(namespace, name))
    async with following(proxied, namespace) as follower:
        proxy.cut()
        await remove(client, namespace, "a")
        await remove(client, namespace, "b")
        await client.apply(probe(namespace, "d"))
        # A new server knows no event that is older than itself.
        await asyncio.to_thread(control_plane.restart_apiserver)
        proxy.restore()
        await until(lambda: follower.names() == {"c", "d"}, "the gap is closed")
        assert follower.lists == 2
        assert sorted(follower.changes) == ["a", "a", "b", "b", "c", "d"]


async def test_informer_outlives_a_restart_of_the_server(
    client: KubeClient, control_plane: ControlPlane, namespace: str
) -> None:
    await client.apply(probe(namespace, "a"))
    async with following(client, namespace) as follower:
        await asyncio.to_thread(control_plane.restart_apiserver)
        await client.apply(probe(namespace, "b"))
        await remove(client, namespace, "a")
        await until(lambda: follower.names() == {"b"}, "the informer is back")


async def test_informer_leaves_a_connection_that_fell_silent(
    client: KubeClient,
    proxied: KubeClient,
    proxy: Proxy,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "WATCH_SILENCE", 1.0)
    async with following(proxied, namespace) as follower:
        proxy.silence()
        await client.apply(probe(namespace, "a"))
        await asyncio.sleep(1.5)
        assert follower.names() == set()
        proxy.cut()
        proxy.restore()
        await until(lambda: follower.names() == {"a"}, "a new watch shows it")
        assert follower.watches >= 2


async def test_informer_waits_for_a_server_that_is_not_there_yet(
    client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    await client.apply(probe(namespace, "a"))
    proxy.cut()
    follower = Follower(proxied, namespace)
    task = asyncio.create_task(follower.informer.run())
    await until(lambda: proxied.requests["list", 0] >= 2, "it keeps trying")
    assert not follower.informer.synced.is_set()
    proxy.restore()
    await asyncio.wait_for(follower.informer.synced.wait(), 15)
    assert follower.names() == {"a"}
    task.cancel()
    await asyncio.wait([task])


async def test_informer_outlives_a_bug_of_whom_it_tells(client: KubeClient, namespace: str) -> None:
    cache = Cache()
    told: list[str] = []

    def on_change(obj: Object) -> None:
        told.append(obj["metadata"]["name"])
        if len(told) == 1:
            raise ZeroDivisionError("bug")

    task = asyncio.create_task(Informer(client, PROBES, cache, on_change).run())
    await client.apply(probe(namespace, "a"))
    await until(lambda: told, "the first change is told")
    await client.apply(probe(namespace, "b"))
    await until(lambda: "b" in told, "the next change is told")
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
