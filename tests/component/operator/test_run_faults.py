"""One Job for each attempt, and none left out: the operator dies at every write of a Run's life."""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from .api import Object, condition, until
from .kubelet import SUCCEEDED, Kubelet
from .mortal import Died, Fate, MortalClient
from .objects import inline_run, project
from .theatre import Theatre, client, operator_config, theatre

__all__ = ["client", "operator_config", "theatre"]

# In one act; with as many lives as this an operator does not die.
WRITES = 3
RETRIES = {"limit": 2, "backoff": {"duration": "1s"}}
FAILED = {"reason": "NotebookError", "message": "cell 1 raised"}
STOPPED = {"reason": "Cancelled", "message": "the notebook was interrupted"}
# Later than what the kubelet says, and too early to say that a pod starts slowly.
SOON = timedelta(seconds=2)
TIMEOUT = timedelta(seconds=60)
TIME_TO_LIVE = timedelta(hours=1)


class Play:
    """The same Run several times, each time with operators that die at another write.

    Attributes:
        cast: By the name of the Run: the fate of a write, and how many come before it in each act.
        is_very_late: Whether what is late gets through only after the next act.
    """

    def __init__(self, theatre: Theatre, kubelet: Kubelet, client: MortalClient) -> None:
        self.theatre, self.kubelet, self.client = theatre, kubelet, client
        self.api, self.namespace = theatre.api, theatre.namespace
        self.cast = {f"{fate}-{n}": (fate, n) for fate, n in product(Fate, range(WRITES + 1))}
        self.is_very_late = False
        self._late: dict[str, list[Callable[[], Awaitable[Object]]]] = {}

    async def open(self, **spec: object) -> None:
        """Create all Runs, and let operators see them."""
        self.api.create(project(self.namespace, "https://git.test/wine.git", suspend=True))
        await self.theatre.hire(self.client).settle(self.namespace, "wine", "Project")
        for name in self.cast:
            self.api.create(inline_run(self.namespace, name, retries=RETRIES, **spec))
        await self.act()

    async def act(self, after: timedelta = SOON) -> None:
        """Let an operator look at each Run, to its death, and then one that lives.

        What was on its way when an operator died gets through then, or after the next act.
        """
        self.theatre.clock.now = datetime.now(UTC) + after
        for name, (fate, lives) in self.cast.items():
            self.client.lives, self.client.fate = lives, fate
            with suppress(Died):
                await self._settle(name)
            has_died = self.client.has_died()
            assert not (has_died and lives == WRITES), f"{name}: more writes"
            self.client.lives = None
            if has_died:
                await self._settle(name)
            if self.is_very_late:
                self.client.late, self._late[name] = self._late.get(name, []), self.client.late
            if self.client.late:
                await self.client.arrive()
                await self._settle(name)

    async def _settle(self, name: str) -> None:
        await self.theatre.hire(self.client).settle(self.namespace, name, "Run")

    def pods(self, attempt: int) -> list[Object]:
        """Wait until the pods of all Runs are about to start."""
        return [self.kubelet.pod(self.namespace, run=n, attempt=str(attempt)) for n in self.cast]

    def run(self, name: str) -> Object:
        found = self.api.get("Run", self.namespace, name)
        assert found is not None, name
        return found

    def stop(self, pods: list[Object]) -> None:
        """Do what a kubelet does with pods whose Jobs were deleted, once they are to go."""
        for pod in pods:
            name = pod["metadata"]["name"]
            until(lambda n=name: self._is_going(n), f"{name} is to go")
            self.kubelet.finish(pod, STOPPED, exit_code=143)

    def _is_going(self, pod: str) -> bool:
        found = self.api.get("Pod", self.namespace, pod)
        assert found is not None
        return "deletionTimestamp" in found["metadata"]

    def check(self, reason: str, reasons: list[str]) -> None:
        """See that each Run has come to its end, by these attempts, each with one Job."""
        for name in self.cast:
            run = self.run(name)
            assert condition(run, "Succeeded")["reason"] == reason, name
            assert self._rows(run) == list(enumerate(reasons, start=1)), name
            assert self._record(run)["status"] == run["status"], name
        made = {n: count for n, count in self.client.created.items() if n.startswith("Job/")}
        numbers = range(1, len(reasons) + 1)
        assert made == {f"Job/{name}-{n}": 1 for name in self.cast for n in numbers}

    def _rows(self, run: Object) -> list[tuple[int, str]]:
        rows = run["status"]["attempts"]
        for row in rows:
            assert row["startTime"] <= row["finishTime"]
            assert row["notebook"].endswith(f"/{row['number']}/notebook.ipynb")
        return [(row["number"], row["reason"]) for row in rows]

    def _record(self, run: Object) -> Object:
        """Return the only record of a Run."""
        name, uid = run["metadata"]["name"], run["metadata"]["uid"]
        folder = f"{self.namespace}/wine/adhoc/{name}-{uid[:8]}"
        [file] = [f.key for f in self.theatre.store.list(folder) if f.key.endswith("run.json")]
        record: Object = json.loads(self.theatre.store.get(file))
        return record


@pytest.fixture
def play(
    theatre: Theatre, kubelet: Kubelet, client: MortalClient, monkeypatch: pytest.MonkeyPatch
) -> Play:
    store = theatre.store
    store.ensure_bucket()
    monkeypatch.setattr(store, "put_json", client.endanger(store.put_json))
    return Play(theatre, kubelet, client)


async def test_attempts_that_fail_until_one_succeeds_and_the_run_goes(play: Play) -> None:
    play.is_very_late = True
    await play.open(ttlSecondsAfterFinished=int(TIME_TO_LIVE.total_seconds()))
    pods = play.pods(1)
    for pod in pods:
        play.kubelet.run(pod)
    await play.act()
    for attempt in (2, 3):
        for pod in pods:
            play.kubelet.finish(pod, FAILED, exit_code=1)
        await play.act()
        pods = play.pods(attempt)
    for pod in pods:
        play.kubelet.finish(pod, SUCCEEDED)
    await play.act()
    await play.act()
    play.check("Succeeded", ["NotebookError", "NotebookError", "Succeeded"])
    await play.act(2 * TIME_TO_LIVE)
    assert play.api.list("Run", play.namespace) == []


async def test_one_attempt_that_takes_too_long_and_one_that_is_cancelled(play: Play) -> None:
    late = 2 * TIMEOUT + 5 * SOON
    await play.open(timeoutSeconds=int(TIMEOUT.total_seconds()))
    pods = play.pods(1)
    for pod in pods:
        play.kubelet.run(pod)
    await play.act()
    await play.act(late)
    play.stop(pods)
    await play.act(late)
    pods = play.pods(2)
    for pod in pods:
        play.kubelet.run(pod)
    for name in play.cast:
        play.api.patch("Run", play.namespace, name, {"spec": {"cancel": True}})
    await play.act(late)
    play.stop(pods)
    await play.act(late)
    await play.act(late)
    play.check("Cancelled", ["TimedOut", "Cancelled"])


async def test_a_job_made_for_a_run_that_another_operator_has_ended_goes(
    theatre: Theatre, client: MortalClient
) -> None:
    theatre.api.create(project(theatre.namespace, "https://git.test/wine.git", suspend=True))
    await theatre.hire(client).settle(theatre.namespace, "wine", "Project")
    theatre.api.create(inline_run(theatre.namespace))
    stalled, other = theatre.hire(client), theatre.hire(client)
    await stalled.look()
    theatre.api.patch("Run", theatre.namespace, "first", {"spec": {"cancel": True}})
    await other.settle(theatre.namespace, "first", "Run")
    await stalled.reconcile(theatre.namespace, "first", "Run")
    assert client.created["Job/first-1"] == 1
    await other.settle(theatre.namespace, "first", "Run")
    assert theatre.api.list("Job", theatre.namespace) == []
    ended = theatre.api.get("Run", theatre.namespace, "first")
    assert condition(ended, "Succeeded")["reason"] == "Cancelled"
