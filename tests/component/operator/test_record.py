"""What is kept of a Run beyond its object, and that no object goes before it is kept."""

import json
from typing import Any

from labfunctions_operator.providers.store import Store
from tests.providers.provider_servers import Repository, S3Server

from .api import Object, condition, until
from .bench import Bench
from .kubelet import SUCCEEDED
from .objects import built_project, inline_run, project, run, workflow
from .process import BUCKET


def read_record(stored: Store, ended: Object) -> Any:
    uri = ended["status"]["outputs"]["record"]
    return json.loads(stored.get(uri.removeprefix(f"s3://{BUCKET}/")))


def test_the_record_is_the_run_as_it_ended(
    bench: Bench, repository: Repository, stored: Store
) -> None:
    bench.create(project(bench.namespace, repository.url), workflow(bench.namespace))
    bench.await_reason("Workflow", "analysis", "Ready")
    bench.create(run(bench.namespace, parameters={"trees": 7}))
    ended = bench.complete("first")
    record = read_record(stored, ended)
    assert record["status"] == ended["status"]
    assert record["spec"] == ended["spec"]
    assert record["metadata"]["uid"] == ended["metadata"]["uid"]
    assert ended["status"]["outputs"]["etags"] == {"notebook": "e", "html": "e", "result": "e"}
    folder = f"{bench.namespace}/wine/analysis/first-{ended['metadata']['uid'][:8]}"
    assert ended["status"]["outputs"]["record"] == f"s3://{BUCKET}/{folder}/run.json"


def test_a_run_that_was_refused_is_recorded_too(
    bench: Bench, repository: Repository, stored: Store
) -> None:
    bench.create(built_project(bench.namespace, repository.url), workflow(bench.namespace))
    bench.build()
    bench.await_reason("Workflow", "analysis", "Ready")
    bench.create(
        run(bench.namespace, "unknown", parameters={"trunks": 7}),
        inline_run(bench.namespace, "invalid", notebook="../out.ipynb"),
    )
    for name, reason in (("unknown", "ParametersInvalid"), ("invalid", "InvalidSpec")):
        ended = bench.await_reason("Run", name, reason)
        assert read_record(stored, ended)["status"] == ended["status"]


def test_without_the_store_runs_end_and_stay_until_they_are_recorded(
    bench: Bench, repository: Repository, stored: Store, outage: S3Server
) -> None:
    bench.create(project(bench.namespace, repository.url))
    names = ["first", "second", "third"]
    for name in names:
        bench.create(inline_run(bench.namespace, name, ttlSecondsAfterFinished=0))
    for name in names:
        bench.kubelet.finish(bench.pod(name), SUCCEEDED)
    for name in names:
        ended = bench.await_reason("Run", name, "Succeeded")
        recorded = condition(ended, "Recorded")
        assert (recorded["status"], recorded["reason"]) == ("False", "StoreUnavailable")
        assert "the Run is kept until it is" in recorded["message"]
    outage.start()
    bench.operator.restart()  # in place of the minute until it tries again
    until(
        lambda: not any(bench.api.get("Run", bench.namespace, name) for name in names),
        "the Runs go once they are recorded",
    )


def test_kill_between_the_record_and_the_status(
    bench: Bench, repository: Repository, stored: Store
) -> None:
    """The record alone is there: the Run ends all the same, and with one record."""
    bench.create(project(bench.namespace, repository.url), inline_run(bench.namespace))
    pod = bench.pod("first")
    bench.kubelet.run(pod)
    running = bench.await_reason("Run", "first", "Running")
    bench.operator.kill()
    uid = running["metadata"]["uid"]
    key = f"{bench.namespace}/wine/adhoc/first-{uid[:8]}/run.json"
    stored.put_json(key, {"status": "half the truth"})
    bench.kubelet.finish(pod, SUCCEEDED)
    bench.operator.ensure()
    ended = bench.await_reason("Run", "first", "Succeeded")
    assert read_record(stored, ended)["status"] == ended["status"]


def started(bench: Bench, repository: Repository, name: str) -> str:
    """Let a Run of a Workflow start; return where its record will lie."""
    bench.create(project(bench.namespace, repository.url), workflow(bench.namespace))
    bench.await_reason("Workflow", "analysis", "Ready")
    owner = bench.get("Workflow", "analysis")["metadata"]
    manifest = run(bench.namespace, name)
    manifest["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "labfunctions.io/v1alpha1",
            "kind": "Workflow",
            "name": "analysis",
            "uid": owner["uid"],
        }
    ]
    bench.create(manifest)
    bench.kubelet.run(bench.pod(name))
    uid = bench.await_reason("Run", name, "Running")["metadata"]["uid"]
    return f"{bench.namespace}/wine/analysis/{name}-{uid[:8]}/run.json"


def test_a_run_that_goes_with_its_workflow_while_it_runs_is_recorded(
    bench: Bench, repository: Repository, stored: Store
) -> None:
    key = started(bench, repository, "first")
    bench.api.delete("Workflow", bench.namespace, "analysis")
    until(lambda: stored.exists(key), "the record is there")
    status = json.loads(stored.get(key))["status"]
    assert (status["phase"], status["failure"]["reason"]) == ("Failed", "Deleted")
    assert condition({"status": status}, "Succeeded")["message"] == "deleted while Running"
    assert status["outputs"]["record"] == f"s3://{BUCKET}/{key}"
    assert status["snapshot"]["workflow"] == "analysis"
