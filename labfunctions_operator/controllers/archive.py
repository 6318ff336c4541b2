"""Puts the records of Runs into the store.

That of a Run which ends is there in time for its last status write to say so; that of a Run which
is deleted before is made from the last that was seen of it.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from labfunctions_operator.controllers.clock import Clock
from labfunctions_operator.controllers.world import World
from labfunctions_operator.errors import Denied, NotFound, Transient
from labfunctions_operator.providers.store import Store
from labfunctions_operator.reconcile.plan import Key, Plan
from labfunctions_operator.reconcile.record import (
    Record,
    build_record,
    last_status,
    needs_record,
    with_record,
)

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
# While the store is down one Run asks for all: the others must not wait for the same answer.
PAUSE_SECONDS = 15.0
RETRY_SECONDS = 60.0
# Records of deleted Runs that wait for the store; the oldest give way.
MAX_DELETED = 1000


class Archive:
    """Completes the plan that ends a Run, and keeps what is known of deleted ones.

    Args:
        store: Where records go.
        world: Knows the Workflow of a Run that was never started.
        clock: The time of a condition.
        monotonic: Seconds that only grow.
    """

    def __init__(
        self,
        store: Store,
        world: World,
        clock: Clock,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._world = world
        self._clock = clock
        self._monotonic = monotonic
        self._closed_until = 0.0
        self._problem = ""
        self._deleted: dict[Key, Record] = {}

    async def complete(self, plan: Plan, obj: Mapping[str, Any]) -> Plan:
        """Store the record if the Run ends or has ended without one.

        Returns:
            The plan, whose status says what became of the record. The end of a Run is told in any
            case; a record that could not be stored is tried again later.
        """
        status = obj.get("status") if plan.status is None else plan.status
        if not status or not needs_record(status):
            return plan
        record = self._record(obj, status)
        problem = await self._ask(record, self._put)
        if problem is None:
            return replace(plan, status=record.content["status"])
        generation = obj["metadata"].get("generation", 0)
        status = with_record(status, generation, self._clock(), problem=problem)
        return replace(plan, status=status, requeue_after=_later())

    def take_over(self, obj: Mapping[str, Any]) -> None:
        """Hold what is to be recorded of a Run whose object is gone, for `record_deleted`."""
        status = last_status(obj, self._clock())
        if status is None:
            return
        meta = obj["metadata"]
        self._deleted[Key("Run", meta["namespace"], meta["name"])] = self._record(obj, status)
        if len(self._deleted) > MAX_DELETED:
            lost = self._deleted.pop(next(iter(self._deleted)))
            logger.warning(
                "too many deleted Runs wait for the store: there will be no %s", lost.key
            )

    async def record_deleted(self, key: Key) -> float | None:
        """Store the record of a deleted Run, if there is one to store.

        Returns:
            The seconds until this wants to be tried again, or None.
        """
        record = self._deleted.get(key)
        if record is None:
            return None
        if await self._ask(record, self._put_unless_there) is not None:
            return _later()
        if self._deleted.get(key) is record:
            del self._deleted[key]
        return None

    def _record(self, obj: Mapping[str, Any], status: Mapping[str, Any]) -> Record:
        """Build a record which says that it is stored."""
        record = build_record(obj, status, **self._folder(obj, status))
        generation = obj["metadata"].get("generation", 0)
        kept = with_record(status, generation, self._clock(), uri=self._store.uri(record.key))
        return replace(record, content={**record.content, "status": kept})

    def _put(self, record: Record) -> None:
        self._store.put_json(record.key, record.content)

    def _put_unless_there(self, record: Record) -> None:
        """Leave alone what was stored just before the deletion: it knows how the Run ended."""
        if not self._store.exists(record.key):
            self._put(record)

    async def _ask(self, record: Record, put: Callable[[Record], None]) -> str | None:
        """Have a record stored; return what went wrong."""
        if self._monotonic() < self._closed_until:
            return self._problem
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await asyncio.to_thread(put, record)
        except (Transient, Denied, NotFound, TimeoutError) as error:
            self._closed_until = self._monotonic() + PAUSE_SECONDS
            self._problem = str(error) or f"no answer within {TIMEOUT_SECONDS:.0f} s"
            logger.warning("cannot store %s: %s", record.key, self._problem)
            return self._problem
        return None

    def _folder(self, obj: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
        """Find Project and Workflow, also of a Run that was refused before it had either."""
        if snapshot := status.get("snapshot"):
            return {"project": snapshot["project"], "workflow": snapshot.get("workflow")}
        spec = obj.get("spec") or {}
        project, workflow = _name(spec.get("projectRef")), _name(spec.get("workflowRef"))
        if workflow and project is None:
            found = self._world.caches["Workflow"].get(obj["metadata"]["namespace"], workflow)
            project = _name(((found or {}).get("spec") or {}).get("projectRef"))
        return {"project": project or "unknown", "workflow": workflow}


def _later() -> float:
    return RETRY_SECONDS * random.uniform(0.5, 1.0)


def _name(ref: Any) -> str | None:
    name = ref.get("name") if isinstance(ref, Mapping) else None
    return name if isinstance(name, str) else None
