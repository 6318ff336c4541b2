"""Deletes from the store, soon after the start and then once an hour, what need not be kept."""

import asyncio
import logging
import random

from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.project import Project
from labfunctions_operator.controllers.clock import Clock
from labfunctions_operator.controllers.world import World
from labfunctions_operator.desired.names import run_folder
from labfunctions_operator.errors import Denied, InvalidSpec, NotFound, Transient
from labfunctions_operator.providers.store import Store
from labfunctions_operator.reconcile.record import needs_record
from labfunctions_operator.reconcile.retention import Folder, find_expired, group_folders

logger = logging.getLogger(__name__)

# The start itself is for Runs; an operator that is often restarted must come to this, too.
FIRST_SECONDS = 300
INTERVAL_SECONDS = 3600


class RetentionKeeper:
    """Applies `outputs.retention` of each Project, one Project after another.

    Args:
        store: Where results lie.
        world: Knows Projects, and the Runs that are still going on.
        clock: The time now.
    """

    def __init__(self, store: Store, world: World, clock: Clock) -> None:
        self._store = store
        self._world = world
        self._clock = clock

    async def run(self) -> None:
        """Work until cancelled; no failure ends this."""
        wait = FIRST_SECONDS
        while True:
            await asyncio.sleep(wait * random.uniform(0.9, 1.1))
            wait = INTERVAL_SECONDS
            for obj in self._world.caches["Project"].objects():
                try:
                    await self.apply(parse(Project, obj))
                except InvalidSpec:
                    continue  # its status says so
                except (Transient, Denied, NotFound) as error:
                    logger.warning("cannot apply retention: %s", error)
                except Exception:
                    logger.exception("cannot apply retention")

    async def apply(self, project: Project) -> list[Folder]:
        """Delete what one Project need not keep; return it.

        Raises:
            Transient, Denied, NotFound: The store does not let us; the rest is left for the next
                time.
        """
        retention = project.spec.outputs.retention
        if retention is None:
            return []
        meta = project.metadata
        prefix = f"{meta.namespace}/{meta.name}"
        files = await asyncio.to_thread(lambda: list(self._store.list(f"{prefix}/")))
        folders = group_folders((f.key.removeprefix(f"{prefix}/"), f.written) for f in files)
        # Looked up after the listing: a Run that is newer than this has no file in it.
        live = self._live(meta.namespace)
        expired = find_expired(folders, live=live, retention=retention, now=self._clock())
        gone = tuple(f"{prefix}/{folder.workflow}/{folder.name}/" for folder in expired)
        keys = [file.key for file in files if file.key.startswith(gone)] if gone else []
        if keys:
            await asyncio.to_thread(self._store.delete, keys)
            logger.info(
                "deleted %d Runs' results of Project %s/%s: outputs.retention",
                len(expired),
                meta.namespace,
                meta.name,
            )
        return expired

    def _live(self, namespace: str) -> set[str]:
        """Name the folders of Runs that have not ended, or whose record is still to come."""
        return {
            run_folder(run["metadata"]["name"], run["metadata"]["uid"])
            for run in self._world.caches["Run"].objects()
            if run["metadata"]["namespace"] == namespace and _may_write(run.get("status"))
        }


def _may_write(status: object) -> bool:
    if not isinstance(status, dict) or not status.get("completionTime"):
        return True
    return needs_record(status)
