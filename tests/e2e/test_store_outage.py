"""The store is away while a notebook ends: nothing is lost, the Run ends once it is back."""

from collections.abc import Iterator

import pytest

from dev.install import NAMESPACE

from .cluster import Cluster, Team
from .objects import Object, printed, run

STORE = "deployment/labfunctions-store"


def scale(cluster: Cluster, replicas: int) -> None:
    cluster.kubectl.run("scale", STORE, "-n", NAMESPACE, f"--replicas={replicas}")


@pytest.fixture
def outage(cluster: Cluster, lab: Team) -> Iterator[None]:
    """A Run has begun, and then the store went away."""
    lab.apply(run("patient", "gate"))
    lab.await_cell("patient", "begun")
    scale(cluster, 0)
    selector = ("--selector", "app.kubernetes.io/component=store")

    def is_gone() -> bool:
        return not cluster.kubectl.get("pods", "-n", NAMESPACE, *selector)["items"]

    try:
        cluster.until("the store to be gone", is_gone)
        yield
    finally:
        scale(cluster, 1)
        cluster.await_rollout("labfunctions-store")


@pytest.mark.usefixtures("outage")
def test_a_notebook_outlives_an_outage_of_the_store(cluster: Cluster, lab: Team) -> None:
    lab.let_go("patient")

    def notebook_ended() -> Object | None:
        statuses = lab.pod("patient")["status"]["containerStatuses"]
        found: Object | None = statuses[0]["state"].get("terminated")
        return found

    assert lab.until("the notebook to end", notebook_ended)["exitCode"] == 0

    def has_tried() -> bool:
        _, _, last = lab.log("patient", "courier").partition("uploading for the last time")
        return "trying again" in last

    lab.until("the courier to have tried for the last time", has_tried, about="run/patient")
    waiting = lab.get("run", "patient")
    assert waiting["status"]["phase"] == "Running"
    # A Run that starts now needs no store until it has something to keep.
    lab.apply(run("during", "hello"))

    scale(cluster, 1)
    for name, text in (("patient", "gone through"), ("during", "hello nobody")):
        done = lab.await_success(name)
        assert text in printed(lab.read_notebook(done))
        assert set(done["status"]["outputs"]) >= {"notebook", "html", "result"}
        lab.await_recorded(name)
    assert len(lab.find("jobs", run="patient")) == 1
