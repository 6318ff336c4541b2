"""Follows the git refs of Projects: reads in threads, so that a slow server delays nobody."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from labfunctions_operator.api.project import GitSource, Project
from labfunctions_operator.api.times import parse_duration
from labfunctions_operator.controllers.readers import Readers, Reading
from labfunctions_operator.desired.dockerfile import requirement_files
from labfunctions_operator.errors import Denied, InvalidSpec, NotFound, Transient
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.providers.git import (
    GitCredentials,
    SourceError,
    read_source,
    resolve_ref,
)
from labfunctions_operator.reconcile.plan import Key, Problem
from labfunctions_operator.reconcile.source import SourceSnapshot, SourceView

logger = logging.getLogger(__name__)

RESOLVE_TIMEOUT = 20.0
READ_TIMEOUT = 120.0
# A source that cannot be read is tried again sooner than its interval: someone may be mending it.
RETRY_FIRST = 5.0


@dataclass(kw_only=True)
class _Reading(Reading):
    """What is known of one Project's source."""

    view: SourceView = field(default_factory=SourceView)
    due: float = 0.0
    failures: int = 0


class SourceTracker(Readers[_Reading]):
    """Knows each Project's source as it was last read.

    Args:
        client: Reads the Secrets that Projects name.
        cache_dir: Holds bare repositories.
        on_read: Called with a Project's key after each reading, and whether it brought news.
        measured: Called with the key, the result in a word, and the seconds it took.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        client: KubeClient,
        cache_dir: Path,
        on_read: Callable[[Key, bool], None],
        *,
        measured: Callable[[Key, str, float], None] = lambda key, result, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("git")
        self._client = client
        self._cache_dir = cache_dir
        self._on_read = on_read
        self._measured = measured
        self._clock = clock

    def view(self, key: Key) -> SourceView:
        """Return what is known; starts nothing."""
        reading = self._readings.get(key)
        return reading.view if reading else SourceView()

    def follow(self, key: Key, project: Project) -> float | None:
        """See that a Project's source is read when it is due.

        Returns:
            The seconds until then, or None while it is being read, or where there is none.
        """
        git = project.spec.git
        if git is None:
            self.forget(key)
            return None
        # What must be read anew when the spec changes.
        wanted = (project.metadata.uid, git.model_dump_json(), _wanted_files(project))
        reading = self._readings.get(key)
        if reading is None or reading.wanted != wanted:
            if reading and reading.task:
                reading.task.cancel()
            reading = self._readings[key] = _Reading(wanted=wanted)
        if reading.task is None and self._clock() >= reading.due:
            reading.task = asyncio.create_task(
                self._read(key, project, git, reading), name=f"source {key}"
            )
        return None if reading.task else max(0.1, reading.due - self._clock())

    def pause(self, key: Key) -> None:
        """Give up a reading that is under way: its result is not wanted any more."""
        reading = self._readings.get(key)
        if reading and reading.task:
            reading.task.cancel()
            reading.task = None

    async def _read(self, key: Key, project: Project, git: GitSource, reading: _Reading) -> None:
        interval = parse_duration(git.interval).total_seconds()
        before = reading.view
        started, result = self._clock(), "Succeeded"
        try:
            snapshot = await self._fetch(key, project, git, reading.view.snapshot)
            reading.view = SourceView(snapshot=snapshot)
            reading.failures = 0
            delay = interval
        except SourceError as error:
            result = error.reason
            problem = Problem(reason=error.reason, message=error.message)
            reading.view = SourceView(snapshot=before.snapshot, problem=problem)
            delay = min(interval, RETRY_FIRST * 2.0 ** min(reading.failures, 10))
            reading.failures += 1
        except (Transient, Denied) as error:
            # The API server, not the source: what is known of the source stays.
            logger.warning("cannot read the source of %s/%s: %s", key.namespace, key.name, error)
            result = type(error).__name__
            delay = RETRY_FIRST
        except Exception:
            logger.exception("cannot read the source of %s/%s", key.namespace, key.name)
            result = "InternalError"
            delay = interval
        self._measured(key, result, self._clock() - started)
        reading.view = replace(reading.view, tried=True)
        reading.due = self._clock() + delay
        reading.task = None
        if self._readings.get(key) is reading:
            self._on_read(key, reading.view != before)

    async def _fetch(
        self, key: Key, project: Project, git: GitSource, known: SourceSnapshot | None
    ) -> SourceSnapshot:
        credentials = await self._credentials(key.namespace, git)
        commit = await self._in_thread(
            lambda: resolve_ref(git.url, git.ref, credentials, timeout=RESOLVE_TIMEOUT),
        )
        if known and known.commit == commit:
            return known
        return await self._in_thread(
            lambda: read_source(
                git.url,
                ref=git.ref,
                commit=commit,
                path=git.path,
                wanted=_wanted_files(project),
                credentials=credentials,
                cache_dir=self._cache_dir,
                timeout=READ_TIMEOUT,
            ),
        )

    async def _credentials(self, namespace: str, git: GitSource) -> GitCredentials | None:
        if git.secret_ref is None:
            return None
        name = git.secret_ref.name
        try:
            secret = await self._client.get("v1", "Secret", namespace, name)
        except (NotFound, InvalidSpec):
            raise SourceError(
                "SecretInvalid", f"Secret {name} does not exist in this namespace"
            ) from None
        try:
            return GitCredentials.from_secret(secret.get("data") or {})
        except SourceError as error:
            raise SourceError(error.reason, f"Secret {name}: {error.message}") from None


def _wanted_files(project: Project) -> tuple[str, ...]:
    paths = {
        path
        for runtime in project.spec.effective_runtimes
        if not runtime.image
        for path in ([runtime.dockerfile] if runtime.dockerfile else requirement_files(runtime))
    }
    return tuple(sorted(paths))
