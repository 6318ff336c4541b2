"""A node goes down as its machine is shut down: kubelet ends its pods with grace."""

import json
from collections.abc import Callable, Iterator

import pytest

from dev.cluster.controlplane import ControlPlane
from dev.cluster.spare import NAME, TAINT, Spare
from dev.cluster.systemimages import pause_image

from . import logind
from .cluster import Cluster, Repository, Team
from .interrupted import LONG, assert_kept, finish
from .objects import Object, inline_run, project

ON_SPARE: Object = {"nodeSelector": {"kubernetes.io/hostname": NAME}}
PATIENT: Object = {**ON_SPARE, "tolerations": [{"key": TAINT, "operator": "Exists"}]}
# Goes there even while the node is not ready.
RASH: Object = {**ON_SPARE, "tolerations": [{"operator": "Exists"}]}
# Seconds, of the 60 that kubelet gives.
SAVED_AFTER = 45


@pytest.fixture(scope="module")
def machine(control_plane: ControlPlane, cluster: Cluster) -> Iterator[logind.Logind]:
    """The logind of the spare node, which is there as long as this module runs."""
    spare = Spare(control_plane, pause=pause_image())
    pods = ("get", "pods", "-A", f"--field-selector=spec.nodeName={NAME}", "--output=name")
    spare.stop()  # what a killed test may have left
    try:
        spare.start_bus()
        with logind.serve(spare.bus) as served:
            spare.start()
            cluster.until("the node to be ready", lambda: is_ready(cluster))
            cluster.until("kubelet to ask logind", served.is_inhibited)
            yield served
            cluster.until("the node to be empty", lambda: not cluster.kubectl.run(*pods))
    finally:
        spare.stop()
        cluster.kubectl.run("delete", "node", NAME, "--ignore-not-found")


@pytest.fixture(scope="module")
def lab(
    machine: logind.Logind,
    new_team: Callable[[], Team],
    new_repository: Callable[[str], Repository],
) -> Team:
    team = new_team()
    repository = new_repository(f"{team.namespace}.git")
    commit = repository.commit({"long.ipynb": LONG}, "Begin")
    team.apply(project(repository=repository.name))
    team.await_image(commit)
    return team


def ready(cluster: Cluster) -> Object:
    conditions = cluster.kubectl.get("node", NAME)["status"].get("conditions", [])
    return next((c for c in conditions if c["type"] == "Ready"), {})


def is_ready(cluster: Cluster) -> bool:
    return bool(ready(cluster).get("status") == "True")


def await_words(team: Team, run: str, words: str) -> None:
    """Wait for the Event of the first attempt of a Run, which comes after its status."""
    selector = f"--field-selector=involvedObject.name={run},reason=Disrupted"

    def told() -> list[Object]:
        found = json.loads(team.kubectl("get", "events", selector, "--output=json"))
        return list(found["items"])

    first, *_ = team.until("the Event", told)
    assert first["message"].partition("failed with Disrupted: ")[2] == words


def test_a_node_that_is_shut_down_lets_its_notebooks_be_saved(
    lab: Team, machine: logind.Logind, cluster: Cluster
) -> None:
    lab.apply(inline_run("moved", "long.ipynb", **PATIENT))
    lab.await_cell("moved", "half way")
    uri = lab.get("run", "moved")["status"]["outputs"]["notebook"]

    machine.prepare_for_shutdown(True)
    cluster.until("kubelet to let go", machine.may_go_down, seconds=SAVED_AFTER)
    # A real machine turns itself off here.
    assert_kept(lab, uri)
    waiting = lab.await_reason("run", "moved", "Retrying", "Unschedulable")
    [first, *_] = waiting["status"]["attempts"]
    assert (first["reason"], first["notebook"]) == ("Disrupted", uri)
    await_words(lab, "moved", "ended because its node was shut down")
    cluster.until(
        "the node to say it", lambda: ready(cluster)["message"] == "node is shutting down"
    )
    lab.await_reason("run", "moved", "Unschedulable")

    lab.apply(inline_run("rash", "long.ipynb", **RASH))
    lab.await_reason("run", "rash", "Retrying")
    await_words(lab, "rash", "refused by its node, which was being shut down")
    lab.kubectl("delete", "run", "rash")

    machine.prepare_for_shutdown(False)
    lab.kubectl("delete", "pod", first["pod"])  # kubelet leaves it, as all that have failed
    ended = finish(lab, "moved")
    assert [a.get("reason") for a in ended["status"]["attempts"]] == ["Disrupted", "Succeeded"]
    assert ended["status"]["attempts"][1]["node"] == NAME
