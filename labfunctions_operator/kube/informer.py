"""Keeps a cache equal to what the API server has: list once, then watch, for ever."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from labfunctions_operator.errors import Denied, NotFound, Transient
from labfunctions_operator.kube.cache import Cache
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.kube.failures import Gone
from labfunctions_operator.kube.resources import Resource

Object = dict[str, Any]

logger = logging.getLogger(__name__)

_FIRST_DELAY = 0.5
_LAST_DELAY = 30.0
# A watch that ends sooner without an event is taken for a failing one.
_SHORT = 1.0


class Informer:
    """Follows one resource.

    Attributes:
        synced: Set once the first list is in the cache.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        cache: Cache,
        on_change: Callable[[Object], None],
        label_selector: str | None = None,
    ) -> None:
        self.synced = asyncio.Event()
        self._client = client
        self._resource = resource
        self._cache = cache
        self._on_change = on_change
        self._selector = label_selector
        self._failures = 0
        self._listed = False

    async def run(self) -> None:
        """Follow the resource until cancelled; no failure ends this."""
        while True:
            try:
                await self._follow()
            except Gone:
                logger.info("%s: the watch fell behind, listing anew", self._resource.plural)
                self._listed = False
                self._failures += 1
            except (Transient, Denied, NotFound) as error:
                self._failures += 1
                logger.warning("cannot follow %s: %s", self._resource.plural, error)
            except Exception:
                logger.exception("cannot follow %s, listing anew", self._resource.plural)
                self._listed = False
                self._failures += 1
            if self._failures:
                await asyncio.sleep(self._delay())

    async def _follow(self) -> None:
        if not self._listed:
            await self._list()
        started = asyncio.get_running_loop().time()
        events = self._client.watch(
            self._resource,
            resource_version=self._cache.resource_version,
            label_selector=self._selector,
        )
        async with aclosing(events):
            async for kind, obj in events:
                self._failures = 0
                self._take(kind, obj)
        if asyncio.get_running_loop().time() - started < _SHORT:
            raise Transient("the watch ended at once")
        self._failures = 0

    async def _list(self) -> None:
        listed = await self._client.list(self._resource, label_selector=self._selector)
        for obj in self._cache.replace(listed.items, listed.resource_version):
            self._on_change(obj)
        self._listed = True
        self.synced.set()

    def _take(self, kind: str, obj: Object) -> None:
        if kind == "DELETED":
            self._cache.remove(obj)
        elif kind != "BOOKMARK":
            self._cache.upsert(obj)
        self._cache.advance(obj["metadata"]["resourceVersion"])
        if kind != "BOOKMARK":
            # Even if the cache knew it from a response of ours: others may depend on the object.
            self._on_change(obj)

    def _delay(self) -> float:
        delay = min(_LAST_DELAY, _FIRST_DELAY * 2.0 ** min(self._failures - 1, 10))
        return delay * random.uniform(0.5, 1.0)
