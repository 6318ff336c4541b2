"""The real cluster with the operator in it, and namespaces for the tests' teams."""

import json
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dev.cluster import kind
from dev.cluster.binaries import executable
from dev.cluster.cache import cluster_root
from dev.cluster.controlplane import ControlPlane
from dev.cluster.errors import ClusterError
from dev.cluster.kubectl import Kubectl
from dev.cluster.network import ADDRESS
from dev.gitserver.deploy import deploy
from dev.install import install

from .cluster import LABEL, Cluster, Repository, Say, Team
from .objects import GATE, HELLO, project, workflow

HERE = Path(__file__).parent
TEST_SECONDS = 600
NewTeam = Callable[..., Team]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give these tests time; fixtures bound their own, as the first one may start a cluster."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Say:
    """Print what is awaited: a test of minutes must not look as if it hung."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say_line(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(text, flush=True)

    return say_line


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, say: Say) -> Iterator[Cluster]:
    """The cluster with this checkout's operator and a git server."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", "set by install()")
        with capture.global_and_fixture_disabled():
            print()
            references = install()
            kubeconfig = _kubeconfig(request)
            deploy(references["gitserver"])
        kubectl = Kubectl(kubeconfig)
        words = ("delete", "namespace", "--selector", LABEL, "--wait=false")
        kubectl.run(*words)
        yield Cluster(kubectl, say)


def _kubeconfig(request: pytest.FixtureRequest) -> Path:
    """Where kind made the cluster, let pytest-kind hand it over."""
    kubeconfig = cluster_root() / "kubeconfig"
    if not kind.is_available():
        return kubeconfig
    options = request.config.option
    options.cluster_name, options.keep_cluster = kind.NAME, True
    options.kubeconfig = str(kubeconfig)
    options.kind_bin, options.kind_kubectl_bin = str(executable("kind")), str(executable("kubectl"))
    handed_over: Path = request.getfixturevalue("kind_cluster").kubeconfig_path
    return handed_over


@pytest.fixture(scope="session")
def control_plane(cluster: Cluster) -> ControlPlane:
    """The local cluster's control plane, which tests may restart and whose audit log they read."""
    if kind.is_available():
        pytest.skip("kind keeps its control plane to itself")
    return ControlPlane(cluster_root(), node_address=ADDRESS)


@pytest.fixture(scope="module")
def new_team(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[NewTeam]:
    """Make namespaces that admit only pods which pass the strictest rules."""
    made = []
    subject = request.path.stem.removeprefix("test_").replace("_", "-")

    def make(security: str = "restricted") -> Team:
        name = f"e2e-{subject}-{secrets.token_hex(3)}"
        labels = {LABEL: "true", "pod-security.kubernetes.io/enforce": security}
        metadata = {"name": name, "labels": labels}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        cluster.kubectl.run("create", "-f", "-", text=json.dumps(body))
        made.append(name)
        team = Team(cluster, name)
        team.until("the namespace's service account", lambda: team.get("sa", "default"))
        return team

    yield make
    for name in made:
        cluster.kubectl.run("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def team(new_team: NewTeam) -> Team:
    return new_team()


@pytest.fixture(scope="module")
def new_repository(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Repository]:
    """Name a repository; it comes to be with its first commit."""

    def make(name: str) -> Repository:
        return Repository(name, tmp_path_factory.mktemp("repository"))

    return make


@pytest.fixture(scope="module")
def lab(new_team: NewTeam, new_repository: Callable[[str], Repository]) -> Team:
    """A team whose Project `lab` is ready, with the Workflows `hello` and `gate`."""
    team = new_team()
    repository = new_repository(f"{team.namespace}.git")
    commit = repository.commit({"hello.ipynb": HELLO, "gate.ipynb": GATE}, "Begin")
    team.apply(project(repository=repository.name), workflow("hello"), workflow("gate"))
    team.await_image(commit)
    return team


@pytest.fixture(autouse=True)
def _operator_is_sound(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[None]:
    """A test fails if the operator told of a failure of its own meanwhile."""
    since = datetime.now(UTC).isoformat()
    yield
    try:
        lines = cluster.operator_log(f"--since-time={since}")
    except ClusterError:
        return  # the test has taken the operator away
    bugs = [line for line in lines if _is_bug(line)]
    assert not bugs, "\n".join(bugs)


def _is_bug(line: str) -> bool:
    try:
        said = json.loads(line)
    except ValueError:
        return True
    return bool(said["level"] == "error" and said["logger"].startswith("labfunctions"))
