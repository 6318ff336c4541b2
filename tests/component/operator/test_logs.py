"""The log of the running operator: a line for each decision, and no secret in any of them."""

import base64
import json
from urllib.parse import quote

import pytest

from tests.providers.provider_servers import HttpGit, Repository, S3Server

from .api import Object
from .bench import Bench, courier_config
from .inbox import Inbox
from .kubelet import SUCCEEDED
from .objects import built_project, run, secret, workflow
from .process import REPORT_KEY

TOKEN = "ghp-a-token-that-reads-the-repository"
PASSWORD = "the-password-of-the-database"
HOOK = "hush-the-path-of-the-hook"
BOT = "xoxb-hush-the-bots-token"
OBJECT = ("kind", "namespace", "name", "generation")


def lines_about(bench: Bench, since: int) -> list[Object]:
    with bench.operator.log.open() as log:
        log.seek(since)
        lines = [json.loads(line) for line in log]
    for line in lines:
        assert {"time", "level", "logger", "message"} <= line.keys(), line
    return lines


@pytest.fixture
def private(git_server: HttpGit, repository: Repository) -> Repository:
    git_server.read_tokens[repository.bare.name] = TOKEN
    return repository


def test_each_decision_is_a_line_without_a_secret(
    bench: Bench, private: Repository, store: S3Server, inbox: Inbox
) -> None:
    inbox.status |= {f"discord/{HOOK}": 404, "slack/api/chat.postMessage": 401}
    targets = [
        {"slack": {"secretRef": {"name": "bot"}, "channel": "alerts"}},
        {"discord": {"webhookSecretRef": {"name": "discord"}}},
    ]
    since = bench.operator.log.stat().st_size
    bench.create(
        secret(bench.namespace, "git", username="git", password="wrong-" + TOKEN),
        secret(bench.namespace, "database", password=PASSWORD),
        secret(bench.namespace, "bot", token=BOT),
        secret(bench.namespace, "discord", url=f"{inbox.url}/discord/{HOOK}"),
        built_project(bench.namespace, private.url, git={"secretRef": {"name": "git"}}),
        workflow(
            bench.namespace,
            env=[
                {
                    "name": "DB",
                    "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}},
                }
            ],
        ),
        run(bench.namespace, "good"),
        run(bench.namespace, "bad", notifications={"onFailure": targets}),
    )
    bench.await_reason("Project", "wine", "AuthenticationFailed")
    right = base64.b64encode(TOKEN.encode()).decode()
    bench.api.patch("Secret", bench.namespace, "git", {"data": {"password": right}})
    bench.build()
    pods = {name: bench.pod(name) for name in ("good", "bad")}
    for pod in pods.values():
        bench.kubelet.run(pod)
    for name in pods:
        bench.await_reason("Run", name, "Running")
    urls = [
        url
        for name in pods
        for job in bench.jobs(run=name)
        for url in (*courier_config(job)["uploads"].values(), courier_config(job)["report"])
    ]
    bench.kubelet.finish(pods["good"], SUCCEEDED)
    bench.kubelet.finish(pods["bad"], None, exit_code=137, reason="OOMKilled")
    bench.await_reason("Run", "good", "Succeeded")
    bench.await_reason("Run", "bad", "OutOfMemory")
    bench.await_reason("Run", "bad", "NotificationFailed", type="Notified")

    lines = [ln for ln in lines_about(bench, since) if ln.get("namespace") == bench.namespace]
    decisions = [line for line in lines if "action" in line]
    assert all(line.keys() >= set(OBJECT) for line in decisions)
    of_run = [
        (line["action"], line.get("child") or (line.get("from"), line.get("to")))
        for line in decisions
        if (line["kind"], line["name"]) == ("Run", "bad")
    ]
    begin = of_run.index(("create", "Job/bad-1"))
    assert of_run[begin : begin + 3] == [
        ("create", "Job/bad-1"),
        ("status", ("ImageBuilding", "Running")),
        ("status", ("Running", "OutOfMemory")),
    ]
    told = {(line["target"], line["name"]) for line in decisions if line["action"] == "notify"}
    assert told == {("slack", "bad"), ("discord", "bad")}
    of_project = {(line["action"], line.get("child")) for line in decisions} - {("status", None)}
    [build] = bench.builds()
    assert ("apply", "Secret/wine-builder") in of_project
    assert ("create", f"Job/{build['metadata']['name']}") in of_project

    secrets = [TOKEN, PASSWORD, HOOK, BOT, REPORT_KEY.decode(), store.secret_key, *urls]
    secrets += [url.partition("ignature=")[2] for url in urls]
    with bench.operator.log.open() as log:
        log.seek(since)
        text = log.read()
    for value in secrets:
        assert value not in text
        assert quote(value, safe="") not in text
        assert base64.b64encode(value.encode()).decode() not in text
