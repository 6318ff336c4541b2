"""Puts the record of each ended Run into the store, in time for its last status write to say so."""

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
from labfunctions_operator.reconcile.plan import Plan
from labfunctions_operator.reconcile.record import Record, build_record, needs_record, with_record

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
# While the store is down one Run asks for all: the others must not wait for the same answer.
PAUSE_SECONDS = 15.0
RETRY_SECONDS = 60.0


class Archive:
    """Completes the plan that ends a Run.

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

    async def complete(self, plan: Plan, obj: Mapping[str, Any]) -> Plan:
        """Store the record if the Run ends or has ended without one.

        Returns:
            The plan, whose status says what became of the record. The end of a Run is told in any
            case; a record that could not be stored is tried again later.
        """
        status = obj.get("status") if plan.status is None else plan.status
        if not status or not needs_record(status):
            return plan
        generation = obj["metadata"].get("generation", 0)
        record = build_record(obj, status, **self._folder(obj, status))
        uri = self._store.uri(record.key)
        kept = with_record(status, generation, self._clock(), uri=uri)
        problem = await self._put(replace(record, content={**record.content, "status": kept}))
        if problem is None:
            return replace(plan, status=kept)
        status = with_record(status, generation, self._clock(), problem=problem)
        again = RETRY_SECONDS * random.uniform(0.5, 1.0)
        return replace(plan, status=status, requeue_after=again)

    async def _put(self, record: Record) -> str | None:
        """Store a record; return what went wrong."""
        if self._monotonic() < self._closed_until:
            return self._problem
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await asyncio.to_thread(self._store.put_json, record.key, record.content)
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


def _name(ref: Any) -> str | None:
    name = ref.get("name") if isinstance(ref, Mapping) else None
    return name if isinstance(name, str) else None
