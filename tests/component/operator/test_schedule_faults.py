"""One Run for each tick, whatever dies, stalls or steps: a real API server, the test's clock."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dev.cluster.controlplane import ControlPlane
from labfunctions_operator.errors import Transient
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.kube.failures import Conflict
from labfunctions_operator.kube.resources import WORKFLOWS

from ..harness import Proxy
from .api import until
from .mortal import Died, Fate, MortalClient, end_run, without_words
from .theatre import Theatre, client, operator_config, theatre

__all__ = ["client", "operator_config", "theatre"]


POLICIES = [("Allow", [0, 1, 2, 3]), ("Forbid", [0]), ("Replace", [0, 3]), ("Queue", [0, 1, 2, 3])]


@pytest.mark.parametrize("fate", Fate)
@pytest.mark.parametrize(("policy", "made"), POLICIES)
async def test_killed_at_any_write(
    theatre: Theatre, client: MortalClient, policy: str, made: list[int], fate: Fate
) -> None:
    """At the first tick, with nothing live, and at ticks after an outage with a Run live."""
    ends = []
    for lives in range(6):
        name = f"killed-{lives}"
        await theatre.open(client, name, concurrencyPolicy=policy, catchUp={"policy": "All"})
        for minutes in (0.1, 3.1):
            theatre.set(minutes)
            has_died = await theatre.kill(client, lives, fate, name)
        assert theatre.runs(name) == [theatre.run_of(minutes, name) for minutes in made], name
        ends.append(str(without_words(theatre.status(name))).replace(name, "report"))
    assert not has_died, "there are more writes"
    assert len(set(ends)) == 1, ends
    assert set(client.created.values()) == {1}


@pytest.mark.parametrize("fate", Fate)
async def test_killed_at_any_write_while_runs_end_and_go(
    theatre: Theatre, client: MortalClient, fate: Fate
) -> None:
    for lives in range(4):
        name = f"killed-{lives}"
        await theatre.open(client, name, successfulRunsHistoryLimit=0, failedRunsHistoryLimit=0)
        for minutes in range(4):
            theatre.set(minutes + 0.1)
            await theatre.kill(client, lives, fate, name)
            assert theatre.runs(name) == [theatre.run_of(minutes, name)]
            phase = "Succeeded" if minutes % 2 else "Failed"
            run = theatre.run_of(minutes, name)
            end_run(theatre.api, theatre.namespace, run, phase, is_recorded=True)
            has_died = await theatre.kill(client, lives, fate, name)
            assert theatre.runs(name) == []
        status = theatre.status(name)
        assert (status["succeeded"], status["failed"], status["missed"]) == (2, 2, 0), name
        assert [client.created[f"Run/{theatre.run_of(n, name)}"] for n in range(4)] == [1] * 4
    assert not has_died, "there are more writes"


@pytest.mark.parametrize("step", [-2, 2])
@pytest.mark.parametrize("fate", Fate)
async def test_killed_at_any_write_and_the_clock_steps(
    theatre: Theatre, client: MortalClient, fate: Fate, step: int
) -> None:
    """The next operator works at another time, until its clock is set right."""
    for lives in range(4):
        name = f"killed-{lives}"
        await theatre.open(client, name, catchUp={"policy": "All"})
        for minutes in (0.1, 3.1):
            theatre.set(minutes)
            await theatre.kill(client, lives, fate, name, step=step)
        for minutes in (3.2, 7.1):
            theatre.set(minutes)
            await theatre.hire(client).settle(theatre.namespace, name)
        assert theatre.runs(name) == [theatre.run_of(n, name) for n in range(8)], name
        status = theatre.status(name)
        assert (status["schedule"]["runs"], status["missed"]) == (8, 0), name
    assert set(client.created.values()) == {1}


async def test_two_operators(theatre: Theatre, client: MortalClient) -> None:
    theatre.create()
    theatre.set(-0.5)
    both = [theatre.hire(client), theatre.hire(client)]
    await both[0].settle(theatre.namespace, "report")
    for minutes in range(4):
        theatre.set(minutes + 0.01)
        for operator in both:
            await operator.look()
        done = await asyncio.gather(
            *(operator.reconcile(theatre.namespace, "report") for operator in both),
            return_exceptions=True,
        )
        assert [type(d) for d in done if isinstance(d, BaseException)] == [Conflict]
        end_run(theatre.api, theatre.namespace, theatre.run_of(minutes))
        await both[0].settle(theatre.namespace, "report")
        # The other one has not seen that, and may not undo it.
        with suppress(Conflict):
            await both[1].reconcile(theatre.namespace, "report")
    await both[1].settle(theatre.namespace, "report")
    assert theatre.runs() == [theatre.run_of(n) for n in range(4)]
    assert theatre.status()["succeeded"] == 4


@pytest.mark.parametrize(("policy", "made"), POLICIES)
async def test_two_operators_of_which_one_sees_nothing_new(
    theatre: Theatre, client: MortalClient, policy: str, made: list[int]
) -> None:
    await theatre.open(client, concurrencyPolicy=policy, catchUp={"policy": "All"})
    for minutes in (0.1, 3.1):
        blind = theatre.hire(client)
        await blind.look()
        theatre.set(minutes)
        await theatre.hire(client).settle(theatre.namespace, "report")
        seen = theatre.status()
        with pytest.raises(Conflict):
            await blind.reconcile(theatre.namespace, "report")
        assert theatre.status() == seen
    assert theatre.runs() == [theatre.run_of(n) for n in made]


async def test_one_that_stalls_makes_no_run_that_came_and_went_meanwhile(
    theatre: Theatre, client: MortalClient
) -> None:
    theatre.create(successfulRunsHistoryLimit=0)
    theatre.set(-0.5)
    other, stalled = theatre.hire(client), theatre.hire(client)
    await other.settle(theatre.namespace, "report")
    await stalled.look()
    theatre.set(0.1)
    await other.settle(theatre.namespace, "report")
    end_run(theatre.api, theatre.namespace, theatre.run_of(0), is_recorded=True)
    await other.settle(theatre.namespace, "report")
    assert theatre.runs() == []
    with pytest.raises(Conflict):
        await stalled.reconcile(theatre.namespace, "report")
    assert theatre.runs() == []


@pytest.mark.parametrize(("catch_up", "made"), [("Latest", [4]), ("All", [0, 1, 2, 3, 4])])
async def test_api_server_away_over_several_ticks(
    theatre: Theatre, control_plane: ControlPlane, tmp_path: Path, catch_up: str, made: list[int]
) -> None:
    async with Proxy(control_plane.ports.apiserver).serve() as proxy:
        kubeconfig = tmp_path / "kubeconfig"
        direct = theatre.kubeconfig.read_text()
        kubeconfig.write_text(direct.replace(f":{control_plane.ports.apiserver}", f":{proxy.port}"))
        proxied = await KubeClient.connect(str(kubeconfig))
        operator = theatre.hire(proxied)
        theatre.create(catchUp={"policy": catch_up})
        theatre.set(-0.5)
        await operator.settle(theatre.namespace, "report")
        proxy.cut()
        for minutes in range(5):
            theatre.set(minutes)
            with pytest.raises(Transient):
                await operator.reconcile(theatre.namespace, "report")
        proxy.restore()
        await operator.settle(theatre.namespace, "report")
        await proxied.close()
    assert theatre.runs() == [theatre.run_of(n) for n in made]
    assert theatre.status()["missed"] == 5 - len(made)


async def test_clock_steps(theatre: Theatre, client: MortalClient) -> None:
    operator = theatre.hire(client)
    theatre.create()
    theatre.set(-0.5)
    await operator.settle(theatre.namespace, "report")
    seen = []
    for minutes in (0.1, 3.1, 1.5, 2.5, 3.5, 4.1, 4.05, 9.1):
        theatre.set(minutes)
        await operator.settle(theatre.namespace, "report")
        seen.append(len(theatre.runs()))
    assert seen == [1, 2, 2, 2, 2, 3, 3, 4]
    assert theatre.runs() == [theatre.run_of(n) for n in (0, 3, 4, 9)]
    assert theatre.status()["missed"] == 2 + 4


@pytest.mark.parametrize("fate", Fate)
async def test_edit_suspend_and_resume_run_nothing_of_before(
    theatre: Theatre, client: MortalClient, fate: Fate
) -> None:
    for lives in range(3):
        name = f"killed-{lives}"
        await theatre.open(client, name, catchUp={"policy": "All"})
        for minutes, spec in (
            (2.5, {"suspend": True}),
            (5.5, {"suspend": False}),
            (8.5, {"schedule": "*/2 * * * *"}),
            (11.5, {"schedule": None, "interval": "2m"}),
        ):
            theatre.set(minutes)
            theatre.api.patch("Workflow", theatre.namespace, name, {"spec": spec})
            await theatre.kill(client, lives, fate, name)
        assert theatre.runs(name) == []
        assert theatre.status(name)["missed"] == 0


@pytest.mark.parametrize("fate", Fate)
async def test_deleted_and_made_anew_it_runs_no_tick_twice(
    theatre: Theatre, client: MortalClient, fate: Fate
) -> None:
    """On the API server's clock, which says when a Workflow was created."""
    theatre.tick = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
    begin = f"{theatre.tick:%Y-%m-%dT%H:%M:%SZ}"
    cast = {f"killed-{lives}": lives for lives in range(4)}

    def create() -> None:
        for name in cast:
            theatre.create(name, schedule=None, interval="1m", startAt=begin)

    create()
    theatre.set(-0.1)
    for name in cast:
        await theatre.hire(client).settle(theatre.namespace, name)
    theatre.set(0.01)
    for name, lives in cast.items():
        client.lives, client.fate = lives, fate
        with suppress(Died):
            await theatre.hire(client).settle(theatre.namespace, name)
    client.lives = None
    until(lambda: datetime.now(UTC) > theatre.tick + timedelta(seconds=1), "the tick has come")
    for name in cast:
        theatre.api.delete("Workflow", theatre.namespace, name)
    create()
    for minutes in (0.1, 0.2, 1.01):
        theatre.set(minutes)
        for name in cast:
            await theatre.hire(client).settle(theatre.namespace, name)
        await client.arrive()
    for name in cast:
        assert client.created[f"Run/{theatre.run_of(0, name)}"] <= 1, name
        assert client.created[f"Run/{theatre.run_of(1, name)}"] == 1, name
        status = theatre.status(name)
        assert (status["schedule"]["runs"], status["missed"]) == (1, 0), name


async def test_a_run_deleted_while_it_is_live_is_forgotten(
    theatre: Theatre, client: MortalClient
) -> None:
    theatre.create(concurrencyPolicy="Forbid")
    theatre.set(-0.5)
    operator = theatre.hire(client)
    await operator.settle(theatre.namespace, "report")
    theatre.set(0.1)
    await operator.settle(theatre.namespace, "report")
    theatre.api.delete("Run", theatre.namespace, theatre.run_of(0))
    theatre.set(1.1)
    await operator.settle(theatre.namespace, "report")
    assert theatre.status()["active"] == [{"name": theatre.run_of(1)}]


async def test_a_cache_without_the_live_run_is_not_believed(
    theatre: Theatre, client: MortalClient
) -> None:
    """Another operator made it just now: the watch of Runs may lag behind that of Workflows."""
    theatre.create(concurrencyPolicy="Forbid")
    theatre.set(-0.5)
    operator = theatre.hire(client)
    await operator.settle(theatre.namespace, "report")
    other = theatre.hire(client)
    await other.look()
    theatre.set(0.1)
    await operator.settle(theatre.namespace, "report")
    await other.look(WORKFLOWS)
    theatre.set(1.1)
    await other.reconcile(theatre.namespace, "report")
    assert theatre.runs() == [theatre.run_of(0)]
    assert theatre.status()["missed"] == 1
