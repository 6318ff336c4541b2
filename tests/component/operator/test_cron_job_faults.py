"""A schedule between operator and CronJob: each tick is one Run, whatever dies in a switch."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.kube.client import ListResult
from labfunctions_operator.kube.resources import Resource

from .api import Object
from .mortal import Clock, Fate, MortalClient
from .objects import project
from .process import OperatorProcess
from .test_cron_jobs import job_of_tick
from .theatre import Theatre, operator_config, theatre

__all__ = ["operator_config", "theatre"]

SWITCHES = {1.1: "CronJob", 3.1: "Operator", 4.5: "CronJob", 5.5: "Operator"}
LAST = 6


class Client(MortalClient):
    """Sees CronJobs as created by the theatre's clock; the API server's is some minutes behind."""

    clock: Clock
    born: dict[str, datetime]

    async def list(self, resource: Resource, **options: Any) -> ListResult:
        listed = await super().list(resource, **options)
        for item in listed.items:
            self._date(item)
        return listed

    async def _send_on(self, verb: str, method: str, path: str, **options: Any) -> Object:
        return self._date(await super()._send_on(verb, method, path, **options))

    def _date(self, obj: Object) -> Object:
        if obj.get("kind") == "CronJob":
            meta = obj["metadata"]
            born = self.born.setdefault(meta["uid"], self.clock.now)
            meta["creationTimestamp"] = rfc3339(born)
        return obj


@pytest.fixture
async def client(theatre: Theatre, _operator: OperatorProcess) -> AsyncIterator[Client]:
    client = await Client.connect(str(_operator.kubeconfig))
    client.clock, client.born = theatre.clock, {}
    yield client
    await client.close()


def is_theirs(minutes: float) -> bool:
    """Whether there is to be a CronJob after that moment."""
    said = [word for moment, word in SWITCHES.items() if moment <= minutes]
    return bool(said) and said[-1] == "CronJob"


def cron_job(theatre: Theatre, name: str) -> Object | None:
    """Return a Workflow's CronJob, if it has one that is not about to go."""
    found = theatre.api.get("CronJob", theatre.namespace, name)
    return None if found is None or "deletionTimestamp" in found["metadata"] else found


@pytest.mark.parametrize("fate", Fate)
async def test_killed_at_any_write(theatre: Theatre, client: Client, fate: Fate) -> None:
    """In each switch, at a tick and between two, and at each tick of either scheduler."""
    # The controller's own clock must not come to these ticks.
    theatre.tick = (datetime.now(UTC) + timedelta(hours=2)).replace(minute=0, second=0)
    times = {"schedule": f"* {theatre.tick.hour} * * *", "startAt": None}
    theatre.api.create(project(theatre.namespace, "https://git.test/wine.git", suspend=True))
    await theatre.hire(client).settle(theatre.namespace, "wine", "Project")
    for lives in range(5):
        name = f"killed-{lives}"
        await theatre.open(client, name, **times)
        deaths = 0
        for minutes in sorted({*SWITCHES, *(n + 0.1 for n in range(LAST + 1))}):
            theatre.set(minutes)
            made = cron_job(theatre, name)
            if made and minutes % 1 < 0.5:
                theatre.api.create(
                    job_of_tick(made, theatre.tick + timedelta(minutes=int(minutes)))
                )
            if minutes in SWITCHES:
                spec = {"scheduler": SWITCHES[minutes]}
                theatre.api.patch("Workflow", theatre.namespace, name, {"spec": spec})
            deaths += await theatre.kill(client, lives, fate, name)
            assert (cron_job(theatre, name) is not None) == is_theirs(minutes), minutes
        await check(theatre, client, name)
    assert deaths == 0, "there are more writes"


async def check(theatre: Theatre, client: Client, name: str) -> None:
    """See that each tick has one Run and one Job, and is counted."""
    ticks = [theatre.run_of(n, name) for n in range(LAST + 1)]
    assert theatre.runs(name) == ticks, name
    for run in ticks:
        await theatre.hire(client).settle(theatre.namespace, run, "Run")
    jobs = theatre.api.list("Job", theatre.namespace, f"labfunctions.io/workflow={name}")
    assert sorted(job["metadata"]["name"] for job in jobs) == ticks, name
    status = theatre.status(name)
    assert [ref["name"] for ref in status["active"]] == ticks, name
    assert (status["schedule"]["runs"], status["missed"]) == (len(ticks), 0), name
