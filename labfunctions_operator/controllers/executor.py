"""Carries a plan out: deletes, evictions, children, cancels, the status once, then Events."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from labfunctions_operator.controllers.ownership import check_owner, hash_of, with_hash
from labfunctions_operator.errors import ChildRefused, Denied, InvalidSpec, NotFound, Transient
from labfunctions_operator.kube.cache import Cache
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.kube.event_limits import EventLimits
from labfunctions_operator.kube.failures import AlreadyExists
from labfunctions_operator.reconcile.plan import Event, Manifest, Plan, Ref
from labfunctions_operator.reconcile.story import items

Object = dict[str, Any]

logger = logging.getLogger(__name__)

# A Job's template cannot change, and the operator may not write the spec of a user's kind:
# these are created once, and never applied again.
CREATE_ONLY = frozenset({"Job", "Run", "Pod"})


class Denial(NamedTuple):
    """A write that is not made until somebody grants or changes something."""

    kind: str
    error: Exception


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What became of writes that do not depend on each other.

    Attributes:
        refused: Why pods may not leave their nodes, of those that were asked to and may not.
        denied: The writes that were not made.
    """

    refused: Mapping[Ref, str]
    denied: Sequence[Denial] = ()


class Executor:
    """Writes what a plan says, and nothing that is there already.

    Args:
        client: Of the API server.
        caches: By kind; each of them sees a written object before `execute` returns.
        on_status: Called with an object before and after its status was written.
        on_event: Called with what became of an Event, in a word.
        on_child: Called with an object as soon as it was written, and its maker.
    """

    def __init__(
        self,
        client: KubeClient,
        caches: Mapping[str, Cache],
        on_status: Callable[[Mapping[str, Any], Object], None] = lambda before, after: None,
        on_event: Callable[[str], None] = lambda result: None,
        on_child: Callable[[Object, Mapping[str, Any]], None] = lambda child, maker: None,
    ) -> None:
        self._client = client
        self._caches = caches
        self._on_status = on_status
        self._on_event = on_event
        self._on_child = on_child
        self._limits = EventLimits()

    async def execute(self, plan: Plan, obj: Mapping[str, Any]) -> None:
        """Carry a plan out for the object that it was made for.

        Raises:
            Transient, Denied, InvalidSpec: Of the first write that failed; the rest is left to
                the next try, which repeats nothing that succeeded.
            ChildRefused: That write was of a child.
        """
        await self._write_children(plan, obj, nullcontext)
        # What is to be replaced goes on where its successor is refused.
        for ref in plan.cancel:
            await self._cancel(ref)
        await self.tell(plan, obj)

    async def attempt(self, plan: Plan, obj: Mapping[str, Any]) -> Attempt:
        """Write the children of a plan, as many of them as may be; its status is told by `tell`.

        Raises:
            Transient: Of the first write that failed so; the rest is left to the next try.
        """
        denied: list[Denial] = []
        refused = await self._write_children(plan, obj, partial(_noting, denied))
        return Attempt(refused=refused, denied=denied)

    async def tell(self, plan: Plan, obj: Mapping[str, Any]) -> None:
        """Write the status of a plan, and its Events if that was news."""
        written = await self._write_status(plan.status, obj)
        if written is not None:
            for event in plan.events:
                await self._record(written, event)

    async def _write_children(
        self,
        plan: Plan,
        obj: Mapping[str, Any],
        each: Callable[[str], AbstractContextManager[object]],
    ) -> Mapping[Ref, str]:
        for ref in plan.delete:
            with each(ref.kind):
                await self._delete(ref)
        refused = {ref: why for ref in plan.evict if (why := await self._evict(ref))}
        for manifest in plan.apply:
            with each(manifest["kind"]):
                if (child := await self._apply(manifest)) is not None:
                    self._on_child(child, obj)
        return refused

    async def delete(self, refs: Iterable[Ref]) -> None:
        """Delete objects; what is gone, or going, is no failure."""
        for ref in refs:
            await self._delete(ref)

    async def _delete(self, ref: Ref) -> None:
        cache = self._caches.get(ref.kind)
        held = cache.get(ref.namespace, ref.name) if cache is not None else None
        if held is not None and _is_terminating(held, ref.uid):
            return
        remaining = await self._client.delete(ref)
        _log("delete", f"{ref.kind}/{ref.name}")
        if cache is None:
            return
        if remaining is not None:
            cache.upsert(remaining)
        elif held is not None and ref.uid in (None, held["metadata"]["uid"]):
            cache.remove(held)

    async def _evict(self, ref: Ref) -> str | None:
        """Ask a pod to leave; whatever refuses that, as a budget does, keeps nothing else up."""
        try:
            await self._client.evict(ref)
        except (Transient, Denied, InvalidSpec) as error:
            return str(error)
        _log("evict", f"{ref.kind}/{ref.name}")
        return None

    async def _cancel(self, ref: Ref) -> None:
        try:
            self._remember(await self._client.cancel(ref))
        except NotFound:
            return  # it is gone: nothing is left to stop
        _log("cancel", f"{ref.kind}/{ref.name}")

    async def _apply(self, manifest: Manifest) -> Object | None:
        """Write a child unless it is there; return what was written."""
        wanted = with_hash(manifest)
        create_only = wanted["kind"] in CREATE_ONLY
        existing = await self._find(wanted, create_only=create_only)
        if existing is not None:
            check_owner(wanted, existing)
            if create_only or hash_of(existing) == hash_of(wanted):
                return None
        try:
            written = await (self._create(wanted) if create_only else self._client.apply(wanted))
        except InvalidSpec as error:
            raise ChildRefused(error.path, error.message) from error
        if not create_only:
            _log("apply", f"{wanted['kind']}/{wanted['metadata']['name']}")
        self._remember(written)
        return written

    async def _find(self, manifest: Object, *, create_only: bool) -> Object | None:
        """Return what is there under the manifest's name, from the cache where one is kept.

        A cache holds only what has our labels: before the first apply, which would take it over,
        a user's object of that name is looked for.
        """
        cache = self._caches.get(manifest["kind"])
        metadata = manifest["metadata"]
        held = cache.get(metadata.get("namespace", ""), metadata["name"]) if cache else None
        if held is not None or create_only:
            return held
        return await self._fetch(manifest)

    async def _fetch(self, manifest: Object) -> Object | None:
        metadata = manifest["metadata"]
        try:
            return await self._client.get(
                manifest["apiVersion"],
                manifest["kind"],
                metadata.get("namespace", ""),
                metadata["name"],
            )
        except NotFound:
            return None

    async def _create(self, manifest: Object) -> Object:
        try:
            created = await self._client.create(manifest)
        except AlreadyExists:
            existing = await self._fetch(manifest)
            if existing is None:
                raise
            # Of somebody else's object nothing would tell the cache that it is gone.
            check_owner(manifest, existing)
            return existing
        _log("create", f"{manifest['kind']}/{manifest['metadata']['name']}")
        return created

    async def _write_status(
        self, status: Mapping[str, Any] | None, obj: Mapping[str, Any]
    ) -> Object | None:
        if status is None or status == obj.get("status"):
            return None
        metadata = obj["metadata"]
        try:
            written = await self._client.patch_status(
                api_version=obj["apiVersion"],
                kind=obj["kind"],
                namespace=metadata.get("namespace", ""),
                name=metadata["name"],
                status=status,
                uid=metadata["uid"],
                version=metadata["resourceVersion"],
            )
        except NotFound:
            # Deleted meanwhile: nobody is left to be told.
            return None
        self._remember(written)
        before, after = _reason(obj["kind"], obj.get("status")), _reason(obj["kind"], status)
        logger.info(
            "status: %s -> %s",
            before or "none",
            after or "none",
            extra={"action": "status", "from": before, "to": after},
        )
        self._on_status(obj, written)
        return written

    async def _record(self, obj: Object, event: Event) -> None:
        """Record an Event; a lost one is no reason to try the whole plan again."""
        uid = obj["metadata"]["uid"]
        result: str = self._limits.decide(uid, event)
        try:
            if result == "Recorded":
                self._limits.recorded(uid, event, await self._client.create_event(obj, event))
            elif result == "Repeated":
                await self._client.count_event(obj, *self._limits.repeated(uid, event))
        except (Transient, Denied, NotFound, InvalidSpec) as error:
            result = "Failed"
            logger.warning("cannot record the Event %s: %s", event.reason, error)
        self._on_event(result)

    def _remember(self, obj: Object) -> None:
        cache = self._caches.get(obj["kind"])
        if cache is not None:
            cache.upsert(obj)


@contextmanager
def _noting(denied: list[Denial], kind: str) -> Iterator[None]:
    """Take note of what only somebody else can change."""
    try:
        yield
    except (Denied, InvalidSpec, NotFound) as error:
        logger.warning("%s: %s", type(error).__name__, error)
        denied.append(Denial(kind, error))


def _log(action: str, child: str) -> None:
    logger.info("%s %s", action, child, extra={"action": action, "child": child})


def _reason(kind: str, status: Mapping[str, Any] | None) -> str:
    """Return the reason of the condition that sums a status up."""
    summary = "Succeeded" if kind in ("Run", "Backfill") else "Ready"
    found = (c for c in items(status, "conditions") if c.get("type") == summary)
    return str(next(found, {}).get("reason") or "")


def _is_terminating(held: Object, uid: str | None) -> bool:
    metadata = held["metadata"]
    return "deletionTimestamp" in metadata and uid in (None, metadata["uid"])
