"""What the operator may do, what it does not do, and who may tell it something."""

import json
from urllib.parse import urlsplit

import pytest
import urllib3

from dev.cluster.controlplane import ControlPlane
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
