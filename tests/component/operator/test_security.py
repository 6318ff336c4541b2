"""What the operator may do, what it does not do, and who may tell it something."""

import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3

from dev.cluster.controlplane import ControlPlane
from labfunctions_operator.runner.config import Config
from labfunctions_operator.runner.courier import Courier, install
from tests.providers.provider_servers import Repository

from .api import Api, Object, until
from .bench import Bench, courier_config
from .kubelet import SUCCEEDED
from .objects import built_project, inline_run, project, secret
from .process import USER, Footprint

CORE, OURS, BATCH = "", "labfunctions.io", "batch"


@pytest.mark.parametrize(
    ("verb", "group", "resource", "allowed"),
    [
        ("get", CORE, "secrets", True),
        ("list", CORE, "secrets", False),
        ("watch", CORE, "secrets", False),
        ("delete", CORE, "secrets", False),
        ("get", CORE, "configmaps", False),
        ("create", CORE, "pods", False),
        ("create", CORE, "pods/exec", False),
        ("create", CORE, "serviceaccounts/token", False),
        ("impersonate", CORE, "users", False),
        ("create", BATCH, "jobs", True),
        ("patch", BATCH, "jobs", False),
        ("delete", BATCH, "cronjobs", True),
        ("update", BATCH, "cronjobs", False),
        ("update", OURS, "projects", False),
        ("patch", OURS, "projects", False),
        ("delete", OURS, "projects", False),
        ("patch", OURS, "workflows", False),
        ("patch", OURS, "backfills", False),
        ("delete", OURS, "backfills", False),
        ("update", OURS, "runs", False),
        ("patch", OURS, "runs", True),
        ("patch", OURS, "projects/status", True),
        ("patch", OURS, "workflows/status", True),
        ("patch", OURS, "backfills/status", True),
        ("patch", OURS, "runs/status", True),
        ("patch", "apiextensions.k8s.io", "customresourcedefinitions", False),
        ("create", "rbac.authorization.k8s.io", "clusterrolebindings", False),
    ],
)
@pytest.mark.usefixtures("_operator")
def test_rights_of_the_operator(
    api: Api, verb: str, group: str, resource: str, *, allowed: bool
) -> None:
    name, _, subresource = resource.partition("/")
    asked = {
        "verb": verb,
        "group": group,
        "resource": name,
        "subresource": subresource,
        "namespace": "default",
    }
    groups = ["system:serviceaccounts", "system:authenticated"]
    review: Object = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "metadata": {},
        "spec": {"user": USER, "groups": groups, "resourceAttributes": asked},
    }
    assert api.create(review)["status"]["allowed"] is allowed


def test_operator_needs_no_right_that_it_lacks_and_reads_no_secret_but_those_named(
    bench: Bench, repository: Repository, control_plane: ControlPlane
) -> None:
    footprint = Footprint(control_plane.audit_log)
    bench.operator.restart()
    bench.create(
        secret(bench.namespace, "git", token="any"),
        secret(bench.namespace, "private", password="nobody's business"),
        built_project(bench.namespace, repository.url, git={"secretRef": {"name": "git"}}),
        inline_run(bench.namespace, envFrom=[{"secretRef": {"name": "private"}}]),
    )
    bench.build()
    bench.complete("first")
    requests = footprint.requests()
    assert [r for r in requests if r.code in (401, 403)] == []
    secrets = [r for r in requests if r.target == "secrets" and r.namespace == bench.namespace]
    assert {(r.verb, r.name) for r in secrets} == {
        ("get", "git"),
        ("get", "wine-builder"),
        ("patch", "wine-builder"),
    }


def test_reports_need_the_operators_signature(bench: Bench, repository: Repository) -> None:
    bench.create(
        project(bench.namespace, repository.url),
        inline_run(bench.namespace),
        inline_run(bench.namespace, "second"),
    )
    urls = {}
    pods = {}
    for name in ("first", "second"):
        pods[name] = bench.pod(name)
        bench.kubelet.run(pods[name])
        bench.await_reason("Run", name, "Running")
        [job] = bench.jobs(run=name)
        urls[name] = courier_config(job)["report"]
    body = json.dumps({"progress": {"cell": 1, "cells": 4, "name": "x" * 200}})
    bare, signature = urls["first"].split("?signature=")
    forged = {
        "none": bare,
        "empty": f"{bare}?signature=",
        "zeros": f"{bare}?signature={'0' * len(signature)}",
        "not ASCII": f"{bare}?signature=%C3%A9",
        "of another Run": f"{bare}?{urlsplit(urls['second']).query}",
        "of another attempt": f"{bare[:-1]}2?signature={signature}",
    }
    huge = json.dumps({"progress": {"cell": 1, "cells": 10**30}}).encode()
    with urllib3.PoolManager() as pool:
        for what, url in forged.items():
            assert pool.request("POST", url, body=body).status == 403, what
        for wrong in (
            b"",
            b"[]",
            b"\xff",
            b'{"progress": 1}',
            b'{"progress": {"cell": "a"}}',
            huge,
        ):
            assert pool.request("POST", urls["first"], body=wrong).status == 400, wrong
        assert pool.request("POST", urls["first"], body=b" " * 5000).status == 413
        assert "progress" not in bench.get("Run", "first")["status"]
        assert pool.request("POST", urls["first"], body=body).status == 204
    until(lambda: "progress" in bench.get("Run", "first")["status"], "progress is shown")
    progress = bench.get("Run", "first")["status"]["progress"]
    assert (progress["summary"], progress["name"]) == ("1/4", "x" * 80)
    assert "progress" not in bench.get("Run", "second")["status"]
    for pod in pods.values():
        bench.kubelet.finish(pod, SUCCEEDED)


def test_courier_may_write_its_own_keys_and_nothing_else(
    bench: Bench, repository: Repository
) -> None:
    bench.create(project(bench.namespace, repository.url), inline_run(bench.namespace))
    pod = bench.pod("first")
    [job] = bench.jobs(run="first")
    url = courier_config(job)["uploads"]["notebook.ipynb"]
    with urllib3.PoolManager() as pool:
        assert pool.request("PUT", url, body="{}").status == 200
        assert pool.request("GET", url).status == 403
        assert pool.request("DELETE", url).status == 403
        other = url.replace("notebook.ipynb", "result.json")
        assert pool.request("PUT", other, body="{}").status == 403
        assert pool.request("GET", url.split("?")[0]).status == 403
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    [notebook] = spec["containers"]
    assert "signature" not in json.dumps(notebook).lower()
    bench.kubelet.finish(pod, SUCCEEDED)


def post(url: str) -> tuple[int, Object]:
    with urllib3.PoolManager(retries=False, timeout=5) as pool:
        answer = pool.request("POST", url, body="{}")
        return answer.status, answer.json() if answer.status == 200 else {}


def test_a_courier_whose_urls_have_ended_gets_others_for_its_own_attempt_while_it_lasts(
    bench: Bench, repository: Repository, tmp_path: Path
) -> None:
    bench.create(project(bench.namespace, repository.url))
    bench.create(inline_run(bench.namespace, retries={"limit": 1, "backoff": {"duration": "1s"}}))
    pod = bench.pod("first")
    [job] = bench.jobs(run="first")
    config = courier_config(job)
    old = {n: url.replace("Expires=", "Expires=1") for n, url in config["uploads"].items()}
    words = json.dumps({**config, "uploads": old})
    courier = Courier(Config.parse(words), tmp_path, tmp_path / "termination-log")
    install(tmp_path)
    (tmp_path / "out" / "result.json").write_text("{}")
    courier.finish(time.monotonic() + 20)
    assert json.loads(courier.termination_log.read_text())["error"] is None
    url = config["renew"]
    renewed = post(url)[1]
    assert {n: urlsplit(u).path for n, u in renewed["uploads"].items()} == {
        n: urlsplit(u).path for n, u in config["uploads"].items()
    }
    assert (renewed["report"], renewed["renew"]) == (config["report"], url)
    assert post(config["report"].replace("/reports/", "/uploads/"))[0] == 403
    assert post(url.replace("/1?", "/2?"))[0] == 403
    assert post(url.replace("/first/", "/second/"))[0] == 403
    bench.kubelet.finish(pod, {"reason": "NotebookError", "message": "no"}, exit_code=1)
    again = bench.pod("first", attempt="2")
    assert post(url)[0] == 409
    [next_job] = [j for j in bench.jobs(run="first") if j["metadata"]["name"] == "first-2"]
    url = courier_config(next_job)["renew"]
    assert "/2/notebook.ipynb" in post(url)[1]["uploads"]["notebook.ipynb"]
    bench.kubelet.finish(again, SUCCEEDED)
    bench.await_reason("Run", "first", "Succeeded")
    assert post(url)[0] == 409
    bench.api.delete("Run", bench.namespace, "first")
    until(lambda: post(url)[0] == 404, "a Run that is gone may do nothing")
