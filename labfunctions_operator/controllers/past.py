"""Finds out what has run already of a Backfill's range: in threads, and once for each Backfill."""

import asyncio
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from labfunctions_operator.api.backfill import MAX_TICKS, Backfill
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.controllers.readers import READERS, Readers, Reading
from labfunctions_operator.controllers.world import World
from labfunctions_operator.errors import Denied, NotFound, Transient
from labfunctions_operator.providers.store import Store
from labfunctions_operator.reconcile.backfill import UNREADABLE
from labfunctions_operator.reconcile.past import (
    Past,
    PastRun,
    find_records,
    find_ticks,
    latest,
    read_run,
    tick_key,
)
from labfunctions_operator.reconcile.plan import Key, Problem

logger = logging.getLogger(__name__)

RETRY_FIRST = 2.0
RETRY_LAST = 300.0


@dataclass(kw_only=True)
class _Reading(Reading):
    """What is known for one Backfill."""

    found: Past | Problem | None = None


class PastReader(Readers[_Reading]):
    """Knows, for each Backfill at work, its ticks and the Runs that these have had.

    Args:
        store: Has the records of Runs that are gone.
        world: Has the others.
        on_read: Called with a Backfill's key after each reading.
    """

    def __init__(self, store: Store, world: World, on_read: Callable[[Key], None]) -> None:
        super().__init__("past")
        self._store = store
        self._world = world
        self._on_read = on_read

    def view(self, key: Key, backfill: Backfill, workflow: Workflow) -> Past | Problem | None:
        """Return what is known; see that it is read if it is not."""
        spec, project = workflow.spec, workflow.spec.project_ref
        wanted = (
            backfill.metadata.uid,
            *(spec.schedule, spec.interval, spec.time_zone, spec.start_at),
            workflow.metadata.creation_timestamp,
            project.name if project else "",
        )
        reading = self._readings.get(key)
        if reading is None or reading.wanted != wanted:
            self.forget(key)
            reading = self._readings[key] = _Reading(wanted=wanted)
            reading.task = asyncio.create_task(
                self._read_until_done(key, backfill, workflow, reading), name=f"past {key}"
            )
        return reading.found

    async def _read_until_done(
        self, key: Key, backfill: Backfill, workflow: Workflow, reading: _Reading
    ) -> None:
        failures = 0
        while not isinstance(reading.found, Past):
            try:
                reading.found = await self._read(backfill, workflow)
            except (Transient, Denied, NotFound) as error:
                message = f"cannot read what has run already, and tries again: {error}"
                reading.found = Problem(reason=UNREADABLE, message=message)
                logger.warning("Backfill %s/%s: %s", key.namespace, key.name, message)
            except Exception:
                message = "cannot read what has run already, and tries again"
                reading.found = Problem(reason="InternalError", message=message)
                logger.exception("Backfill %s/%s: %s", key.namespace, key.name, message)
            self._on_read(key)
            if isinstance(reading.found, Problem):
                delay = min(RETRY_LAST, RETRY_FIRST * 2.0 ** min(failures, 10))
                failures += 1
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))

    async def _read(self, backfill: Backfill, workflow: Workflow) -> Past:
        ticks = await self._in_thread(find_ticks, workflow, backfill.spec)
        if len(ticks) > MAX_TICKS or backfill.spec.reprocess == "All":
            return Past(ticks=ticks, runs={})
        # Looked up before the listing: whoever is deleted in between has a record there.
        held = self._held(workflow)
        project = workflow.spec.project_ref
        meta = workflow.metadata
        folder = f"{meta.namespace}/{project.name if project else ''}/{meta.name}/"
        records = await self._in_thread(
            lambda: find_records(
                (file.key.removeprefix(folder) for file in self._store.list(folder)), ticks
            )
        )
        if backfill.spec.reprocess == "None":
            stored = [(minute, PastRun(created="", phase=None)) for minute in records.values()]
        else:
            stored = await self._read_records(folder, records)
        runs: dict[int, PastRun] = {}
        for minute, run in (*stored, *held):
            runs[minute] = latest([runs.get(minute), run]) or run
        return Past(ticks=ticks, runs=runs)

    def _held(self, workflow: Workflow) -> list[tuple[int, PastRun]]:
        """Return the Runs of a Workflow that exist, by the Unix minute of their tick."""
        found = []
        for obj in self._world.caches["Run"].objects():
            key = tick_key(obj)
            same = obj["metadata"].get("namespace") == workflow.metadata.namespace
            if same and key and key[0] == workflow.metadata.name:
                found.append((key[1], read_run(obj)))
        return found

    async def _read_records(
        self, folder: str, records: Mapping[str, int]
    ) -> list[tuple[int, PastRun]]:
        paths = list(records)
        shares = [paths[n::READERS] for n in range(READERS)]
        read = await asyncio.gather(
            *(self._in_thread(self._read_share, folder, share) for share in shares)
        )
        return [(records[path], run) for part in read for path, run in part]

    def _read_share(self, folder: str, paths: Sequence[str]) -> list[tuple[str, PastRun]]:
        found = []
        for path in paths:
            try:
                record = json.loads(self._store.get(folder + path))
            except NotFound:
                continue  # retention has deleted it meanwhile
            except ValueError:
                record = None
            found.append((path, read_run(record)))
        return found
