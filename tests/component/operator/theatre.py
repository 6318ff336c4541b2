"""A namespace in which operators live and die inside the test, and nobody else is at work."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from labfunctions_operator.controllers.wiring import open_store
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.providers.store import Store
from labfunctions_operator.settings import load_settings

from .api import Api, Object
from .mortal import Clock, Died, Fate, MortalClient, MortalOperator, names
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
    store: Store
    hire: Callable[[KubeClient], MortalOperator]

    def create(self, name: str = "report", **spec: object) -> None:
        """Create a Workflow that runs each minute, from the first tick on."""
        spec = {"schedule": "* * * * *", "startAt": f"{self.tick:%Y-%m-%dT%H:%M:%SZ}", **spec}
        self.api.create(workflow(self.namespace, name, **spec))

    async def open(self, client: MortalClient, name: str = "report", **spec: object) -> None:
        """Create such a Workflow, and let an operator see it half a minute before its tick."""
        self.create(name, **spec)
        self.set(-0.5)
        await self.hire(client).settle(self.namespace, name)

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

    async def kill(
        self,
        client: MortalClient,
        lives: int,
        fate: Fate,
        name: str,
        *,
        kind: str = "Workflow",
        step: float = 0,
    ) -> bool:
        """Let an operator look at an object until it dies, and then others that live.

        Args:
            client: Of all of them.
            lives: Writes that the first one makes before it dies.
            fate: Of the write at which it dies, which arrives after the second one if it is late.
            name: Of the object.
            kind: Of the object.
            step: Minutes by which the clock is set, once the first one is dead.

        Returns:
            Whether it has died.
        """
        has_died = await self.let_die(client, lives, fate, name, kind=kind)
        namespace = "" if kind == "NodeGroup" else self.namespace
        self.clock.now += timedelta(minutes=step)
        if has_died or step:
            await self.hire(client).settle(namespace, name, kind)
        if client.late:
            await client.arrive()
            await self.hire(client).settle(namespace, name, kind)
        return has_died

    async def let_die(
        self, client: MortalClient, lives: int, fate: Fate, name: str, *, kind: str
    ) -> bool:
        """Let an operator look at an object until it dies; return whether it does."""
        client.lives, client.fate = lives, fate
        with suppress(Died):
            await self.hire(client).settle(
                "" if kind == "NodeGroup" else self.namespace, name, kind
            )
        has_died = client.has_died()
        client.lives = None
        return has_died


@pytest.fixture
def operator_config(_operator: OperatorProcess) -> Path:
    """Return the configuration of all operators; a module may have another one."""
    return _operator.config


@pytest.fixture
async def theatre(
    api: Api,
    _operator: OperatorProcess,
    operator_config: Path,
    namespace: str,
) -> AsyncIterator[Theatre]:
    """Nobody else is at work: the operator's own process does not run."""
    _operator.stop()
    hired: list[MortalOperator] = []
    clock = Clock()

    settings = load_settings(operator_config)
    # One for all of them, as it takes long to open.
    store = open_store(settings)

    def hire(client: KubeClient) -> MortalOperator:
        hired.append(MortalOperator(client, settings, store, clock))
        return hired[-1]

    # Two minutes: all of it is created, by the API server's clock, before the first tick.
    tick = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=3)
    yield Theatre(api, clock, namespace, tick, _operator.kubeconfig, store, hire)
    for operator in hired:
        await operator.close()
    store.close()


@pytest.fixture
async def client(_operator: OperatorProcess) -> AsyncIterator[MortalClient]:
    """A client with the operator's own rights."""
    client = await MortalClient.connect(str(_operator.kubeconfig))
    yield client
    await client.close()
