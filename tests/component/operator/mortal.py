"""An operator inside the test: its clock is the test's, and it dies when told to."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any

from labfunctions_operator.controllers.operator import CHILDREN, OURS
from labfunctions_operator.controllers.wiring import Parts
from labfunctions_operator.errors import Denied, InvalidSpec, NotFound, Transient
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.kube.failures import Conflict
from labfunctions_operator.kube.resources import (
    BACKFILLS,
    NODE_GROUPS,
    NODES,
    PROJECTS,
    RUNS,
    WORKFLOWS,
    Resource,
)
from labfunctions_operator.providers.store import Store
from labfunctions_operator.reconcile.plan import Key
from labfunctions_operator.settings import Settings

from .api import Api, Object


class Died(BaseException):
    """The operator was killed; nothing of it catches that."""


class Fate(StrEnum):
    """What becomes of the write at which an operator dies, or seems to."""

    UNSENT = "unsent"
    """It is never made."""
    UNANSWERED = "unanswered"
    """It is made, and nobody sees the answer."""
    LATE = "late"
    """It is still on its way, and made when others have gone on."""
    BROKEN = "broken"
    """It is made, its connection breaks, and the operator lives on."""


class Broken(Transient):
    """A connection broke, after the request had got through."""


class MortalClient(KubeClient):
    """Dies at a write.

    Attributes:
        lives: Writes that are still made before it dies; None for never dying.
        fate: Of the write at which it dies.
        late: What is on its way to the API server since an operator died.
        created: How often each object was created, by `Kind/name`.
    """

    lives: int | None = None
    fate = Fate.UNSENT

    def __init__(self, configuration: Any) -> None:
        super().__init__(configuration)
        self.created: Counter[str] = Counter()
        self.late: list[Callable[[], Awaitable[Any]]] = []

    def endanger(self, put: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
        """Make a function that writes to the store one more of the writes to die at.

        Nothing of it comes late: a body that breaks off is none.
        """

        def mortal(key: str, content: Any) -> None:
            dies = self._dies_now()
            if not dies or self.fate in (Fate.UNANSWERED, Fate.BROKEN):
                put(key, content)
            if dies:
                raise self._end()

        return mortal

    async def arrive(self) -> None:
        """Let what is on its way reach the API server."""
        while self.late:
            await _unheard(self.late.pop())

    def has_died(self) -> bool:
        """Whether it has died at a write since it was given its lives."""
        return self.lives is None or self.lives < 0

    async def risk(self, send: Callable[[], Awaitable[Any]]) -> Any:
        """Make a write, unless it is the one to die at."""
        if not self._dies_now():
            return await send()
        if self.fate in (Fate.UNANSWERED, Fate.BROKEN):
            await _unheard(send)
        elif self.fate == Fate.LATE:
            self.late.append(send)
        raise self._end()

    async def request(self, verb: str, method: str, path: str, **options: Any) -> Object:
        send = partial(self._send_on, verb, method, path, **options)
        answer: Object = await (send() if method == "GET" else self.risk(send))
        # Their times are of the API server's clock, which is not the test's.
        answer.get("metadata", {}).pop("managedFields", None)
        return answer

    async def _send_on(self, verb: str, method: str, path: str, **options: Any) -> Object:
        answer = await super().request(verb, method, path, **options)
        if verb == "create":
            manifest = options["body"]
            self.created[f"{manifest['kind']}/{manifest['metadata']['name']}"] += 1
        return answer

    def _dies_now(self) -> bool:
        if self.lives is None:
            return False
        self.lives -= 1
        return self.lives < 0

    def _end(self) -> BaseException:
        if self.fate != Fate.BROKEN:
            return Died()
        self.lives = None
        return Broken("the connection broke")


async def _unheard(send: Callable[[], Awaitable[Any]]) -> None:
    with suppress(Transient, Denied, NotFound, InvalidSpec):
        await send()


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
        self._sees: tuple[Resource, ...] = (PROJECTS, WORKFLOWS, BACKFILLS, RUNS, *CHILDREN)
        if settings.autoscaling.enabled:
            self._sees += (NODE_GROUPS, NODES)
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
        await asyncio.gather(*(self._see(resource) for resource in resources or self._sees))

    async def _see(self, resource: Resource) -> None:
        ours = OURS if resource in CHILDREN else None
        listed = await self._client.list(resource, label_selector=ours)
        self._world.caches[resource.kind].replace(listed.items, listed.resource_version)

    async def reconcile(self, namespace: str, name: str, kind: str = "Workflow") -> float | None:
        key = Key(kind, namespace, name)
        return await self._parts.reconcilers.reconcile(key)

    async def settle(self, namespace: str, name: str, kind: str = "Workflow") -> None:
        await self.look()
        for _ in range(4 if kind == "NodeGroup" else 2):
            await self.try_on(namespace, name, kind)
            for pool in self._parts.pools._pools.values():
                if pool.task:
                    await pool.task

    async def try_on(self, namespace: str, name: str, kind: str) -> None:
        """Reconcile, and go on if a connection breaks, whether or not the watch is behind."""
        try:
            await self.reconcile(namespace, name, kind)
        except Broken:
            with suppress(Conflict):
                await self.reconcile(namespace, name, kind)
            await self.look()
            await self.reconcile(namespace, name, kind)

    async def read_past(self, namespace: str, name: str) -> None:
        """See what exists, and what a Backfill has to know before it does anything."""
        await self.look()
        await self.try_on(namespace, name, "Backfill")
        found = self._world.get(Key("Backfill", namespace, name))
        if found and "completionTime" not in found["status"]:
            await self._has_read.wait()

    def _wake(self, key: Key) -> None:
        if key.kind == "Backfill":
            self._has_read.set()


def end_run(
    api: Api, namespace: str, name: str, phase: str = "Succeeded", *, is_recorded: bool = False
) -> None:
    """Say that a Run has ended, as the operator of Runs does."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    facts = {"Succeeded": phase == "Succeeded", "Recorded": is_recorded}
    conditions = [
        {
            "type": type,
            "status": str(fact),
            "reason": phase,
            "message": f"it is {phase}",
            "lastTransitionTime": now,
        }
        for type, fact in facts.items()
    ]
    status = {"phase": phase, "completionTime": now, "conditions": conditions}
    api.patch("Run", namespace, name, {"status": status}, subresource="/status")


def without_words(status: Mapping[str, Any]) -> Object:
    """Return a status but for conditions, whose times differ."""
    return {key: value for key, value in status.items() if key != "conditions"}


def names(objects: list[Object]) -> Counter[str]:
    return Counter(obj["metadata"]["name"] for obj in objects)
