"""One Run for each tick, whatever dies, stalls or steps: a real API server, the test's clock."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dev.cluster.controlplane import ControlPlane
from labfunctions_operator.controllers.wiring import open_store
from labfunctions_operator.errors import Transient
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.kube.failures import Conflict
from labfunctions_operator.kube.resources import WORKFLOWS
from labfunctions_operator.settings import load_settings

from ..harness import Proxy
from .api import Api, Object
from .mortal import (
    Clock,
    Died,
    MortalClient,
    MortalOperator,
    end_run,
    names,
    without_words,
)
from .objects import workflow
from .process import OperatorProcess


@dataclass
class Theatre:
    """A namespace with Workflows, the clock of their operators, and the first tick."""

    api: Api
    clock: Clock
    namespace: str
    tick: datetime
    kubeconfig: Path
    hire: Callable[[KubeClient], MortalOperator]

    def create(self, name: str = "report", **spec: object) -> None:
        """Create a Workflow that runs each minute, from the first tick on."""
        spec = {"schedule": "* * * * *", "startAt": f"{self.tick:%Y-%m-%dT%H:%M:%SZ}", **spec}
        self.api.create(workflow(self.namespace, name, **spec))

    def set(self, minutes: float) -> None:
        self.clock.set(minutes, after=self.tick)

    def run_of(self, minutes: int, name: str = "report") -> str:
        return f"{name}-{int(self.tick.timestamp()) // 60 + minutes}"

    def status(self, name: str = "report") -> Object:
        found = self.api.get("Workflow", self.namespace, name)
        assert found is not None
        status: Object = found["status"]
        return status

    def runs(self, name: str = "report") -> list[str]:
        found = self.api.list("Run", self.namespace, f"labfunctions.io/workflow={name}")
        return sorted(names(found))


@pytest.fixture
async def theatre(api: Api, _operator: OperatorProcess, namespace: str) -> AsyncIterator[Theatre]:
    """Nobody else is at work: the operator's own process does not run."""
    _operator.stop()
    hired: list[MortalOperator] = []
    clock = Clock()

    settings = load_settings(_operator.config)
    # Nothing is put into it, and it takes long to open.
    store = open_store(settings)

    def hire(client: KubeClient) -> MortalOperator:
        hired.append(MortalOperator(client, settings, store, clock))
        return hired[-1]

    # Two minutes: all of it is created, by the API server's clock, before the first tick.
    tick = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=3)
    yield Theatre(api, clock, namespace, tick, _operator.kubeconfig, hire)
    for operator in hired:
        await operator.close()
    store.close()


@pytest.fixture
async def client(_operator: OperatorProcess) -> AsyncIterator[MortalClient]:
    """A client with the operator's own rights."""
    client = await MortalClient.connect(str(_operator.kubeconfig))
    yield client
    await client.close()


@pytest.mark.parametrize("answers_are_lost", [False, True])
@pytest.mark.parametrize(
    ("policy", "made"),
    [("Allow", [0, 1, 2, 3]), ("Forbid", [0]), ("Replace", [0, 3]), ("Queue", [0, 1, 2, 3])],
)
async def test_killed_at_any_write(
    theatre: Theatre, client: MortalClient, policy: str, made: list[int], *, answers_are_lost: bool
) -> None:
    """At the first tick, with nothing live, and at ticks after an outage with a Run live."""
    ends = []
    for lives in (None, 0, 1, 2, 3, 4):
        name = f"killed-{lives}".lower()
        theatre.create(name, concurrencyPolicy=policy, catchUp={"policy": "All"})
        theatre.set(-0.5)
        await theatre.hire(client).settle(theatre.namespace, name)
        for minutes in (0.1, 3.1):
            theatre.set(minutes)
            client.lives, client.answers_are_lost = lives, answers_are_lost
            with suppress(Died):
                await theatre.hire(client).settle(theatre.namespace, name)
            client.lives = None
            theatre.set(minutes + 0.1)
            await theatre.hire(client).settle(theatre.namespace, name)
        assert theatre.runs(name) == [theatre.run_of(minutes, name) for minutes in made], name
        ends.append(str(without_words(theatre.status(name))).replace(name, "report"))
    assert len(set(ends)) == 1, ends


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


async def test_api_server_away_over_several_ticks(
    theatre: Theatre, control_plane: ControlPlane, tmp_path: Path
) -> None:
    async with Proxy(control_plane.ports.apiserver).serve() as proxy:
        kubeconfig = tmp_path / "kubeconfig"
        direct = theatre.kubeconfig.read_text()
        kubeconfig.write_text(direct.replace(f":{control_plane.ports.apiserver}", f":{proxy.port}"))
        proxied = await KubeClient.connect(str(kubeconfig))
        operator = theatre.hire(proxied)
        theatre.create()
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
    assert theatre.runs() == [theatre.run_of(4)]
    assert theatre.status()["missed"] == 4


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


async def test_edit_suspend_and_resume_run_nothing_of_before(
    theatre: Theatre, client: MortalClient
) -> None:
    theatre.create(catchUp={"policy": "All"})
    theatre.set(-0.5)
    await theatre.hire(client).settle(theatre.namespace, "report")
    for minutes, spec in (
        (2.5, {"suspend": True}),
        (5.5, {"suspend": False}),
        (8.5, {"schedule": "*/2 * * * *"}),
        (11.5, {"schedule": None, "interval": "2m"}),
    ):
        theatre.set(minutes)
        theatre.api.patch("Workflow", theatre.namespace, "report", {"spec": spec})
        await theatre.hire(client).settle(theatre.namespace, "report")
    assert theatre.runs() == []
    assert theatre.status()["missed"] == 0


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
