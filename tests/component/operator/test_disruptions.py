"""What Kubernetes does to the pods and Jobs of Runs, done by its own controllers."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.providers.provider_servers import Repository

from .api import STRATEGIC, Api, Object, condition, until
from .bench import Bench
from .kubelet import SUCCEEDED, now
from .objects import built_project, inline_run, project

UNREACHABLE = "node.kubernetes.io/unreachable"
# The kubelet of a lost node says nothing: pods there leave when the taint says so.
LOST = {
    "nodeSelector": {"to-be": "lost"},
    "tolerations": [
        {"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
    ],
}


@contextmanager
def node(api: Api, name: str) -> Iterator[None]:
    """A second node, alive until somebody says otherwise."""
    metadata = {"name": name, "labels": {"to-be": "lost", "which": name}}
    size = {"cpu": "4", "memory": "8Gi", "pods": "10"}
    status = {"capacity": size, "allocatable": size, "conditions": [ready("True")]}
    api.create({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status})
    until(
        lambda: not (api.get("Node", "", name) or {})["spec"].get("taints"),
        "the node takes pods",
    )
    try:
        yield
    finally:
        if api.get("Node", "", name):
            api.delete("Node", "", name)


def ready(status: str) -> Object:
    return {
        "type": "Ready",
        "status": status,
        "reason": "Test",
        "lastHeartbeatTime": now(),
        "lastTransitionTime": now(),
    }


def silence(api: Api, name: str) -> None:
    """Say of a node what its controller says once it does not report."""
    change = {"status": {"conditions": [ready("Unknown")]}}
    api.patch("Node", "", name, change, subresource="/status", content_type=STRATEGIC)
    taints = [{"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": now()}]
    api.patch("Node", "", name, {"spec": {"taints": taints}})


def start_on(bench: Bench, run: str, node: str) -> Object:
    bench.create(inline_run(bench.namespace, run, **{**LOST, "nodeSelector": {"which": node}}))
    pod = bench.pod(run)
    bench.kubelet.run(pod)
    bench.await_reason("Run", run, "Running")
    return pod


# Kubernetes leaves the pods of a deleted Node for a minute.
def test_runs_of_a_lost_node_are_tried_again_long_before_their_grace_is_over(
    bench: Bench, repository: Repository
) -> None:
    bench.create(project(bench.namespace, repository.url))
    with node(bench.api, "silent-node"), node(bench.api, "deleted-node"):
        pod = start_on(bench, "silent", "silent-node")
        start_on(bench, "deleted", "deleted-node")
        silence(bench.api, "silent-node")
        bench.api.delete("Node", "", "deleted-node")
        retrying = bench.await_reason("Run", "silent", "Retrying", seconds=60)
        said = condition(retrying, "Succeeded")["message"]
        assert "attempt 1 failed with Disrupted: the pod had to end and never did" in said
        assert retrying["status"]["attempts"][0]["notebook"].endswith("/1/notebook.ipynb")
        left = bench.get("Pod", pod["metadata"]["name"])
        assert left["metadata"]["deletionGracePeriodSeconds"] == 600
        until(
            lambda: bench.get("Run", "deleted")["status"]["attempts"][0].get("reason"),
            "the attempt on the deleted node has ended",
            seconds=90,
        )
        deleted = bench.get("Run", "deleted")
        assert deleted["status"]["attempts"][0]["reason"] == "Disrupted"
        bench.kubelet.remove(pod)
    for name in ("silent", "deleted"):
        bench.patch("Run", name, cancel=True)
        bench.await_reason("Run", name, "Cancelled")


def suspend(bench: Bench, *, suspended: bool) -> None:
    """Do to the only Job what Kueue does when it admits it, or takes its place back."""
    bench.api.patch("Job", bench.namespace, "first-1", {"spec": {"suspend": suspended}})


def test_a_job_that_kueue_takes_back_is_queued_and_starts_again(
    bench: Bench, repository: Repository
) -> None:
    bench.create(
        project(bench.namespace, repository.url), inline_run(bench.namespace, queueName="team")
    )
    queued = bench.await_reason("Run", "first", "Queued")
    assert queued["status"]["phase"] == "Queued"
    assert condition(queued, "Succeeded")["message"] == "waiting in queue team"
    [job] = bench.jobs(run="first")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    for _ in range(2):
        suspend(bench, suspended=False)
        pod = bench.pod("first")
        bench.kubelet.run(pod)
        bench.await_reason("Run", "first", "Running")
        suspend(bench, suspended=True)
        name = pod["metadata"]["name"]
        until(lambda n=name: "deletionTimestamp" in bench.get("Pod", n)["metadata"], "it must end")
        bench.await_reason("Run", "first", "Queued")
        bench.kubelet.finish(pod, {"reason": "Cancelled", "message": "stopped"}, exit_code=143)
        # Admitted anew, while the pod that was stopped is still there.
        suspend(bench, suspended=False)
        bench.kubelet.remove(pod)
        pod = bench.pod("first")
        bench.kubelet.run(pod)
        bench.await_reason("Run", "first", "Running")
        suspend(bench, suspended=True)
        bench.await_reason("Run", "first", "Queued")
        bench.kubelet.finish(pod, {"reason": "Cancelled", "message": "stopped"}, exit_code=143)
        bench.kubelet.remove(pod)
    suspend(bench, suspended=False)
    done = bench.complete("first")
    assert [a["reason"] for a in done["status"]["attempts"]] == ["Succeeded"]
    assert len(bench.jobs(run="first")) == 1


# Five waits of ten seconds.
def test_disruptions_have_a_budget_of_their_own(bench: Bench, repository: Repository) -> None:
    bench.create(project(bench.namespace, repository.url), inline_run(bench.namespace))
    for attempt in range(1, 7):
        pod = bench.pod("first", attempt=str(attempt))
        bench.kubelet.run(pod)
        bench.kubelet.remove(pod)
    ended = bench.await_reason("Run", "first", "Disrupted")
    assert ended["status"]["phase"] == "Failed"
    assert [a["reason"] for a in ended["status"]["attempts"]] == ["Disrupted"] * 6
    assert bench.footprint.count(bench.namespace, "create jobs") == 6


def test_a_kill_between_attempts_repeats_and_skips_none(
    bench: Bench, repository: Repository
) -> None:
    """By the process, at two points; test_run_faults.py has all of them."""
    retries = {"limit": 2, "backoff": {"duration": "1s"}}
    failed = {"reason": "NotebookError", "message": "cell 1 raised"}
    bench.create(project(bench.namespace, repository.url))
    bench.await_reason("Project", "wine", "Ready")
    bench.create(inline_run(bench.namespace, retries=retries))
    # Killed before the end of the attempt is on record.
    pod = bench.pod("first")
    bench.operator.kill()
    bench.kubelet.finish(pod, failed, exit_code=1)
    until(lambda: bench.jobs(run="first")[0]["status"].get("failed"), "the Job failed")
    bench.operator.ensure()
    # Killed when the next Job is there, and nothing of it is on record.
    pod = bench.pod("first", attempt="2")
    bench.operator.kill()
    bench.operator.ensure()
    bench.kubelet.finish(pod, failed, exit_code=1)
    pod = bench.pod("first", attempt="3")
    bench.kubelet.finish(pod, SUCCEEDED)
    done = bench.await_reason("Run", "first", "Succeeded")
    rows = [(a["number"], a["reason"]) for a in done["status"]["attempts"]]
    assert rows == [(1, "NotebookError"), (2, "NotebookError"), (3, "Succeeded")]
    assert bench.footprint.count(bench.namespace, "create jobs") == 3


def test_wrong_parameters_never_get_a_pod_right_after_a_restart(
    bench: Bench, repository: Repository
) -> None:
    bench.create(built_project(bench.namespace, repository.url))
    bench.build()
    bench.operator.kill()
    bench.create(inline_run(bench.namespace, parameters={"trees": "many"}))
    bench.operator.ensure()
    refused = bench.await_reason("Run", "first", "ParametersInvalid")
    assert "parameters.trees: expected int, got str" in condition(refused, "Succeeded")["message"]
    assert bench.jobs(run="first") == []


def test_volume_that_is_missing_is_named(bench: Bench, repository: Repository) -> None:
    bench.create(project(bench.namespace, repository.url), inline_run(bench.namespace))
    pod = bench.pod("first")
    text = 'MountVolume.SetUp failed for volume "data" : configmap "later" not found'
    say(bench, pod, "FailedMount", text)
    bench.await_reason("Run", "first", "StartError")
    assert text in bench.message("Run", "first")
    say(bench, pod, "Pulling", 'Pulling image "registry.test/analysis"')
    bench.await_reason("Run", "first", "Pulling")
    writes = bench.footprint.count(bench.namespace, "patch runs/status")
    bench.operator.restart()
    bench.create(inline_run(bench.namespace, "last", notebook="../out.ipynb"))
    bench.await_reason("Run", "last", "InvalidSpec")
    assert bench.footprint.count(bench.namespace, "patch runs/status") == writes + 1
    bench.kubelet.run(pod)
    bench.await_reason("Run", "first", "Running")
    bench.kubelet.finish(pod, SUCCEEDED)
    bench.await_reason("Run", "first", "Succeeded")


def say(bench: Bench, pod: Object, reason: str, message: str) -> None:
    """Record an Event as the kubelet does."""
    meta = pod["metadata"]
    bench.api.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": bench.namespace, "generateName": "kubelet-"},
            "involvedObject": {
                "kind": "Pod",
                "namespace": bench.namespace,
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "reason": reason,
            "message": message,
            "type": "Warning",
            "lastTimestamp": now(),
            "firstTimestamp": now(),
            "source": {"component": "kubelet"},
        }
    )
