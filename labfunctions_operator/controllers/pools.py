"""Talks to the providers of nodes beside the reconciler, which never waits for a cloud."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.controllers.leaving import lower_raise, raise_on_record
from labfunctions_operator.controllers.pool_failures import (
    CALL_TIMEOUT,
    FIRST_DELAY,
    delay_after,
    log_failure,
    problem_of,
)
from labfunctions_operator.errors import Drifted, NotFound
from labfunctions_operator.providers.nodes.protocol import NodeProvider
from labfunctions_operator.reconcile.nodes import Bounds, GroupSize, PoolView
from labfunctions_operator.reconcile.plan import Key, Problem

logger = logging.getLogger(__name__)

Factory = Callable[[NodeGroup], NodeProvider | None]

READ_INTERVAL = 60.0
CHANGING_INTERVAL = 15.0
WRITE_INTERVAL = 5.0
LEAVING_ATTEMPTS = 8


@dataclass(kw_only=True)
class _Pool:
    """One pool, and what is under way there.

    Attributes:
        group: As it was followed last.
        provider: None until it is asked for the first time.
        told: What it has confirmed in this process, and still shows.
        confirmed: What it showed then.
        wanted: What it is to be told, and may have been by another process.
        due: When it is looked at next.
        failures: Looks that failed, in a row.
        write_due: When it may be written to.
        refusals: Writes that failed, in a row; looks in between do not count.
        refusal: Why the last one did, until one succeeds or nothing is to be written.
    """

    group: NodeGroup
    provider: NodeProvider | None = None
    view: PoolView = field(default_factory=PoolView)
    told: Bounds | None = None
    confirmed: GroupSize | None = None
    wanted: Bounds | None = None
    due: float = 0.0
    failures: int = 0
    write_due: float = 0.0
    refusals: int = 0
    refusal: Problem | None = None
    task: asyncio.Task[None] | None = None


class Pools:
    """Knows each group's pool as it was last read, and writes what is wanted there.

    Args:
        make: Returns a new provider for a group, or None where it has none outside the cluster.
        on_news: Called with a group's key when its pool is known better than before.
        measured: Called with a group's name and the result of each write there.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        make: Factory,
        on_news: Callable[[Key], None],
        *,
        measured: Callable[[str, str], None] = lambda name, result: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._on_news = on_news
        self._measured = measured
        self._clock = clock
        self._pools: dict[Key, _Pool] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._leaving: dict[Key, asyncio.Lock] = {}

    def view(self, key: Key, group: NodeGroup) -> PoolView | None:
        """Return what is known of a pool, or None for a group without one; starts nothing."""
        if not is_remote(group):
            return None
        pool = self._pools.get(key)
        if pool is None or not _is_same(pool.group, group):
            return PoolView()
        return pool.view

    def follow(self, key: Key, group: NodeGroup, wanted: Bounds | None) -> float | None:
        """See that a pool is read now and then, and told what is wanted.

        Returns:
            The seconds until it is to be followed again, or None while a call is under way.
        """
        if not is_remote(group):
            self.leave(key)
            return None
        pool = self._pools.get(key)
        if pool is None or not _is_same(pool.group, group):
            self.leave(key)
            pool = self._pools[key] = _Pool(group=group)
        pool.group, pool.wanted = group, wanted or pool.wanted
        now = self._clock()
        is_news = wanted is not None and wanted != pool.told and pool.view.size is not None
        if is_news:
            pool.due = min(pool.due, pool.write_due)
        if pool.task is None and now >= pool.due:
            bounds = wanted if is_news and now >= pool.write_due else None
            pool.view = replace(pool.view, is_writing=bounds is not None)
            pool.task = asyncio.create_task(self._call(key, pool, bounds), name=f"pool {key}")
        return None if pool.task else max(0.1, pool.due - self._clock())

    def leave(self, key: Key) -> None:
        """Let go of the pool of a group that is gone or has another; a raise is put back first."""
        pool = self._pools.pop(key, None)
        if pool:
            closing = asyncio.create_task(self._leave(key, pool), name=f"leave pool {key}")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Stop all calls and let go of all connections; raises stay, for the next process."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        pools = [self._pools.pop(key) for key in list(self._pools)]
        await asyncio.gather(*(_close(pool) for pool in pools))

    async def _leave(self, key: Key, pool: _Pool) -> None:
        """Try for some minutes to put back what is raised; nobody is left to be told otherwise."""
        lock = self._leaving[key] = asyncio.Lock()
        try:
            if pool.task:
                await asyncio.wait([pool.task])
            for failures in range(LEAVING_ATTEMPTS):
                try:
                    async with lock, asyncio.timeout(CALL_TIMEOUT):
                        await self._lower(key, pool)
                    return
                except NotFound:
                    return
                except Exception as error:
                    log_failure(key, problem_of(error), error)
                    await asyncio.sleep(delay_after(error, failures))
            logger.warning("the pool of NodeGroup %s, which is gone, stays raised", key.name)
        finally:
            if self._leaving.get(key) is lock:
                del self._leaving[key]
            await _close(pool)

    async def _lower(self, key: Key, pool: _Pool) -> None:
        successor = self._pools.get(key)
        if successor and successor.group.spec.provider == pool.group.spec.provider:
            return  # the group was made anew: the pool is taken over as it is
        told = [bounds for bounds in (pool.told, pool.wanted) if bounds]
        if not told and (recorded := raise_on_record(pool.group)):
            told = [recorded]
        if await lower_raise(self._provider_of(pool), told, pool.group.spec.min):
            logger.info("lowered the pool of NodeGroup %s, which is gone", key.name)

    async def _call(self, key: Key, pool: _Pool, bounds: Bounds | None) -> None:
        before = pool.view
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                size = await self._read(key, pool)
                if size.is_changing:
                    bounds = None
                if bounds is not None:
                    size = await self._write(pool, bounds, size)
            self._succeed(pool, size, bounds)
        except Exception as error:
            if bounds is None:
                self._fail(key, pool, error)
            else:
                self._refuse(key, pool, error)
        if bounds is not None:
            self._measured(key.name, "Failed" if pool.refusals else "Succeeded")
        pool.task = None
        if self._pools.get(key) is pool and pool.view != before:
            self._on_news(key)

    async def _read(self, key: Key, pool: _Pool) -> GroupSize:
        if lock := self._leaving.get(key):
            async with lock:
                pass  # it may be this very pool that an earlier group of that name lowers
        return await self._provider_of(pool).read()

    async def _write(self, pool: _Pool, bounds: Bounds, seen: GroupSize) -> GroupSize:
        # What was decided on is what is compared with: a newer state needs a newer decision.
        if pool.view.size is None or not _shows_same(pool.view.size, seen):
            raise Drifted("the pool has changed since it was last read")
        return await self._provider_of(pool).write(bounds, seen)

    def _provider_of(self, pool: _Pool) -> NodeProvider:
        if pool.provider is None:
            pool.provider = self._make(pool.group)
        assert pool.provider is not None
        return pool.provider

    def _succeed(self, pool: _Pool, size: GroupSize, bounds: Bounds | None) -> None:
        if bounds is not None:
            pool.told, pool.confirmed = bounds, size
            pool.write_due = self._clock() + WRITE_INTERVAL
        # What somebody undid, or a provider has lost, is to be told again.
        elif pool.confirmed and not size.is_changing and not _shows_same(pool.confirmed, size):
            pool.told = None
        if bounds is not None or pool.told == pool.wanted:
            pool.refusals, pool.refusal = 0, None
        pool.failures = 0
        pool.due = self._clock() + (CHANGING_INTERVAL if size.is_changing else READ_INTERVAL)
        pool.view = PoolView(size=size, problem=pool.refusal)

    def _fail(self, key: Key, pool: _Pool, error: Exception) -> None:
        """Say why a pool cannot be read; what was known of it stays."""
        problem = problem_of(error)
        log_failure(key, problem, error)
        pool.view = PoolView(size=pool.view.size, problem=problem)
        pool.due = self._clock() + delay_after(error, pool.failures)
        pool.failures += 1

    def _refuse(self, key: Key, pool: _Pool, error: Exception) -> None:
        """Say why a pool cannot be written to; it may have been: it is read before the next try.

        The first time that it has changed meanwhile is nothing to speak of.
        """
        wait = 0.0
        if not isinstance(error, Drifted) or pool.refusals:
            pool.refusal = problem_of(error)
            log_failure(key, pool.refusal, error)
            wait = delay_after(error, pool.refusals)
        pool.refusals += 1
        pool.view = PoolView(problem=pool.refusal)
        pool.due = self._clock() + min(wait, FIRST_DELAY)
        pool.write_due = self._clock() + wait


def is_remote(group: NodeGroup) -> bool:
    """Whether a group's size is bounded somewhere else than by objects of this cluster's own."""
    provider = group.spec.provider
    return provider.capacity is None and provider.static is None


def _is_same(one: NodeGroup, other: NodeGroup) -> bool:
    """Whether two versions of a group have the same pool."""
    return (one.metadata.uid, one.spec.provider) == (other.metadata.uid, other.spec.provider)


def _shows_same(one: GroupSize, other: GroupSize) -> bool:
    """Whether all that we write is the same; how many nodes are asked for is the autoscaler's."""
    return (one.min, one.max, dict(one.tags)) == (other.min, other.max, dict(other.tags))


async def _close(pool: _Pool) -> None:
    if pool.task:
        pool.task.cancel()
        await asyncio.gather(pool.task, return_exceptions=True)
    if pool.provider:
        try:
            await pool.provider.close()
        except Exception as error:
            logger.warning("cannot close a provider of nodes: %s", error)
