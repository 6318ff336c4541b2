"""How a Run ends, by what the kubelet says of its pod."""

import json
import time
from typing import Any

import pytest
import urllib3

from tests.providers.provider_servers import Repository

from .api import Object, condition, until
from .bench import Bench, courier_config
from .kubelet import SUCCEEDED, terminated
from .objects import inline_run, project

FAILED = {
    "reason": "NotebookError",
    "message": "cell 2 raised ValueError: no wine left",
    "cell": {"index": 2, "id": "a3", "source": "drink()"},
    "exception": {"name": "ValueError", "message": "no wine left"},
    "progress": {"cell": 2, "cells": 3, "name": "Drink"},
}
LOST = {"uploads": {}, "error": "PUT notebook.ipynb: 403 Forbidden"}


def start(bench: Bench, repository: Repository, **spec: Any) -> Object:
    """Let the notebook of a Run start, and return its pod."""
    bench.create(project(bench.namespace, repository.url), inline_run(bench.namespace, **spec))
    pod = bench.pod("first")
    bench.kubelet.run(pod)
    bench.await_reason("Run", "first", "Running")
    return pod


@pytest.mark.parametrize(
    ("end", "reason", "message"),
    [
        ({"result": FAILED, "exit_code": 1}, "NotebookError", "no wine left"),
        (
            {"result": None, "exit_code": 137, "reason": "OOMKilled"},
            "OutOfMemory",
            "used more memory than its limit of 1Gi",
        ),
        (
            {"result": {"reason": "KernelDied", "message": "the kernel died"}, "exit_code": 138},
            "KernelDied",
            "the kernel died",
        ),
        (
            {"result": {"reason": "TimedOut", "message": "after 3 s"}, "exit_code": 124},
            "TimedOut",
            "after 3 s",
        ),
        (
            # The kernel alone was killed: the container lived on, and ended by itself.
            {"result": {"reason": "OutOfMemory", "message": "at cell 2 of 3"}, "exit_code": 137},
            "OutOfMemory",
            "at cell 2 of 3",
        ),
        ({"result": None, "exit_code": 127}, "RunnerMissing", "no python"),
        ({"result": None, "exit_code": 70}, "InternalError", "exit code 70"),
        ({"result": SUCCEEDED, "courier": LOST}, "OutputLost", "403 Forbidden"),
        (
            {"result": FAILED, "exit_code": 1, "courier": LOST},
            "NotebookError",
            "no wine left; its notebook could not be stored: PUT notebook.ipynb: 403 Forbidden",
        ),
        ({"result": SUCCEEDED, "courier": None}, "OutputLost", "courier was stopped"),
    ],
)
def test_end_of_the_pod_gives_reason_and_message(
    bench: Bench, repository: Repository, end: dict[str, Any], reason: str, message: str
) -> None:
    limits = {"limits": {"memory": "1Gi"}}
    pod = start(bench, repository, resources=limits)
    bench.kubelet.finish(pod, **end)
    found = bench.await_reason("Run", "first", reason)
    assert message in condition(found, "Succeeded")["message"]
    status = found["status"]
    assert (status["phase"], status["failure"]["reason"]) == ("Failed", reason)
    if end["result"] is FAILED:
        assert status["failure"]["cell"] == FAILED["cell"]
        assert status["failure"]["exception"] == FAILED["exception"]
        assert status["progress"]["summary"] == "2/3"
    if end.get("courier", "") in (LOST, None):
        assert "notebook" not in status.get("outputs", {})
    else:
        assert status["outputs"]["notebook"].endswith("/notebook.ipynb")


@pytest.mark.parametrize(
    "said",
    [
        {"reason": ""},
        {"reason": "Two Words\n", "message": "m\0" * 3000},
        {"reason": "x" * 2000},
        {"reason": "NotebookError", "cell": {"index": 10**30, "source": "\ud800"}},
        {"reason": "NotebookError", "progress": {"cell": -(10**30), "cells": 10**30}},
        {"reason": ["NotebookError"]},
        {"reason": "Succeeded", "progress": {"cell": 1e400, "cells": 1}},
    ],
)
def test_run_ends_whatever_the_users_code_wrote_as_its_result(
    bench: Bench, repository: Repository, said: Object
) -> None:
    pod = start(bench, repository)
    bench.kubelet.finish(pod, said, exit_code=1)

    def has_ended() -> bool:
        ended: bool = bench.get("Run", "first")["status"]["phase"] in ("Failed", "Succeeded")
        return ended

    until(has_ended, "the Run has ended")


def test_image_that_cannot_be_pulled_is_named_and_recovers(
    bench: Bench, repository: Repository
) -> None:
    bench.create(project(bench.namespace, repository.url), inline_run(bench.namespace))
    pod = bench.pod("first")
    text = "rpc error: manifest unknown"
    for reason in ("ErrImagePull", "ImagePullBackOff", "ErrImagePull"):
        waiting = {"waiting": {"reason": reason, "message": f"{text} ({reason})"}}
        bench.kubelet.report(pod, "Pending", {"notebook": waiting})
    found = bench.await_reason("Run", "first", "ImagePullFailed")
    assert text in condition(found, "Succeeded")["message"]
    assert (found["status"]["phase"], condition(found, "Succeeded")["status"]) == (
        "Starting",
        "Unknown",
    )
    bench.kubelet.run(pod)
    bench.await_reason("Run", "first", "Running")
    bench.kubelet.finish(pod, SUCCEEDED)
    bench.await_reason("Run", "first", "Succeeded")


def test_secret_that_is_missing_is_named(bench: Bench, repository: Repository) -> None:
    bench.create(
        project(bench.namespace, repository.url),
        inline_run(bench.namespace, envFrom=[{"secretRef": {"name": "nowhere"}}]),
    )
    text = 'secret "nowhere" not found'
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": text}}
    pod = bench.pod("first")
    bench.kubelet.report(pod, "Pending", {"notebook": waiting})
    bench.await_reason("Run", "first", "StartError")
    assert text in bench.message("Run", "first")
    bench.kubelet.run(pod)
    bench.await_reason("Run", "first", "Running")
    bench.kubelet.finish(pod, SUCCEEDED)


def test_pod_that_fits_on_no_node_says_so(bench: Bench, repository: Repository) -> None:
    bench.create(
        project(bench.namespace, repository.url),
        inline_run(bench.namespace, nodeSelector={"gpu": "yes"}),
    )
    found = bench.await_reason("Run", "first", "Unschedulable")
    assert "node(s) didn't match" in condition(found, "Succeeded")["message"]


def evict(bench: Bench, pod: Object) -> None:
    killed = terminated(None, exit_code=137)
    bench.kubelet.report(
        pod,
        "Failed",
        {"notebook": killed, "courier": killed},
        reason="Evicted",
        message="The node was low on resource: ephemeral-storage.",
    )


def tear_away(bench: Bench, pod: Object) -> None:
    bench.kubelet.remove(pod)


def delete_job(bench: Bench, pod: Object) -> None:
    [owner] = pod["metadata"]["ownerReferences"]
    bench.api.delete("Job", bench.namespace, owner["name"])
    bench.kubelet.remove(pod)


def test_disruption_is_followed_by_one_more_attempt(bench: Bench, repository: Repository) -> None:
    disruptions = {
        "evicted": (evict, "low on resource: ephemeral-storage"),
        "torn": (tear_away, "the pod is gone"),
        "deleted": (delete_job, "the Job was deleted"),
    }
    bench.create(project(bench.namespace, repository.url))
    bench.create(*(inline_run(bench.namespace, name) for name in disruptions))
    for name, (disrupt, message) in disruptions.items():
        pod = bench.pod(name)
        bench.kubelet.run(pod)
        bench.await_reason("Run", name, "Running")
        disrupt(bench, pod)
        bench.await_reason("Run", name, "Retrying")
        assert message in bench.message("Run", name)
    for name in disruptions:
        pod = bench.pod(name, attempt="2")
        bench.kubelet.run(pod)
        bench.await_reason("Run", name, "Running")
        bench.kubelet.finish(pod, SUCCEEDED)
        done = bench.await_reason("Run", name, "Succeeded")
        reasons = [attempt["reason"] for attempt in done["status"]["attempts"]]
        assert reasons == ["Disrupted", "Succeeded"]
        assert done["status"]["outputs"]["notebook"].endswith("/2/notebook.ipynb")
    assert bench.footprint.count(bench.namespace, "create jobs") == 2 * len(disruptions)


def test_run_out_of_memory_gets_more_of_it_if_asked_for(
    bench: Bench, repository: Repository
) -> None:
    retries = {
        "limit": 1,
        "backoff": {"duration": "1s"},
        "memory": {"factor": 2, "max": "4Gi"},
    }
    limits = {"limits": {"memory": "1Gi"}}
    pod = start(bench, repository, resources=limits, retries=retries)
    bench.kubelet.finish(pod, None, exit_code=137, reason="OOMKilled")
    pod = bench.pod("first", attempt="2")
    assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == "2Gi"
    bench.kubelet.run(pod)
    bench.kubelet.finish(pod, None, exit_code=137, reason="OOMKilled")
    found = bench.await_reason("Run", "first", "OutOfMemory")
    assert found["status"]["phase"] == "Failed"
    assert len(bench.jobs(run="first")) == 2


def test_progress_is_that_of_the_attempt(bench: Bench, repository: Repository) -> None:
    pod = start(bench, repository)
    [job] = bench.jobs(run="first")
    body = json.dumps({"progress": {"cell": 5, "cells": 7, "name": "Nearly done"}})
    with urllib3.PoolManager() as pool:
        late = courier_config(job)["report"]
        assert pool.request("POST", late, body=body).status == 204
        until(lambda: "progress" in bench.get("Run", "first")["status"], "progress is shown")
        evict(bench, pod)
        pod = bench.pod("first", attempt="2")
        bench.kubelet.run(pod)
        found = bench.await_reason("Run", "first", "Running")
        assert "progress" not in found["status"]
        pool.request("POST", late, body=body)
        time.sleep(0.5)
        assert "progress" not in bench.get("Run", "first")["status"]
    bench.kubelet.finish(pod, SUCCEEDED)


def test_pod_that_may_not_be_created_is_explained(bench: Bench, repository: Repository) -> None:
    """The namespace refuses the pod, not the Job: only the Job's Events say so."""
    bench.create(
        project(bench.namespace, repository.url),
        inline_run(bench.namespace, volumes=[{"name": "host", "hostPath": {"path": "/"}}]),
    )

    def is_explained() -> bool:
        return "hostPath" in bench.message("Run", "first")

    until(is_explained, "the Run says why it gets no pod")


def test_cancel_before_start_starts_nothing(bench: Bench, repository: Repository) -> None:
    bench.create(inline_run(bench.namespace))
    bench.await_reason("Run", "first", "ProjectNotFound")
    bench.patch("Run", "first", cancel=True)
    found = bench.await_reason("Run", "first", "Cancelled")
    assert found["status"]["phase"] == "Cancelled"
    bench.create(project(bench.namespace, repository.url))
    bench.await_reason("Project", "wine", "Ready")
    assert bench.jobs(run="first") == []


def test_cancel_in_flight_keeps_what_the_notebook_left(
    bench: Bench, repository: Repository
) -> None:
    pod = start(bench, repository)
    bench.patch("Run", "first", cancel=True)
    bench.await_reason("Run", "first", "Cancelling")
    name = pod["metadata"]["name"]
    until(lambda: "deletionTimestamp" in bench.get("Pod", name)["metadata"], "the pod is to end")
    said = {**FAILED, "reason": "Cancelled", "message": "stopped in cell 2", "exception": None}
    bench.kubelet.finish(pod, said, exit_code=143)
    bench.kubelet.remove(pod)
    found = bench.await_reason("Run", "first", "Cancelled")
    status = found["status"]
    assert status["phase"] == "Cancelled"
    assert condition(found, "Succeeded")["message"] == "cancelled by spec.cancel"
    assert status["progress"]["summary"] == "2/3"
    assert status["outputs"]["notebook"].endswith("/notebook.ipynb")
    until(lambda: not bench.jobs(run="first"), "the Job is gone")


def test_deleted_run_leaves_nothing_and_its_name_can_be_used_again(
    bench: Bench, repository: Repository
) -> None:
    pod = start(bench, repository)
    [job] = bench.jobs(run="first")
    old = courier_config(job)["uploads"]["notebook.ipynb"]
    bench.api.delete("Run", bench.namespace, "first")
    bench.create(inline_run(bench.namespace))

    def is_ending() -> bool:
        held = bench.api.get("Pod", bench.namespace, pod["metadata"]["name"])
        return held is None or "deletionTimestamp" in held["metadata"]

    until(is_ending, "the old pod is to end")
    bench.kubelet.finish(pod, {**FAILED, "reason": "Cancelled"}, exit_code=143)
    bench.kubelet.remove(pod)

    def new_job() -> Object | None:
        return next((j for j in bench.jobs(run="first") if j["metadata"]["uid"] != old_uid), None)

    old_uid = job["metadata"]["uid"]
    new = until(new_job, "the new Run has a Job")
    assert courier_config(new)["uploads"]["notebook.ipynb"].split("?")[0] != old.split("?")[0]
    done = bench.complete("first")
    assert done["metadata"]["uid"][:8] in done["status"]["outputs"]["notebook"]


def test_ttl_deletes_the_run_with_its_job(bench: Bench, repository: Repository) -> None:
    pod = start(bench, repository, ttlSecondsAfterFinished=1)
    bench.kubelet.finish(pod, SUCCEEDED)
    until(lambda: bench.api.get("Run", bench.namespace, "first") is None, "the Run is gone")
    until(lambda: not bench.jobs(run="first"), "the Job is gone")


def test_what_the_user_wrote_reaches_the_pod_as_written(
    bench: Bench, repository: Repository
) -> None:
    """Nothing in a parameter is taken for a reference to the environment."""
    text = '$(HOME) ${HOME} `id` "quoted"\nsecond line'
    bench.create(
        project(bench.namespace, repository.url),
        inline_run(bench.namespace, parameters={"text": text, "list": [1, 2.5, None, True]}),
    )
    pod = bench.pod("first")
    [container] = pod["spec"]["containers"]
    env = {e["name"]: e["value"] for e in container["env"]}
    given = json.loads(env["RUNNER_CONFIG"].replace("$$", "$"))
    assert given["parameters"] == {"text": text, "list": [1, 2.5, None, True]}
    assert "$(" not in env["RUNNER_CONFIG"].replace("$$(", "")
