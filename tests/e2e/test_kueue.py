"""Runs in a queue of Kueue's: admitted by it, taken back by it, and never failed by it."""

from collections.abc import Iterator

import pytest

from .cluster import Team
from .kueue import installed_kueue, queue_of
from .objects import condition, printed, run

CPU = {"requests": {"cpu": "100m"}}


@pytest.fixture(scope="module")
def queued(lab: Team) -> Iterator[Team]:
    """A team with a queue that lets one Run through at a time."""
    with installed_kueue(lab.cluster.kubectl):
        lab.apply(*queue_of(lab.namespace, cpu="190m"))
        yield lab
        # Kueue's finalizers go while it is there.
        lab.kubectl("delete", "runs", "--all")
        lab.kubectl("delete", "localqueue,clusterqueue,resourceflavor", "--all")


def hold(lab: Team, policy: str) -> None:
    """Say whether the queue lets Jobs through, and keeps those that it let."""
    words = ("--type=merge", "-p", f'{{"spec":{{"stopPolicy":"{policy}"}}}}')
    lab.kubectl("patch", "clusterqueue", lab.namespace, *words)


def test_runs_go_through_the_queue_one_by_one(queued: Team) -> None:
    queued.apply(run("first", "gate", queueName="team", resources=CPU))
    queued.await_cell("first", "begun")
    queued.apply(run("second", "hello", queueName="team", resources=CPU))
    waiting = queued.await_reason("run", "second", "Queued")
    assert condition(waiting)["message"] == "waiting in queue team"
    assert waiting["status"]["phase"] == "Queued"
    assert not queued.find("pods", run="second")
    queued.let_go("first")
    queued.await_success("first")
    queued.await_success("second")


def test_a_run_that_is_taken_back_waits_again_and_then_runs(queued: Team) -> None:
    queued.apply(run("evicted", "gate", queueName="team", resources=CPU, pendingTimeoutSeconds=240))
    queued.await_cell("evicted", "begun")
    hold(queued, "HoldAndDrain")
    back = queued.await_reason("run", "evicted", "Queued")
    assert back["status"]["phase"] == "Queued"
    queued.until("its pod to go", lambda: not queued.find("pods", run="evicted"))
    hold(queued, "None")
    queued.await_cell("evicted", "begun")
    queued.let_go("evicted")
    ended = queued.await_success("evicted")
    assert [a["reason"] for a in ended["status"]["attempts"]] == ["Succeeded"]
    assert "gone through" in printed(queued.read_notebook(ended))
