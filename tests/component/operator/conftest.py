"""One operator, one node and the servers that it talks to, for all tests of this folder."""

import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.cluster.binaries import ensure, executable
from dev.cluster.controlplane import ControlPlane
from dev.cluster.kubectl import Kubectl
from dev.gitserver.server import Backend, make_server
from labfunctions_operator.providers.store import Store
from tests.providers.provider_servers import HttpGit, Repository, S3Server, free_port

from . import process
from .api import Api
from .bench import Bench
from .inbox import Inbox
from .kubelet import Kubelet
from .objects import notebook
from .process import BUCKET, Footprint, OperatorProcess
from .sizing import sizing_config, sizing_operator

HERE = Path(__file__).parent
_numbers = itertools.count(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Build what is missing before any test's time runs."""
    if any(HERE in item.path.parents for item in items) and not config.option.collectonly:
        ensure(("helm", "versitygw"))


@pytest.fixture(scope="package")
def api(control_plane: ControlPlane, kubectl: Kubectl) -> Iterator[Api]:
    kubectl.run("apply", "--server-side", "-f", str(process.ROOT / "crds"))
    kubectl.await_kinds("crd", "--all")
    api = Api(control_plane.server, control_plane.pki)
    yield api
    api.close()


@pytest.fixture(scope="package")
def kubelet(api: Api) -> Iterator[Kubelet]:
    kubelet = Kubelet(api)
    try:
        kubelet.start()
        yield kubelet
    finally:
        kubelet.stop()


class CountingBackend(Backend):
    """Knows how often each repository was asked for."""

    def __init__(self, root: Path, asked: Counter[str], tokens: dict[str, str]) -> None:
        super().__init__(root, push_token=None, read_tokens=tokens)
        self._asked = asked

    def allows(self, repository: str, password: str | None, *, push: bool) -> bool:
        self._asked[repository] += 1
        return super().allows(repository, password, push=push)


@pytest.fixture(scope="package")
def asked() -> Counter[str]:
    """How often the git server was asked, by the name of the repository."""
    return Counter()


@pytest.fixture(scope="package")
def git_server(tmp_path_factory: pytest.TempPathFactory, asked: Counter[str]) -> Iterator[HttpGit]:
    root = tmp_path_factory.mktemp("operator-git")
    tokens: dict[str, str] = {}
    server = make_server(CountingBackend(root, asked, tokens), "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield HttpGit(root=root, server=server, read_tokens=tokens)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def repository(git_server: HttpGit, tmp_path: Path) -> Repository:
    """A repository with one notebook."""
    name = f"project-{next(_numbers)}.git"
    made = Repository.create(git_server.root, name, git_server.url, tmp_path / "work")
    made.commit({"analysis.ipynb": notebook(), "requirements.txt": "pandas==2.2.3\n"}, "Begin")
    return made


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    port = free_port()
    root = tmp_path_factory.mktemp("operator-store")
    command: list[str | Path] = [
        executable("versitygw"),
        "--port",
        f"127.0.0.1:{port}",
        "--quiet",
        "posix",
        root,
    ]
    server = S3Server(command, port, "access", "s3cret-key")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def inbox_server() -> Iterator[Inbox]:
    inbox = Inbox()
    inbox.start()
    yield inbox
    inbox.stop()


@pytest.fixture
def inbox(inbox_server: Inbox) -> Iterator[Inbox]:
    """Where messages go; empty, and well again after each test."""
    inbox_server.reset()
    yield inbox_server
    inbox_server.reset()


@pytest.fixture
def stored(store: S3Server) -> Iterator[Store]:
    """A client of the store, in the operator's bucket."""
    client = Store(
        endpoint=store.url,
        region="us-east-1",
        bucket=BUCKET,
        prefix="",
        access_key=store.access_key,
        secret_key=store.secret_key,
    )
    yield client
    client.close()


@pytest.fixture
def outage(store: S3Server) -> Iterator[S3Server]:
    """The store, away until the test brings it back."""
    store.stop()
    yield store
    if store.process is None:
        store.start()


@pytest.fixture(scope="package")
def _operator(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    api: Api,
    store: S3Server,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    inbox_server: Inbox,
) -> Iterator[OperatorProcess]:
    folder = tmp_path_factory.mktemp("operator")
    process.grant_rights(kubectl)
    kubeconfig = folder / "kubeconfig"
    process.write_kubeconfig(control_plane, kubectl, kubeconfig)
    config = process.write_config(folder, store, free_port(), inbox_server)
    operator = OperatorProcess(config, kubeconfig, folder / "operator.log")
    yield operator
    assert operator.stop() == 0


@pytest.fixture
def operator(_operator: OperatorProcess) -> Iterator[OperatorProcess]:
    """The operator, running; a test fails if the operator tells of a failure of its own."""
    shown = _operator.log.stat().st_size if _operator.log.exists() else 0
    _operator.ensure()
    yield _operator
    with _operator.log.open() as log:
        log.seek(shown)
        lines = log.readlines()
    print("what the operator said:", *lines, sep="\n")
    bugs = [line for line in lines if _is_bug(line)]
    assert not bugs


def _is_bug(line: str) -> bool:
    try:
        said = json.loads(line)
    except ValueError:
        return True
    return bool(said["level"] == "error" and said["logger"].startswith("labfunctions"))


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A namespace that takes in only pods which pass the strictest rules."""
    name = f"team-{next(_numbers)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": name, "labels": labels}
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    yield name
    for kind in ("Backfill", "Run", "Workflow", "Project"):
        api.request("DELETE", f"/apis/labfunctions.io/v1alpha1/namespaces/{name}/{kind.lower()}s")
    api.delete("Namespace", "", name)


@pytest.fixture
def footprint(control_plane: ControlPlane) -> Footprint:
    return Footprint(control_plane.audit_log)


@pytest.fixture
def bench(
    api: Api, kubelet: Kubelet, operator: OperatorProcess, footprint: Footprint, namespace: str
) -> Bench:
    return Bench(api, kubelet, operator, footprint, namespace)


@pytest.fixture(scope="module")
def sizing_env() -> dict[str, str]:
    """What else the environment of an operator that sizes groups has; a module may say more."""
    return {}


@pytest.fixture(scope="module")
def _sizing_operator(
    _operator: OperatorProcess,
    control_plane: ControlPlane,
    kubectl: Kubectl,
    store: S3Server,
    inbox_server: Inbox,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    sizing_env: dict[str, str],
) -> Iterator[OperatorProcess]:
    config = sizing_config(tmp_path_factory.mktemp("sizing-operator"), store, inbox_server)
    with sizing_operator(_operator, control_plane, kubectl, config, **sizing_env) as operator:
        yield operator


@pytest.fixture
def sizing_bench(
    api: Api,
    kubelet: Kubelet,
    _sizing_operator: OperatorProcess,
    footprint: Footprint,
    namespace: str,
) -> Bench:
    """A namespace of a cluster whose operator sizes groups of nodes."""
    return Bench(api, kubelet, _sizing_operator, footprint, namespace)
