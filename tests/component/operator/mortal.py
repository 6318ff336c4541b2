"""An operator inside the test: its clock is the test's, and it dies when told to."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from labfunctions_operator.controllers.wiring import Parts
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.kube.resources import BACKFILLS, PROJECTS, RUNS, WORKFLOWS, Resource
from labfunctions_operator.providers.store import Store
from labfunctions_operator.reconcile.plan import Key
from labfunctions_operator.settings import Settings

from .api import Api, Object


class Died(BaseException):
    """The operator was killed; nothing of it catches that."""


class MortalClient(KubeClient):
    """Dies at a write.

    Attributes:
        lives: Writes that are still made before it dies; None for never dying.
        answers_are_lost: Whether the last write is made, and only its answer not seen.
        writes: What was written, as far as an answer was seen.
    """

    lives: int | None = None
    answers_are_lost = False

    async def request(self, verb: str, method: str, path: str, **options: Any) -> Object:
        if method == "GET" or self.lives is None:
            return await super().request(verb, method, path, **options)
        if self.lives == 0:
            if self.answers_are_lost:
                await super().request(verb, method, path, **options)
            raise Died
        self.lives -= 1
        return await super().request(verb, method, path, **options)


class Clock:
    """Shows what the test says."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def set(self, minutes: float, *, after: datetime) -> None:
        self.now = after + timedelta(minutes=minutes)


class MortalOperator:
    """Reconciles one object when told to; a new one knows nothing of what another one knew."""

    def __init__(self, client: KubeClient, settings: Settings, store: Store, clock: Clock) -> None:
        self._client = client
        self._has_read = asyncio.Event()
        self._parts = Parts(
            client,
            settings,
            store,
            clock=clock,
            wake=self._wake,
            written=lambda child, maker: None,
        )
        self._world = self._parts.world

    async def close(self) -> None:
        await self._parts.close()

    async def look(self, *resources: Resource) -> None:
        """See what exists of some kinds, or of all."""
        for resource in resources or (PROJECTS, WORKFLOWS, BACKFILLS, RUNS):
            listed = await self._client.list(resource)
            self._world.caches[resource.kind].replace(listed.items, listed.resource_version)

    async def reconcile(self, namespace: str, name: str, kind: str = "Workflow") -> float | None:
        key = Key(kind, namespace, name)
        return await self._parts.reconcilers.reconcile(key)

    async def settle(self, namespace: str, name: str) -> None:
        await self.look()
        for _ in range(2):
            await self.reconcile(namespace, name)

    async def read_past(self, namespace: str, name: str) -> None:
        """See what exists, and what a Backfill has to know before it does anything."""
        await self.look()
        await self.reconcile(namespace, name, "Backfill")
        found = self._world.get(Key("Backfill", namespace, name))
        if found and "completionTime" not in found["status"]:
            await self._has_read.wait()

    def _wake(self, key: Key) -> None:
        if key.kind == "Backfill":
            self._has_read.set()


def end_run(api: Api, namespace: str, name: str, phase: str = "Succeeded") -> None:
    """Say that a Run has ended, as the operator of Runs does."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "type": "Succeeded",
        "status": "True" if phase == "Succeeded" else "False",
        "reason": phase,
        "message": f"it is {phase}",
        "lastTransitionTime": now,
    }
    status = {"phase": phase, "completionTime": now, "conditions": [condition]}
    api.patch("Run", namespace, name, {"status": status}, subresource="/status")


def without_words(status: Mapping[str, Any]) -> Object:
    """Return a status but for conditions, whose times differ."""
    return {key: value for key, value in status.items() if key != "conditions"}


def names(objects: list[Object]) -> Counter[str]:
    return Counter(obj["metadata"]["name"] for obj in objects)
