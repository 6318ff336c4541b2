"""The running operator: caches that follow the cluster, and the engine that they wake."""

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Any

from labfunctions_operator.api.labels import MANAGED_BY, PART_OF
from labfunctions_operator.controllers.clock import Clock, utc_now, watch_clock
from labfunctions_operator.controllers.engine import Engine
from labfunctions_operator.controllers.retention import RetentionKeeper
from labfunctions_operator.controllers.wiring import Parts, open_store
from labfunctions_operator.controllers.world import key_of
from labfunctions_operator.errors import Denied, Transient
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.kube.informer import Informer
from labfunctions_operator.kube.resources import (
    BACKFILLS,
    CRON_JOBS,
    JOBS,
    NODE_GROUPS,
    NODES,
    PODS,
    PROJECTS,
    RUNS,
    WORKFLOWS,
)
from labfunctions_operator.metrics.server import MetricsServer
from labfunctions_operator.metrics.state import StateCollector
from labfunctions_operator.reconcile.plan import Key
from labfunctions_operator.settings import Settings

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 600
RETRY_SECONDS = 5.0
# Followed only where they are ours.
CHILDREN = (JOBS, CRON_JOBS, PODS)
# A burst of Runs and pods is counted once.
_DEBOUNCE = 1.0
OURS = f"{PART_OF}=labfunctions,{MANAGED_BY}=labfunctions-operator"


class Operator:
    """Everything that lives as long as the process does."""

    def __init__(self, client: KubeClient, settings: Settings, *, clock: Clock = utc_now) -> None:
        self._client = client
        self._clock = clock
        self._settings = settings
        self._store = open_store(settings)
        self._parts = parts = Parts(
            client,
            settings,
            self._store,
            clock=clock,
            wake=self._wake,
            written=self._written,
        )
        self._world = parts.world
        self._engine = Engine(parts.metrics.timed(parts.reconcilers.reconcile))
        parts.metrics.registry.register(
            StateCollector(
                self._world.caches,
                parts.metrics.workflows,
                parts.metrics.projects,
                self._engine,
                requests=client.requests,
            )
        )
        self._metrics_server = MetricsServer(parts.metrics.registry)
        self._informers = [
            Informer(client, resource, self._world.caches[resource.kind], self._changed, OURS)
            for resource in CHILDREN
        ]
        if settings.autoscaling.enabled:
            nodes = self._world.caches["Node"]
            self._informers.append(Informer(client, NODES, nodes, self._changed))
        self._tasks: list[asyncio.Task[Any]] = []

    async def start(self) -> None:
        """Learn what exists, then begin to work."""
        self._tasks = [
            asyncio.create_task(informer.run(), name="informer") for informer in self._informers
        ]
        self._tasks.append(asyncio.create_task(self._ensure_bucket(), name="bucket"))
        await self._list_until_done()
        for informer in self._informers:
            await informer.synced.wait()
        await self._parts.reports.start(self._settings.reports.port, self._parts.claims.routes())
        retention = RetentionKeeper(self._store, self._world, self._clock)
        await self._metrics_server.start(self._settings.metrics.port)
        self._tasks += [
            asyncio.create_task(self._engine.run(), name="engine"),
            asyncio.create_task(retention.run(), name="retention"),
            asyncio.create_task(self._sweep(), name="sweep"),
            asyncio.create_task(watch_clock(self._clock, self._clock_was_set), name="clock"),
        ]
        logger.info("started with %d objects", len(self._world.all_keys()))

    async def stop(self) -> None:
        """Finish what is under way, and end."""
        await self._metrics_server.stop()
        await self._parts.reports.stop()
        await self._engine.stop()
        await self._record_messages()
        await self._parts.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._store.close()
        await self._client.close()

    async def _record_messages(self) -> None:
        """Put on record what was sent, so that the next process does not send it again."""
        for key in await self._parts.notifier.stop():
            try:
                async with asyncio.timeout(RETRY_SECONDS):
                    await self._parts.reconcilers.reconcile(key)
            except (Transient, Denied, TimeoutError) as error:
                logger.warning("a sent message is not on record: %s", error)

    def observe(self, kind: str, event: str | None, obj: Mapping[str, Any]) -> None:
        """Take in what a watch shows of one of our kinds."""
        cache = self._world.caches[kind]
        held = dict(obj)
        if event == "DELETED":
            cache.remove(held)
            self._gone(held)
        else:
            cache.upsert(held)
        self._changed(held)

    def _gone(self, obj: Mapping[str, Any]) -> None:
        if obj["kind"] == "Run":
            self._parts.archive.take_over(obj)

    def _wake(self, key: Key) -> None:
        self._engine.enqueue(key)

    def _changed(self, obj: Mapping[str, Any]) -> None:
        for key in self._parts.dependents.concerned(obj):
            self._engine.enqueue(key, after=_DEBOUNCE if key.kind == "NodeGroup" else 0.0)

    def _written(self, child: Mapping[str, Any], maker: Mapping[str, Any]) -> None:
        """Start a tick's Run at once: its event comes behind those of all other ticks."""
        if child["kind"] == "Run":
            self._engine.enqueue_child(key_of(child), key_of(maker))

    async def _ensure_bucket(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._store.ensure_bucket)
                return
            except (Transient, Denied) as error:
                logger.warning("the store is not ready: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _list_until_done(self) -> None:
        while True:
            try:
                await self._list()
                return
            except (Transient, Denied) as error:
                logger.warning("cannot list our kinds yet: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _list(self) -> None:
        """List our kinds anew: objects deleted while nobody watched leave no event."""
        for resource in (NODE_GROUPS, PROJECTS, WORKFLOWS, BACKFILLS, RUNS):
            listed = await self._client.list(resource)
            changed = self._world.caches[resource.kind].replace(
                listed.items, listed.resource_version
            )
            for obj in changed:
                if self._world.get(key_of(obj)) is None:
                    self._gone(obj)
                self._changed(obj)

    async def _sweep(self) -> None:
        """Look at everything now and then, for what no event has told."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.9, 1.1))
            try:
                await self._list()
            except (Transient, Denied) as error:
                logger.warning("cannot sweep: %s", error)
                continue
            for key in self._world.all_keys():
                self._engine.enqueue(key, after=random.uniform(0, SWEEP_SECONDS / 10))
            self._parts.reports.keep_only(obj["metadata"]["uid"] for obj in self._world.live_runs())
            self._parts.metrics.forget_gone({key.namespace for key in self._world.all_keys()})

    def _clock_was_set(self) -> None:
        for key in self._world.all_keys():
            if key.kind in ("Workflow", "Backfill"):
                self._engine.enqueue(key)
