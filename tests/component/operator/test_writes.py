"""What the operator writes, counted by the API server: a little for a Run, and else nothing."""

import json
import time

import urllib3

from dev.cluster.controlplane import ControlPlane
from tests.providers.provider_servers import Repository

from .api import Object, until
from .bench import Bench, courier_config
from .kubelet import SUCCEEDED, UPLOADED
from .objects import built_project, inline_run, project, run, workflow
from .process import Footprint

ONE_RUN = ["create jobs", "patch runs/status", "patch runs/status"]
FAILED = {
    "reason": "NotebookError",
    "message": "cell 2 raised ValueError: no wine left",
    "cell": {"index": 2, "id": "a3", "source": "drink()"},
    "exception": {"name": "ValueError", "message": "no wine left"},
    "progress": {"cell": 2, "cells": 3, "name": "Drink"},
}


def start(bench: Bench, repository: Repository) -> Object:
    """Start a Run of a Project that is ready, and return its pod."""
    bench.create(project(bench.namespace, repository.url))
    bench.await_reason("Project", "wine", "Ready")
    bench.create(inline_run(bench.namespace))
    return bench.pod("first")


def test_a_successful_run_costs_three_writes(
    bench: Bench, repository: Repository, control_plane: ControlPlane
) -> None:
    bench.create(built_project(bench.namespace, repository.url), workflow(bench.namespace))
    image = bench.build()
    bench.await_reason("Workflow", "analysis", "Ready")

    footprint = Footprint(control_plane.audit_log)
    bench.create(run(bench.namespace, parameters={"trees": 7}))
    pod = bench.pod("first")
    bench.kubelet.run(pod)
    bench.await_reason("Run", "first", "Running")
    [job] = bench.jobs(run="first")
    with urllib3.PoolManager() as pool:
        for name, url in courier_config(job)["uploads"].items():
            assert pool.request("PUT", url, body=name).status == 200
    bench.kubelet.finish(pod, SUCCEEDED)
    done = bench.await_reason("Run", "first", "Succeeded")

    assert footprint.writes(bench.namespace) == ONE_RUN
    status = done["status"]
    assert status["phase"] == "Succeeded"
    assert status["snapshot"]["image"] == image
    assert status["snapshot"]["parameters"] == {"trees": 7}
    assert status["progress"]["summary"] == "3/3"
    folder = f"{bench.namespace}/wine/analysis/first-{done['metadata']['uid'][:8]}/1"
    assert status["outputs"]["notebook"] == f"s3://labfunctions/{folder}/notebook.ipynb"
    [attempt] = status["attempts"]
    assert (attempt["job"], attempt["reason"]) == ("first-1", "Succeeded")


def test_a_failed_run_costs_one_event_more(bench: Bench, repository: Repository) -> None:
    pod = start(bench, repository)
    bench.kubelet.run(pod)
    bench.await_reason("Run", "first", "Running")
    bench.kubelet.finish(pod, FAILED, exit_code=1)
    bench.await_reason("Run", "first", "NotebookError")
    until(lambda: bench.footprint.count(bench.namespace, "create events"), "it is told")
    writes = [w for w in bench.footprint.writes(bench.namespace) if "projects" not in w]
    assert writes == [*ONE_RUN, "create events"]


def test_progress_is_written_at_most_once_a_minute(bench: Bench, repository: Repository) -> None:
    pod = start(bench, repository)
    bench.kubelet.run(pod)
    bench.await_reason("Run", "first", "Running")
    [job] = bench.jobs(run="first")
    url = courier_config(job)["report"]
    with urllib3.PoolManager() as pool:
        for cell in (1, 2, 3):
            body = json.dumps({"progress": {"cell": cell, "cells": 9, "name": "Prepare"}})
            assert pool.request("POST", url, body=body).status == 204
            until(lambda: bench.get("Run", "first")["status"].get("progress"), "progress is shown")
            time.sleep(0.5)
    assert bench.get("Run", "first")["status"]["progress"]["summary"] == "1/9"
    bench.kubelet.finish(pod, SUCCEEDED)
    bench.await_reason("Run", "first", "Succeeded")
    writes = [w for w in bench.footprint.writes(bench.namespace) if "projects" not in w]
    assert writes == ["create jobs", *["patch runs/status"] * 3]


def test_a_settled_world_costs_nothing(
    bench: Bench, repository: Repository, control_plane: ControlPlane
) -> None:
    """A restart lists and reconciles everything, as each sweep does."""
    names = [f"run-{number}" for number in range(20)]
    bench.create(built_project(bench.namespace, repository.url), workflow(bench.namespace))
    bench.create(workflow(bench.namespace, "lost", notebook="nowhere.ipynb"))
    bench.create(project(bench.namespace, repository.url, "broken", git={"ref": "nowhere"}))
    bench.build()
    bench.create(*(run(bench.namespace, name) for name in names))
    for number, name in enumerate(names):
        pod = bench.pod(name)
        if number % 2:
            bench.kubelet.finish(pod, SUCCEEDED)
        else:
            bench.kubelet.finish(pod, FAILED, exit_code=1, courier=UPLOADED)
    for number, name in enumerate(names):
        bench.await_reason("Run", name, "Succeeded" if number % 2 else "NotebookError")
    bench.await_reason("Project", "broken", "RefNotFound")

    bench.operator.stop()
    footprint = Footprint(control_plane.audit_log)
    bench.operator.ensure()
    for job in bench.jobs(project="wine"):
        foreign = {"metadata": {"labels": {"someone": "else"}}}
        bench.api.patch("Job", bench.namespace, job["metadata"]["name"], foreign)
        note = {"metadata": {"annotations": {"someone": "else"}}}
        bench.api.patch("Job", bench.namespace, job["metadata"]["name"], note)
    # Something new that comes last: once it is through, all before it is.
    bench.create(inline_run(bench.namespace, "last", notebook="../out.ipynb"))
    bench.await_reason("Run", "last", "InvalidSpec")
    time.sleep(3)
    assert footprint.writes(bench.namespace) == ["patch runs/status", "create events"]


def test_users_objects_stay_the_users(bench: Bench, repository: Repository) -> None:
    manifests = (
        built_project(bench.namespace, repository.url),
        workflow(bench.namespace),
        run(bench.namespace),
    )
    bench.create(*manifests)
    bench.build()
    bench.complete("first")
    for manifest in manifests:
        stored = bench.get(manifest["kind"], manifest["metadata"]["name"])
        metadata = stored["metadata"]
        assert stored["spec"] == manifest["spec"]
        assert metadata["generation"] == 1
        assert not {"annotations", "finalizers", "labels", "ownerReferences"} & metadata.keys()
        managers = [
            (m["manager"], m.get("subresource"), set(m["fieldsV1"]))
            for m in metadata["managedFields"]
        ]
        assert sorted(managers, key=str) == [
            ("labfunctions", "status", {"f:status"}),
            ("user", None, {"f:spec"}),
        ]
