"""Place-holders are never doubled and bounds come back, whatever write an operator dies at."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dev.cluster.kubectl import Kubectl
from labfunctions_operator.providers.nodes.aws import Aws
from tests.providers.aws_servers import CREDENTIALS, REGION, Account
from tests.providers.provider_servers import S3Server

from . import process
from .api import STRATEGIC, Api, Object
from .inbox import Inbox
from .kubelet import now
from .mortal import Fate, MortalClient, end_run, names
from .objects import API_VERSION, inline_run
from .process import NAMESPACE
from .sizing import AUTOSCALING, sizing_config
from .test_nodegroup_providers import RAISED, account, moto_port
from .theatre import Theatre, client, theatre

__all__ = ["account", "client", "moto_port", "theatre"]

SIZE = {"cpu": "4", "memory": "16Gi", "pods": "20"}
SOON = timedelta(seconds=5)
# Longer than nodes stay idle, and shorter than a raise.
LATER = timedelta(minutes=20)


@pytest.fixture(scope="module", autouse=True)
def _rights(api: Api, _operator: process.OperatorProcess, kubectl: Kubectl) -> Iterator[None]:
    process.grant_rights(kubectl, *AUTOSCALING)
    yield
    process.grant_rights(kubectl)


@pytest.fixture(scope="module")
def operator_config(
    tmp_path_factory: pytest.TempPathFactory, store: S3Server, inbox_server: Inbox
) -> Path:
    return sizing_config(tmp_path_factory.mktemp("mortal-operator"), store, inbox_server)


class Group:
    """One NodeGroup with Runs, nodes and pods that the test makes."""

    def __init__(self, theatre: Theatre, name: str, **spec: Any) -> None:
        self.theatre, self.name = theatre, name
        self.api, self.namespace = theatre.api, theatre.namespace
        self.runs = [f"{name}-{n}" for n in range(2)]
        times = {"idle": {"after": "10m"}, "cooldown": {"up": "1s", "down": "1s"}}
        self.api.create(
            {
                "apiVersion": API_VERSION,
                "kind": "NodeGroup",
                "metadata": {"name": name},
                "spec": {"labels": {"pool": name}, "max": 3, **times, **spec},
            }
        )

    async def act(self, client: MortalClient, lives: int, fate: Fate, after: timedelta) -> bool:
        self.theatre.clock.now = datetime.now(UTC) + after
        return await self.theatre.kill(client, lives, fate, self.name, kind="NodeGroup")

    @property
    def status(self) -> Object:
        found = self.api.get("NodeGroup", "", self.name)
        assert found is not None
        status: Object = found["status"]
        return status

    def placeholders(self) -> list[str]:
        return sorted(
            names(self.api.list("Pod", NAMESPACE, f"labfunctions.io/node-group={self.name}"))
        )

    def ask(self) -> None:
        """Create Runs that wait for a node each."""
        for name in self.runs:
            self.api.create(inline_run(self.namespace, name, nodeGroup=self.name))

    def serve(self) -> None:
        """Bring a node with a pod for each Run."""
        for name in self.runs:
            self.api.create(node(name, self.name))
            self.api.create(pod(self.namespace, name, self.name))

    def end(self) -> None:
        for name in self.runs:
            end_run(self.api, self.namespace, name)

    def end_pods(self) -> None:
        for name in self.runs:
            change = {"status": {"phase": "Succeeded"}}
            self.api.patch(
                "Pod",
                self.namespace,
                name,
                change,
                subresource="/status",
                content_type=STRATEGIC,
            )

    def remove_nodes(self) -> None:
        for name in self.runs:
            self.api.delete("Node", "", name)


def node(name: str, pool: str) -> Object:
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Test",
        "lastHeartbeatTime": now(),
        "lastTransitionTime": now(),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"pool": pool, "kubernetes.io/hostname": name}},
        "status": {"capacity": SIZE, "allocatable": SIZE, "conditions": [ready]},
    }


def pod(namespace: str, name: str, group: str) -> Object:
    """Return the pod of a Run, bound to the node of that name."""
    labels = {
        "app.kubernetes.io/component": "run",
        "app.kubernetes.io/part-of": "labfunctions",
        "app.kubernetes.io/managed-by": "labfunctions-operator",
        "labfunctions.io/run": name,
        "labfunctions.io/node-group": group,
    }
    safe = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    user = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    container = {"name": "notebook", "image": "registry.test/image", "securityContext": safe}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {
            "nodeName": name,
            "automountServiceAccountToken": False,
            "securityContext": user,
            "containers": [container],
        },
    }


@pytest.mark.parametrize("fate", Fate)
async def test_placeholders_are_never_doubled(
    theatre: Theatre, client: MortalClient, fate: Fate
) -> None:
    for lives in range(6):
        group = Group(theatre, f"{theatre.namespace}-{fate}-{lives}", provider={"capacity": {}})
        await group.act(client, lives, fate, SOON)
        group.ask()
        await group.act(client, lives, fate, SOON)
        assert group.status["desired"] == 2
        group.serve()
        await group.act(client, lives, fate, SOON)
        assert (group.status["busy"], group.placeholders()) == (2, [])
        group.end_pods()
        group.end()
        await group.act(client, lives, fate, SOON)
        held = [f"{group.name}-placeholder-{n}" for n in range(2)]
        assert group.placeholders() == held
        assert [client.created[f"Pod/{name}"] for name in held] == [1, 1]
        has_died = await group.act(client, lives, fate, LATER)
        assert (group.status["desired"], group.placeholders()) == (0, [])
        group.remove_nodes()
        await group.act(client, lives, fate, LATER)
        assert (group.status["idle"], group.placeholders()) == (0, [])
        assert [client.created[f"Pod/{name}"] for name in held] == [1, 1]
        theatre.api.delete("NodeGroup", "", group.name)
    assert not has_died, "there are more writes"


@pytest.fixture
def risky(
    client: MortalClient, moto_port: int, account: Account, monkeypatch: pytest.MonkeyPatch
) -> MortalClient:
    """A client of the API server for which each write to AWS is one more write to die at."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_AUTO_SCALING", f"http://127.0.0.1:{moto_port}")
    call = Aws.call

    async def mortal(self: Aws, operation: str, **arguments: Any) -> Any:
        send = partial(call, self, operation, **arguments)
        return await (send() if operation.startswith("describe") else client.risk(send))

    monkeypatch.setattr(Aws, "call", mortal)
    return client


def asg(theatre: Theatre, account: Account, name: str) -> Group:
    """Create an Auto Scaling group, and the NodeGroup for it."""
    name = account.add_group(name, high=3)
    provider = {"awsAutoScalingGroup": {"name": name, "region": REGION}}
    return Group(theatre, name, provider=provider)


@pytest.mark.parametrize("fate", Fate)
async def test_bounds_come_back(
    theatre: Theatre, risky: MortalClient, account: Account, fate: Fate
) -> None:
    for lives in range(7):
        group = asg(theatre, account, f"{theatre.namespace}-{fate}-{lives}")
        name = group.name
        await group.act(risky, lives, fate, SOON)
        group.ask()
        await group.act(risky, lives, fate, SOON)
        assert account.bounds(name) == (2, 3), name
        assert account.tags(name)[RAISED] == group.status["wanted"]["until"]
        group.end()
        has_died = await group.act(risky, lives, fate, LATER)
        assert account.bounds(name) == (0, 3), name
        assert RAISED not in account.tags(name)
        status = group.status
        assert status["written"] == {"min": 0, "max": 3}, name
        assert status["written"].items() <= status["wanted"].items(), name
        assert "until" not in status["wanted"], name
        assert group.placeholders() == []
        theatre.api.delete("NodeGroup", "", name)
    assert not has_died, "there are more writes"


@pytest.mark.parametrize("fate", Fate)
async def test_a_raise_that_was_cut_short_is_taken_back(
    theatre: Theatre, risky: MortalClient, account: Account, fate: Fate
) -> None:
    """The Runs end while no operator is there; a raise has its end on it from the beginning."""
    for lives in range(6):
        group = asg(theatre, account, f"{theatre.namespace}-{fate}-{lives}")
        name = group.name
        await group.act(risky, 9, fate, SOON)
        group.ask()
        theatre.clock.now = datetime.now(UTC) + SOON
        await theatre.let_die(risky, lives, fate, name, kind="NodeGroup")
        await risky.arrive()
        assert account.bounds(name) == (0, 3) or RAISED in account.tags(name)
        group.end()
        await group.act(risky, 9, fate, LATER)
        assert account.bounds(name) == (0, 3), name
        assert RAISED not in account.tags(name)
        theatre.api.delete("NodeGroup", "", name)
