"""Place-holders on a real kubelet: they bring images to a node and give way to Runs."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from dev.install import NAMESPACE

from .cluster import Cluster, Repository, Team, upgrade
from .objects import HELLO, Object, project, run, workflow

GROUP = "e2e-devices"
POOL = "labfunctions.example/pool"
# The node is said to have one: there is room for one Run, or for one place-holder.
DEVICE = "labfunctions.example/device"
SPEC: Object = {
    "labels": {POOL: GROUP},
    "gpu": {"count": 1, "resourceName": DEVICE},
    "max": 1,
    "idle": {"after": "1s"},
    "cooldown": {"up": "1s", "down": "1s"},
}


@contextmanager
def sized_node(cluster: Cluster) -> Iterator[str]:
    """Give the only node a device, in a cluster whose groups are sized."""
    kubectl = cluster.kubectl
    [node] = kubectl.get("nodes")["items"]
    name: str = node["metadata"]["name"]

    def devices(operation: str) -> None:
        paths = (
            f"/status/{field}/{DEVICE.replace('/', '~1')}" for field in ("capacity", "allocatable")
        )
        change = [{"op": operation, "path": path, "value": "1"} for path in paths]
        words = ("--subresource=status", "--type=json", "-p", json.dumps(change))
        kubectl.run("patch", "node", name, *words)

    upgrade("autoscaling.enabled=true")
    try:
        kubectl.run("label", "--overwrite", "node", name, f"{POOL}={GROUP}")
        devices("add")
        yield name
    finally:
        kubectl.run("delete", "nodegroup", GROUP, "--ignore-not-found")
        devices("remove")
        kubectl.run("label", "node", name, f"{POOL}-")
        upgrade()
        cluster.await_operator()


def placeholders(cluster: Cluster) -> list[Object]:
    label = f"labfunctions.io/node-group={GROUP}"
    found: list[Object] = cluster.kubectl.get("pods", "-n", NAMESPACE, "-l", label)["items"]
    return found


def states(pod: Object) -> dict[str, str]:
    """Return what became of each container of a pod, in a word."""
    found = {}
    for status in pod["status"].get("containerStatuses") or []:
        [(word, details)] = status["state"].items()
        found[status["name"]] = details.get("reason") or word
    return found


def messages(cluster: Cluster, pod: Object, reason: str) -> list[str]:
    """Return what Events of a pod say, for one reason."""
    meta = pod["metadata"]
    fields = f"involvedObject.uid={meta['uid']},reason={reason}"
    events = cluster.kubectl.get("events", "-n", meta["namespace"], "--field-selector", fields)
    return [event["message"] for event in events["items"]]


def test_a_placeholder_brings_the_image_to_its_node_and_a_run_pushes_it_aside(
    cluster: Cluster, team: Team, new_repository: Callable[[str], Repository]
) -> None:
    repository = new_repository(f"{team.namespace}.git")
    commit = repository.commit({"hello.ipynb": HELLO}, "Begin")
    team.apply(project(repository=repository.name), workflow("hello", nodeGroup=GROUP))
    with sized_node(cluster) as node:
        image = team.await_image(commit)["image"]
        team.await_reason("workflow", "hello", "NodeGroupNotFound")
        now = datetime.now(UTC)
        warm = {"schedule": f"{now.minute} {now.hour} * * *", "duration": "1h", "min": 1}
        team.apply(node_group(warm=[warm]))

        def has_pulled() -> bool:
            return [states(pod).get("pull-0") for pod in placeholders(cluster)] == ["StartError"]

        cluster.until(
            "the image to be pulled", has_pulled, report=lambda: str(placeholders(cluster))
        )
        [holder] = placeholders(cluster)
        assert (holder["spec"]["nodeName"], states(holder)["placeholder"]) == (node, "running")
        assert any(image in said for said in messages(cluster, holder, "Pulled"))

        team.apply(run("first", "hello"))
        pod = team.until("the pod of the Run", lambda: team.find("pods", run="first"))[0]
        done = team.await_success("first")
        assert done["status"]["attempts"][0]["node"] == node
        assert messages(cluster, holder, "Preempted")
        [pulled] = [said for said in messages(cluster, pod, "Pulled") if image in said]
        assert "already present" in pulled

        team.apply(node_group())
        cluster.until("nothing to hold the node", lambda: not placeholders(cluster))
        cluster.until("a group of none", lambda: size_of(cluster) == 0)


def node_group(**spec: object) -> Object:
    return {
        "apiVersion": "labfunctions.io/v1alpha1",
        "kind": "NodeGroup",
        "metadata": {"name": GROUP},
        "spec": {**SPEC, **spec},
    }


def size_of(cluster: Cluster) -> int:
    desired: int = cluster.kubectl.get("nodegroup", GROUP)["status"]["desired"]
    return desired
