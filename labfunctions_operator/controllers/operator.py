"""The running operator: caches that follow the cluster, and the engine that they wake."""

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Any

from labfunctions_operator.api.labels import MANAGED_BY, PART_OF
from labfunctions_operator.controllers.archive import Archive
from labfunctions_operator.controllers.claims import Claims
from labfunctions_operator.controllers.clock import Clock, utc_now, watch_clock
from labfunctions_operator.controllers.cron_jobs import CronJobs
from labfunctions_operator.controllers.dispatch import Dispatch
from labfunctions_operator.controllers.engine import Engine
from labfunctions_operator.controllers.executor import Executor
from labfunctions_operator.controllers.grants import Grants
from labfunctions_operator.controllers.nodegroups import NodeGroups
from labfunctions_operator.controllers.notifier import Notifier
from labfunctions_operator.controllers.past import PastReader
from labfunctions_operator.controllers.pools import Pools
from labfunctions_operator.controllers.reconcilers import Reconcilers
from labfunctions_operator.controllers.reports import Reports
from labfunctions_operator.controllers.retention import RetentionKeeper
from labfunctions_operator.controllers.source import SourceTracker
from labfunctions_operator.controllers.world import World
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
from labfunctions_operator.metrics.recorder import Metrics
from labfunctions_operator.metrics.server import MetricsServer
from labfunctions_operator.metrics.state import StateCollector
from labfunctions_operator.providers.nodes.factory import make_provider
from labfunctions_operator.providers.store import Store
from labfunctions_operator.reconcile.plan import Key
from labfunctions_operator.settings import Settings

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 600
RETRY_SECONDS = 5.0
# A burst of Runs and pods is counted once.
_DEBOUNCE = 1.0
_OURS = f"{PART_OF}=labfunctions,{MANAGED_BY}=labfunctions-operator"


class Operator:
    """Everything that lives as long as the process does."""

    def __init__(self, client: KubeClient, settings: Settings, *, clock: Clock = utc_now) -> None:
        self._client = client
        self._clock = clock
        self._settings = settings
        self._world = World(autoscaling=settings.autoscaling.enabled)
        self._metrics = metrics = Metrics(self._world.caches)
        self._store = _open_store(settings)
        grants = Grants(self._store, settings.reports.url, settings.reports.key_file.read_bytes())
        self._reports = Reports(grants, self._wake)
        cron_jobs = CronJobs(self._world, grants, settings)
        self._claims = Claims(grants, self._world, cron_jobs)
        self._sources = SourceTracker(
            client, settings.cache_dir, self._source_read, measured=metrics.source_read
        )
        self._past = PastReader(self._store, self._world, self._wake)
        self._dispatch = Dispatch(client, self._store, settings.notifications, utc_now)
        self._notifier = Notifier(self._dispatch, self._wake, utc_now)
        self._pools = Pools(
            lambda group: make_provider(group, client),
            self._wake,
            measured=metrics.node_group_written,
        )
        executor = Executor(client, self._world.caches, metrics.status_written, metrics.event)
        self._reconcilers = Reconcilers(
            client=client,
            world=self._world,
            sources=self._sources,
            grants=grants,
            reports=self._reports,
            cron_jobs=cron_jobs,
            archive=Archive(self._store, self._world, clock),
            past=self._past,
            notifier=self._notifier,
            executor=executor,
            node_groups=NodeGroups(
                client=client,
                world=self._world,
                pools=self._pools,
                executor=executor,
                settings=settings,
            ),
            settings=settings,
            clock=clock,
        )
        self._engine = Engine(metrics.timed(self._reconcilers.reconcile))
        metrics.registry.register(
            StateCollector(
                self._world.caches,
                metrics.workflows,
                self._engine,
                requests=client.requests,
                messages=self._notifier.messages,
            )
        )
        self._metrics_server = MetricsServer(metrics.registry)
        self._informers = [
            Informer(client, resource, self._world.caches[resource.kind], self._changed, _OURS)
            for resource in (JOBS, CRON_JOBS, PODS)
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
        await self._reports.start(self._settings.reports.port, self._claims.routes())
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
        await self._reports.stop()
        await self._engine.stop()
        await self._record_messages()
        self._dispatch.close()
        await self._sources.close()
        await self._pools.close()
        await self._past.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._store.close()
        await self._client.close()

    async def _record_messages(self) -> None:
        """Put on record what was sent, so that the next process does not send it again."""
        for key in await self._notifier.stop():
            try:
                async with asyncio.timeout(RETRY_SECONDS):
                    await self._reconcilers.reconcile(key)
            except (Transient, Denied, TimeoutError) as error:
                logger.warning("a sent message is not on record: %s", error)

    def observe(self, kind: str, event: str | None, obj: Mapping[str, Any]) -> None:
        """Take in what a watch shows of one of our kinds."""
        cache = self._world.caches[kind]
        held = dict(obj)
        if event == "DELETED":
            cache.remove(held)
        else:
            cache.upsert(held)
        self._changed(held)

    def _wake(self, key: Key) -> None:
        self._engine.enqueue(key)

    def _changed(self, obj: Mapping[str, Any]) -> None:
        for key in self._world.concerned(obj):
            self._engine.enqueue(key, after=_DEBOUNCE if key.kind == "NodeGroup" else 0.0)

    def _source_read(self, project: Key, is_news: bool) -> None:
        self._engine.enqueue(project)
        for key in self._world.dependents(project) if is_news else ():
            self._engine.enqueue(key)

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
            self._reports.keep_only(obj["metadata"]["uid"] for obj in self._world.live_runs())
            self._metrics.forget_gone({key.namespace for key in self._world.all_keys()})

    def _clock_was_set(self) -> None:
        for key in self._world.all_keys():
            if key.kind == "Workflow":
                self._engine.enqueue(key)


def _open_store(settings: Settings) -> Store:
    keys: dict[str, str | None] = {"accessKeyID": None, "secretAccessKey": None}
    folder = settings.store.credentials_dir
    for name in keys:
        if folder and (folder / name).is_file():
            keys[name] = (folder / name).read_text().strip()
    return Store(
        endpoint=settings.store.endpoint or None,
        region=settings.store.region,
        bucket=settings.store.bucket,
        prefix=settings.store.prefix,
        access_key=keys["accessKeyID"],
        secret_key=keys["secretAccessKey"],
    )
