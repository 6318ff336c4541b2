"""The operator is killed, or the API server restarts, in mid-build and mid-run: nothing is lost."""

import secrets
from collections.abc import Callable

import pytest

from dev.cluster.controlplane import ControlPlane
from dev.install import NAMESPACE

from .cluster import Cluster, Repository, Team
from .objects import HELLO, Object, inline_run, printed, project, run

Disturb = Callable[[], None]


@pytest.fixture
def building(lab: Team, new_repository: Callable[[str], Repository]) -> Repository:
    """A Project `slow` in the middle of its build, with a Run that waits for the image."""
    repository = new_repository(f"{lab.namespace}-{secrets.token_hex(3)}.git")
    # A comment of its own makes the build install everything, which takes its time.
    requirements = f"# {secrets.token_hex(8)}\n"
    repository.commit({"hello.ipynb": HELLO, "requirements.txt": requirements}, "Begin")
    lab.apply(
        project("slow", repository=repository.name),
        inline_run("waiting", "hello.ipynb", project="slow"),
    )

    def is_building() -> bool:
        pods = [p for p in lab.find("pods", project="slow") if "build" in p["metadata"]["name"]]
        states = [s["state"] for p in pods for s in p["status"].get("containerStatuses", [])]
        return any("running" in state for state in states)

    lab.until("the build to be under way", is_building, about="project/slow")
    return repository


@pytest.fixture
def running(lab: Team) -> str:
    """A Run `live` in the middle of its notebook."""
    lab.apply(run("live", "gate"))
    lab.await_cell("live", "begun")
    lab.await_reason("run", "live", "Running")
    return "live"


@pytest.fixture
def kill_operator(cluster: Cluster) -> Disturb:
    """End the operator with SIGKILL and wait for the next one."""

    def operators() -> set[str]:
        selector = "app.kubernetes.io/component=operator"
        pods = cluster.kubectl.get("pods", "-n", NAMESPACE, "--selector", selector)["items"]
        return {pod["metadata"]["name"] for pod in pods}

    def kill() -> None:
        before = operators()
        options = ("--grace-period=0", "--force", "--wait=false")
        cluster.kubectl.run("delete", "pod", "-n", NAMESPACE, *options, *before)
        cluster.until("the killed operator to be gone", lambda: not before & operators())
        cluster.await_operator()

    return kill


@pytest.fixture
def restart_apiserver(control_plane: ControlPlane) -> Disturb:
    return control_plane.restart_apiserver


@pytest.mark.parametrize("how", ["kill_operator", "restart_apiserver"])
def test_everything_completes_once(
    lab: Team, running: str, building: Repository, how: str, request: pytest.FixtureRequest
) -> None:
    disturb: Disturb = request.getfixturevalue(how)
    [build] = lab.builds("slow")
    [job] = lab.find("jobs", run="live")
    assert not (build.get("status") or {}).get("completionTime"), "the build was too fast"
    disturb()
    lab.let_go("live")
    live = lab.await_success("live")
    waited = lab.await_success("waiting", seconds=180)

    assert "gone through" in printed(lab.read_notebook(live))
    assert "hello nobody" in printed(lab.read_notebook(waited))
    assert uids(lab.builds("slow")) == uids([build])
    assert uids(lab.find("jobs", run="live")) == uids([job])
    [one] = lab.find("jobs", run="waiting")
    assert [a["job"] for a in waited["status"]["attempts"]] == [one["metadata"]["name"]]
    assert [a["number"] for a in live["status"]["attempts"]] == [1]
    lab.kubectl("delete", "project/slow", "run/live", "run/waiting")
    lab.until("the Jobs to be gone", lambda: not lab.find("jobs", run="live"))


def uids(objects: list[Object]) -> list[str]:
    return [found["metadata"]["uid"] for found in objects]
