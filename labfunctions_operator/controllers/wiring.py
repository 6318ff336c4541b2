"""The parts of the operator, put together; nothing here starts or waits."""

from collections.abc import Callable, Mapping
from typing import Any

from labfunctions_operator.controllers.archive import Archive
from labfunctions_operator.controllers.claims import Claims
from labfunctions_operator.controllers.clock import Clock, utc_now
from labfunctions_operator.controllers.cron_jobs import CronJobs
from labfunctions_operator.controllers.dependents import Dependents
from labfunctions_operator.controllers.dispatch import Dispatch
from labfunctions_operator.controllers.event_reader import EventReader
from labfunctions_operator.controllers.executor import Executor
from labfunctions_operator.controllers.grants import Grants
from labfunctions_operator.controllers.inquiry import Inquiry
from labfunctions_operator.controllers.nodegroups import NodeGroups
from labfunctions_operator.controllers.notifier import Notifier
from labfunctions_operator.controllers.past import PastReader
from labfunctions_operator.controllers.pools import Pools
from labfunctions_operator.controllers.reconcilers import Reconcilers
from labfunctions_operator.controllers.reports import Reports
from labfunctions_operator.controllers.run_observer import RunObserver
from labfunctions_operator.controllers.source import SourceTracker
from labfunctions_operator.controllers.world import World
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.metrics.recorder import Metrics
from labfunctions_operator.providers.nodes.factory import make_provider
from labfunctions_operator.providers.store import Store
from labfunctions_operator.reconcile.plan import Key
from labfunctions_operator.settings import Settings


class Parts:
    """Everything that decides, observes or sends, each part with those it needs.

    Args:
        client: Talks to the API server.
        settings: The operator's configuration.
        store: Where results and records lie.
        clock: The time that decisions see.
        wake: Called with the key of an object that is to be looked at.
        written: Called with an object that was written, and its maker.
    """

    def __init__(
        self,
        client: KubeClient,
        settings: Settings,
        store: Store,
        *,
        clock: Clock,
        wake: Callable[[Key], None],
        written: Callable[[Mapping[str, Any], Mapping[str, Any]], None],
    ) -> None:
        self._client = client
        self._store = store
        self._settings = settings
        self._clock = clock
        self._wake = wake
        self._written = written
        self.world = World()
        self.dependents = Dependents(self.world, autoscaling=settings.autoscaling.enabled)
        self.metrics = Metrics(self.world.caches)
        grants = Grants(self._store, settings.reports.url, settings.reports.key_file.read_bytes())
        cron_jobs = CronJobs(self.world, grants, settings)
        self.reports = Reports(grants, wake, self._clock)
        self.claims = Claims(grants, self.world, cron_jobs)
        self.sources = SourceTracker(
            client, settings.cache_dir, self._source_read, measured=self.metrics.source_read
        )
        self.events = EventReader(client, wake)
        self.past = PastReader(self._store, self.world, wake)
        self.dispatch = Dispatch(client, self._store, settings.notifications, utc_now)
        self.notifier = Notifier(self.dispatch, wake, utc_now, measured=self.metrics.message_ended)
        self.pools = Pools(
            lambda group: make_provider(group, client),
            wake,
            measured=self.metrics.node_group_written,
        )
        self.archive = Archive(store, self.world, clock)
        self.reconcilers = self._make_reconcilers(grants, cron_jobs)

    async def close(self) -> None:
        """Stop all that goes on beside the engine."""
        self.dispatch.close()
        await self.sources.close()
        await self.pools.close()
        await self.past.close()
        await self.events.close()

    def _make_reconcilers(self, grants: Grants, cron_jobs: CronJobs) -> Reconcilers:
        executor = Executor(
            self._client,
            self.world.caches,
            self.metrics.status_written,
            self.metrics.event,
            self._written,
        )
        return Reconcilers(
            client=self._client,
            world=self.world,
            sources=self.sources,
            runs=RunObserver(
                world=self.world,
                sources=self.sources,
                grants=grants,
                reports=self.reports,
                cron_jobs=cron_jobs,
                inquiry=Inquiry(self._client, self.events, self._clock),
            ),
            cron_jobs=cron_jobs,
            archive=self.archive,
            past=self.past,
            notifier=self.notifier,
            executor=executor,
            node_groups=NodeGroups(
                client=self._client,
                world=self.world,
                pools=self.pools,
                executor=executor,
                settings=self._settings,
            ),
            settings=self._settings,
            clock=self._clock,
        )

    def _source_read(self, project: Key, is_news: bool) -> None:
        self._wake(project)
        for key in self.dependents.of_project(project) if is_news else ():
            self._wake(key)


def open_store(settings: Settings) -> Store:
    """Return the operator's own store, with the credentials that are mounted, if any are."""
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
