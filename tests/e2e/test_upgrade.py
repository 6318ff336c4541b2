"""The release is upgraded, reconfigured, uninstalled and installed again; hence the last file."""

import json
from collections.abc import Callable, Iterator

import pytest

from dev.cluster.errors import ClusterError
from dev.install import NAMESPACE, RELEASE, helm

from .cluster import Cluster, Repository, Team, upgrade
from .objects import HELLO, Object, condition, inline_run, notebook, printed, project, run

COMPONENTS = ("operator", "buildkitd", "registry", "store")


def all_of(cluster: Cluster, kind: str) -> dict[str, Object]:
    found = cluster.kubectl.get(kind, "-n", NAMESPACE)["items"]
    return {f["metadata"]["name"]: f for f in found if not f["metadata"].get("deletionTimestamp")}


def test_an_upgrade_to_the_same_changes_nothing(cluster: Cluster) -> None:
    def state() -> tuple[list[str], dict[str, Object]]:
        secrets = all_of(cluster, "secrets")
        own = {name: s["data"] for name, s in secrets.items() if s["type"] != "helm.sh/release.v1"}
        return sorted(pod["metadata"]["uid"] for pod in all_of(cluster, "pods").values()), own

    before = state()
    assert len(before[0]) == len(COMPONENTS)
    upgrade()
    assert state() == before


@pytest.fixture
def builders_of_their_own(cluster: Cluster) -> Iterator[None]:
    try:
        upgrade("builder.mode=perBuild")
        cluster.await_operator()
        yield
    finally:
        upgrade()
        cluster.await_operator()


@pytest.mark.usefixtures("builders_of_their_own")
def test_a_builder_for_each_build(
    new_team: Callable[..., Team], new_repository: Callable[[str], Repository]
) -> None:
    """Its pod needs more than `restricted` admits; Runs do not."""
    team = new_team("privileged")
    repository = new_repository(f"{team.namespace}.git")
    commit = repository.commit({"hello.ipynb": HELLO}, "Begin")
    team.apply(project(repository=repository.name), inline_run("first", "hello.ipynb"))
    team.await_image(commit, seconds=240)
    [build] = team.builds()
    pod = build["spec"]["template"]["spec"]
    assert {c["name"] for c in pod["initContainers"]} == {"buildkitd", "source"}
    assert not [v for v in pod["volumes"] if v.get("secret")]
    assert not any((c.get("securityContext") or {}).get("privileged") for c in containers(pod))
    done = team.await_success("first")
    assert "hello nobody" in printed(team.read_notebook(done))
    with pytest.raises(ClusterError, match="not found"):
        team.get("secret", "lab-builder")


def containers(pod: Object) -> list[Object]:
    return [*pod["initContainers"], *pod["containers"]]


@pytest.fixture
def uninstall(cluster: Cluster) -> Iterator[Callable[[], None]]:
    """Uninstall when called; the operator is back at the end, whatever happens."""

    def carry_out() -> None:
        helm("uninstall", RELEASE)
        pods = ("get", "pods", "-n", NAMESPACE, "-o", "name")
        cluster.until("all pods to be gone", lambda: not cluster.kubectl.run(*pods))

    try:
        yield carry_out
    finally:
        upgrade()
        cluster.await_operator()


def test_an_uninstallation_leaves_what_is_the_users(
    cluster: Cluster,
    lab: Team,
    uninstall: Callable[[], None],
    new_repository: Callable[[str], Repository],
) -> None:
    lab.apply(run("before", "hello"), run("across", "gate"))
    lab.await_success("before")
    lab.await_cell("across", "begun")
    before = users_objects(lab)
    uninstall()
    assert users_objects(lab) == before
    assert len(cluster.kubectl.get("crd", "-l", "app.kubernetes.io/part-of=labfunctions")["items"])
    assert not cluster.kubectl.succeeds("get", "clusterrole", "labfunctions-operator")
    # Users go on while nobody listens; the notebook that runs waits for the store.
    lab.apply(run("meanwhile", "hello"))

    upgrade()
    cluster.await_operator()
    lab.await_success("meanwhile")
    assert users_objects(lab).items() >= before.items()
    # With new secrets all around, what was given out before is replaced.
    other = new_repository(f"{lab.namespace}-other.git")
    commit = other.commit({"new.ipynb": notebook("print('built anew')")}, "Begin")
    lab.apply(project(repository=other.name))
    lab.await_image(commit)
    lab.apply(inline_run("after", "new.ipynb"))
    assert "built anew" in printed(lab.read_notebook(lab.await_success("after")))
    # What was signed with a key that is gone cannot be stored: the Run says so.
    lab.let_go("across")
    lost = lab.await_end("across")
    assert condition(lost)["reason"] == "OutputLost", condition(lost)


def users_objects(team: Team) -> dict[str, str]:
    """Return the uid of each object of users, by its name."""
    found = json.loads(team.kubectl("get", "projects,workflows,runs,jobs", "-o", "json"))["items"]
    return {f"{f['kind']}/{f['metadata']['name']}": f["metadata"]["uid"] for f in found}
