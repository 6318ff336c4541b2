"""One control plane for the whole session, one namespace for each test."""

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dev.cluster.binaries import ensure
from dev.cluster.controlplane import COMPONENTS, ControlPlane, free_ports
from dev.cluster.kubectl import Kubectl
from labfunctions_operator.kube import resources
from labfunctions_operator.kube.client import KubeClient

from .harness import PROBE_CRD, PROBES, Audit, Proxy

HERE = Path(__file__).parent
_numbers = itertools.count(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Build what is missing before any test's time runs, and give these tests more of it."""
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(330))
    if ours and not config.option.collectonly:
        ensure(COMPONENTS)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    ports = free_ports()
    plane = ControlPlane(
        tmp_path_factory.mktemp("control-plane"),
        etcd_port=ports.etcd,
        etcd_peer_port=ports.etcd_peer,
        apiserver_port=ports.apiserver,
    )
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    return Kubectl(control_plane.kubeconfig)


@pytest.fixture(scope="session")
def _probe_kind(kubectl: Kubectl) -> Iterator[None]:
    kubectl.apply(PROBE_CRD)
    kubectl.await_kinds("crd/probes.test.labfunctions.io")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resources._BY_KIND, (PROBES.api_version, PROBES.kind), PROBES)
        yield


@pytest.fixture
def namespace(kubectl: Kubectl, _probe_kind: None) -> Iterator[str]:
    name = f"test-{os.getpid()}-{next(_numbers)}"
    kubectl.run("create", "namespace", name)
    yield name
    kubectl.run("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
async def client(control_plane: ControlPlane, namespace: str) -> AsyncIterator[KubeClient]:
    client = await KubeClient.connect(str(control_plane.kubeconfig))
    yield client
    await client.close()


@pytest.fixture
def audit(control_plane: ControlPlane, namespace: str) -> Audit:
    return Audit(control_plane.audit_log, namespace)


@pytest.fixture
async def proxy(control_plane: ControlPlane) -> AsyncIterator[Proxy]:
    async with Proxy(control_plane.ports.apiserver).serve() as proxy:
        yield proxy


@pytest.fixture
async def proxied(
    control_plane: ControlPlane, proxy: Proxy, namespace: str, tmp_path: Path
) -> AsyncIterator[KubeClient]:
    """A client whose way to the API server leads through the proxy."""
    direct = control_plane.kubeconfig.read_text()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        direct.replace(f":{control_plane.ports.apiserver}", f":{proxy.port}"),
    )
    client = await KubeClient.connect(str(kubeconfig))
    yield client
    await client.close()
