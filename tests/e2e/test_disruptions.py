"""What happens to a Run from outside: it is told, tried again, and its notebook is kept."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dev.install import NAMESPACE

from .cluster import Cluster, Repository, Team
from .interrupted import LONG, assert_kept, finish, stored
from .objects import Object, code, condition, inline_run, notebook, printed, project
from .processes import kill_container, kill_pod

SLOT = "labfunctions.io/slot"
SLOT_PATH = "/status/capacity/labfunctions.io~1slot"
BUCKET = "/data/labfunctions"
# Writes more than it may, once; the kubelet looks every ten seconds.
WASTEFUL = notebook(
    "print('first cell')",
    "print('half way', flush=True)",
    "import pathlib, time\nif ATTEMPT == 1:\n    time.sleep(6)\n"
    "    pathlib.Path('/tmp/waste').write_bytes(bytes(60 * 2**20))\n    time.sleep(120)",
    "print('the end')",
)
GIVEN = {
    "text": "naïve → ✓ \U0001f377 '\"\\ $(HOME)",
    "whole": 2**63 - 1,
    "exact": 2**53 + 1,
    "negative": -(2**63),
    "nothing": None,
    "deep": {"a": [1, [2.5, None], {"ü": [True, {}]}], "b": []},
}
FLOATS = {"nan": "NaN", "up": "Infinity", "down": "-Infinity", "one": 1.0}
VALUES = notebook(
    code(
        "\n".join(
            [f"{name}: object = 'unset'" for name in GIVEN] + [f"{name} = 0.5" for name in FLOATS]
        ),
        "parameters",
    ),
    "import json, os",
    f"assert json.dumps([{', '.join(GIVEN)}]) == os.environ['EXPECTED']",
    f"assert str([{', '.join(FLOATS)}]) == '[nan, inf, -inf, 1.0]'\nprint('all as given')",
)
NOTEBOOKS: dict[str, str | None] = {
    "long.ipynb": LONG,
    "wasteful.ipynb": WASTEFUL,
    "values.ipynb": VALUES,
}
NOWHERE = "localhost:30500/nobody/nothing:1"


def mounting(volume: Object) -> Object:
    return {
        "volumes": [{"name": "data", **volume}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }


@pytest.fixture(scope="module")
def node(cluster: Cluster) -> str:
    [found] = cluster.kubectl.get("nodes")["items"]
    return str(found["metadata"]["name"])


@pytest.fixture(scope="module")
def no_shell(cluster: Cluster) -> str:
    """The node's own image of a single program: nothing else can be started in it."""
    [node] = cluster.kubectl.get("nodes")["items"]
    names = [name for image in node["status"]["images"] for name in image["names"]]
    return next(name for name in names if "pause" in name and "@" not in name)


@pytest.fixture(scope="module")
def slot(cluster: Cluster, node: str) -> Iterator[None]:
    """The node has one of a scarce resource, and some Runs are more urgent than others."""
    patch = ("patch", "node", node, "--subresource=status", "--type=json", "-p")
    cluster.kubectl.run(*patch, json.dumps([{"op": "add", "path": SLOT_PATH, "value": "1"}]))
    urgent = ("priorityclass", "e2e-urgent")
    cluster.kubectl.run("delete", *urgent, "--ignore-not-found")
    cluster.kubectl.run("create", *urgent, "--value=1000")
    yield
    cluster.kubectl.run("delete", *urgent)
    cluster.kubectl.run(*patch, json.dumps([{"op": "remove", "path": SLOT_PATH}]))


@pytest.fixture(scope="module")
def lab(
    new_team: Callable[[], Team],
    new_repository: Callable[[str], Repository],
    slot: None,
    no_shell: str,
) -> Team:
    """A team whose Runs all begin at once, to be disturbed one after the other."""
    team = new_team()
    repository = new_repository(f"{team.namespace}.git")
    commit = repository.commit(NOTEBOOKS, "Begin")
    team.apply(
        project(repository=repository.name),
        *(
            project(name, repository=repository.name, runtimes=[{"name": "ready", "image": image}])
            for name, image in (("no-image", NOWHERE), ("no-shell", no_shell))
        ),
    )
    team.await_image(commit)
    expected = json.dumps(list(GIVEN.values()))
    team.apply(
        *(inline_run(name, "long.ipynb") for name in ("vanished", "killed", "drained")),
        inline_run("preempted", "long.ipynb", gpu={"resourceName": SLOT}),
        inline_run(
            "evicted", "wasteful.ipynb", resources={"limits": {"ephemeral-storage": "20Mi"}}
        ),
        inline_run("unmounted", "long.ipynb", **mounting({"configMap": {"name": "later"}})),
        inline_run(
            "unclaimed", "long.ipynb", **mounting({"persistentVolumeClaim": {"claimName": "later"}})
        ),
        inline_run("unpullable", "long.ipynb", project="no-image"),
        inline_run("unstartable", "long.ipynb", project="no-shell"),
    )
    # Not `kubectl apply`, which takes null for "leave it out".
    values = inline_run(
        "values",
        "values.ipynb",
        parameters=GIVEN | FLOATS,
        env=[{"name": "EXPECTED", "value": expected}],
    )
    team.kubectl("create", "-f", "-", text=json.dumps(values))
    return team


def test_progress_is_told_within_seconds_and_a_kernel_that_starts_is_no_running_notebook(
    lab: Team,
) -> None:
    lab.await_cell("killed", "first cell")
    began = time.monotonic()
    lab.until("progress", lambda: lab.get("run", "killed")["status"].get("progress"), seconds=20)
    assert time.monotonic() - began < 5
    assert condition(lab.get("run", "killed"))["message"] == "the notebook is running"


def test_a_container_that_is_killed_leaves_its_notebook(lab: Team) -> None:
    lab.await_cell("killed", "half way")
    time.sleep(6)  # the runner saves a running cell every five seconds
    kill_container(lab.pod("killed"), "notebook")
    ended = lab.await_end("killed")
    assert condition(ended)["reason"] == "KernelDied"
    assert "killed from outside (SIGKILL)" in condition(ended)["message"]
    assert_kept(lab, ended["status"]["outputs"]["notebook"])


def test_a_drained_run_is_moved_and_what_it_had_is_kept(lab: Team, node: str) -> None:
    lab.await_cell("drained", "half way")
    drain = ("drain", node, "--delete-emptydir-data", "--ignore-daemonsets", "--timeout=60s")
    try:
        lab.kubectl(*drain, "--pod-selector=labfunctions.io/run=drained")
        waiting = lab.await_reason("run", "drained", "Unschedulable", "Retrying")
        [row, *_] = waiting["status"]["attempts"]
        assert row["reason"] == "Disrupted"
    finally:
        lab.kubectl("uncordon", node)
    assert_kept(lab, row["notebook"])
    events = lab.kubectl("get", "events", "--field-selector=involvedObject.name=drained")
    assert "evicted on request, as when its node is drained" in events
    finish(lab, "drained")


def test_a_preempted_run_waits_for_its_turn(lab: Team) -> None:
    lab.await_cell("preempted", "half way")
    urgent = {"gpu": {"resourceName": SLOT}, "priorityClassName": "e2e-urgent"}
    lab.apply(inline_run("urgent", "long.ipynb", **urgent))
    lab.await_cell("urgent", "half way")
    waiting = lab.await_reason("run", "preempted", "Unschedulable")
    assert f"Insufficient {SLOT}" in condition(waiting)["message"]
    [first, _] = waiting["status"]["attempts"]
    assert first["reason"] == "Disrupted"
    assert_kept(lab, first["notebook"])
    lab.let_go("urgent")
    lab.await_success("urgent")
    finish(lab, "preempted")


def test_a_run_that_fills_its_disk_is_evicted_by_the_kubelet(lab: Team) -> None:
    def first() -> Object | None:
        rows: list[Object] = (lab.get("run", "evicted").get("status") or {}).get("attempts", [])
        return rows[0] if rows and rows[0].get("finishTime") else None

    row = lab.until("the eviction", first, about="run/evicted")
    assert row["reason"] == "Disrupted"
    assert "half way" in stored(lab, row["notebook"])
    ended = lab.await_success("evicted")
    assert "the end" in printed(lab.read_notebook(ended))


def test_a_node_that_loses_power_leaves_the_last_checkpoint(lab: Team) -> None:
    lab.await_cell("vanished", "half way")
    uri = lab.get("run", "vanished")["status"]["outputs"]["notebook"]
    lab.until("a checkpoint", lambda: "half way" in stored(lab, uri))
    kill_pod(lab.pod("vanished"))
    ended = lab.await_end("vanished")
    assert condition(ended)["reason"] == "KernelDied"
    assert "its last state could not be stored" in condition(ended)["message"]
    assert ended["status"]["outputs"]["notebook"] == uri
    assert "half way" in stored(lab, uri)


def test_every_parameter_arrives_as_it_was_given(lab: Team) -> None:
    ended = lab.await_success("values")
    assert ended["status"]["snapshot"]["parameters"] == GIVEN | FLOATS
    assert "all as given" in printed(lab.read_notebook(ended))


def test_what_a_pod_lacks_is_named_before_it_starts(lab: Team) -> None:
    for name, reason, words in (
        ("unmounted", "StartError", 'configmap "later" not found'),
        ("unclaimed", "Unschedulable", 'persistentvolumeclaim "later" not found'),
        ("unpullable", "ImagePullFailed", NOWHERE),
    ):
        waiting = lab.await_reason("run", name, reason)
        assert words in condition(waiting)["message"]
        lab.kubectl("patch", "run", name, "--type=merge", "-p", '{"spec":{"cancel":true}}')
        assert lab.await_end(name)["status"]["phase"] == "Cancelled"


def test_an_image_that_cannot_start_a_program_is_told(lab: Team) -> None:
    ended = lab.await_end("unstartable")
    assert condition(ended)["reason"] == "StartError"
    assert "/bin/sh" in condition(ended)["message"]


@contextmanager
def without_bucket(cluster: Cluster) -> Iterator[None]:
    shell = ("exec", "deployment/labfunctions-store", "-n", NAMESPACE, "--", "sh", "-c")
    cluster.kubectl.run(*shell, f"mv {BUCKET} {BUCKET}-away")
    try:
        yield
    finally:
        cluster.kubectl.run(*shell, f"mv {BUCKET}-away {BUCKET}")


def test_a_store_that_refuses_is_told_as_what_it_is(lab: Team, cluster: Cluster) -> None:
    lab.apply(inline_run("lost", "long.ipynb"))
    lab.await_cell("lost", "half way")
    with without_bucket(cluster):
        lab.let_go("lost")
        ended = lab.await_end("lost")
    assert condition(ended)["reason"] == "OutputLost"
    assert "NoSuchBucket" in condition(ended)["message"]
