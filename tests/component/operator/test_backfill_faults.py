"""One Run for each past tick, whatever dies or stalls: a real API server, the test's clock."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta

import pytest

from labfunctions_operator.kube.failures import Conflict

from .api import Object
from .mortal import Died, Fate, MortalClient, MortalOperator, end_run, names
from .test_backfill import backfill
from .theatre import Theatre, client, operator_config, theatre

__all__ = ["client", "operator_config", "theatre"]

COUNT = 4


class Stage:
    """A Backfill of four ticks of a Workflow, one each minute, in a theatre."""

    def __init__(self, theatre: Theatre, name: str, **spec: object) -> None:
        self.theatre, self.name = theatre, name
        self.api, self.namespace = theatre.api, theatre.namespace
        self.first = theatre.tick - timedelta(hours=1)
        last = self.first + timedelta(minutes=COUNT - 1)
        times = {"from": f"{self.first:%Y-%m-%dT%H:%M:%SZ}", "to": f"{last:%Y-%m-%dT%H:%M:%SZ}"}
        spec = {"workflowRef": {"name": "report"}, **times, "reprocess": "All", **spec}
        self.api.create(backfill(self.namespace, name, **spec))

    def run_of(self, minutes: int) -> str:
        return f"{self.name}-{int(self.first.timestamp()) // 60 + minutes}"

    def runs(self) -> list[str]:
        found = self.api.list("Run", self.namespace, f"labfunctions.io/backfill={self.name}")
        return sorted(names(found))

    def status(self) -> Object:
        found = self.api.get("Backfill", self.namespace, self.name)
        assert found is not None
        status: Object = found["status"]
        return status

    async def settle(self, operator: MortalOperator) -> None:
        await operator.read_past(self.namespace, self.name)
        for _ in range(2):
            await operator.look()
            await operator.try_on(self.namespace, self.name, "Backfill")


@pytest.fixture
def stage(theatre: Theatre) -> Callable[..., Stage]:
    theatre.create(suspend=True)
    return lambda name, **spec: Stage(theatre, name, **spec)


@pytest.mark.parametrize("fate", Fate)
async def test_killed_at_any_write(
    theatre: Theatre, client: MortalClient, stage: Callable[..., Stage], fate: Fate
) -> None:
    """In each of the batches, the first one and those after a Run has ended."""
    for lives in range(5):
        again = stage(f"killed-{lives}", maxActive=2)
        for ended in range(COUNT + 1):
            client.lives, client.fate = lives, fate
            with contextlib.suppress(Died):
                await again.settle(theatre.hire(client))
            client.lives = None
            await again.settle(theatre.hire(client))
            await client.arrive()
            assert again.runs() == [again.run_of(n) for n in range(min(COUNT, ended + 2))]
            if ended < COUNT:
                phase = "Succeeded" if ended % 2 else "Failed"
                end_run(theatre.api, theatre.namespace, again.run_of(ended), phase)
        status = again.status()
        assert (status["created"], status["succeeded"], status["failed"]) == (4, 2, 2)
        assert status["phase"] == "Failed"


async def test_two_operators(
    theatre: Theatre, client: MortalClient, stage: Callable[..., Stage]
) -> None:
    again = stage("again")
    both = [theatre.hire(client), theatre.hire(client)]
    for operator in both:
        await operator.read_past(theatre.namespace, "again")
    for minutes in range(COUNT):
        for operator in both:
            await operator.look()
        done = await asyncio.gather(
            *(operator.reconcile(theatre.namespace, "again", "Backfill") for operator in both),
            return_exceptions=True,
        )
        assert [type(d) for d in done if isinstance(d, BaseException)] == [Conflict]
        assert again.runs() == [again.run_of(n) for n in range(minutes + 1)]
        end_run(theatre.api, theatre.namespace, again.run_of(minutes))
    await again.settle(both[0])
    assert again.status()["succeeded"] == COUNT


async def test_one_that_stalls_makes_no_run_that_came_and_went_meanwhile(
    theatre: Theatre, client: MortalClient, stage: Callable[..., Stage]
) -> None:
    again = stage("again")
    stalled, other = theatre.hire(client), theatre.hire(client)
    await stalled.read_past(theatre.namespace, "again")
    await stalled.look()
    await again.settle(other)
    end_run(theatre.api, theatre.namespace, again.run_of(0))
    await again.settle(other)
    theatre.api.delete("Run", theatre.namespace, again.run_of(0))
    with pytest.raises(Conflict):
        await stalled.reconcile(theatre.namespace, "again", "Backfill")
    assert again.runs() == [again.run_of(1)]


async def test_beside_a_schedule_that_catches_up_no_tick_runs_twice(
    theatre: Theatre, client: MortalClient
) -> None:
    theatre.store.ensure_bucket()
    await theatre.open(client)
    theatre.set(2.5)
    first, last = theatre.tick, theatre.tick + timedelta(minutes=2)
    times = {"from": f"{first:%Y-%m-%dT%H:%M:%SZ}", "to": f"{last:%Y-%m-%dT%H:%M:%SZ}"}
    stage = Stage(theatre, "past", **times, reprocess="None", maxActive=9)
    operator = theatre.hire(client)
    await operator.look()
    await operator.try_on(theatre.namespace, "past", "Backfill")
    [condition] = stage.status()["conditions"]
    assert (condition["reason"], stage.runs()) == ("AwaitingSchedule", [])
    await operator.settle(theatre.namespace, "report")
    assert theatre.runs() == [theatre.run_of(2)]
    await stage.settle(operator)
    assert stage.runs() == [theatre.run_of(minutes, "past") for minutes in (0, 1)]
