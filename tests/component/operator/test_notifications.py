"""Messages about Runs: what is sent, written and refused, and what a crash repeats."""

import json
import time
from typing import Any

import pytest
import urllib3

from dev.cluster.controlplane import ControlPlane
from dev.cluster.kubectl import Kubectl
from tests.providers.provider_servers import Repository

from .api import ApiError, Object, condition, until
from .bench import Bench, courier_config
from .inbox import Inbox
from .kubelet import SUCCEEDED
from .objects import built_project, inline_run, project, run, secret, workflow
from .process import Footprint
from .test_writes import FAILED, ONE_RUN


@pytest.fixture
def ready(bench: Bench, repository: Repository) -> Bench:
    """A bench with a Project that is ready."""
    bench.create(project(bench.namespace, repository.url))
    bench.await_reason("Project", "wine", "Ready")
    return bench


def start(bench: Bench, name: str = "first", **spec: Any) -> Object:
    bench.create(inline_run(bench.namespace, name, **spec))
    pod = bench.pod(name)
    bench.kubelet.run(pod)
    bench.await_reason("Run", name, "Running")
    return pod


def fail(bench: Bench, name: str = "first", **spec: Any) -> None:
    bench.kubelet.finish(start(bench, name, **spec), FAILED, exit_code=1)
    bench.await_reason("Run", name, "NotebookError")


def succeed(bench: Bench, name: str = "first", **spec: Any) -> None:
    bench.kubelet.finish(start(bench, name, **spec), SUCCEEDED)
    bench.await_reason("Run", name, "Succeeded")


def notified(bench: Bench, name: str = "first", reason: str = "Sent") -> Object:
    return bench.await_reason("Run", name, reason, type="Notified")


def test_a_failure_is_told_everywhere_for_one_write_more(
    ready: Bench, inbox: Inbox, control_plane: ControlPlane
) -> None:
    ready.create(
        secret(ready.namespace, "bot", token="xoxb-1"),
        secret(ready.namespace, "discord", url=f"{inbox.url}/discord"),
        secret(ready.namespace, "headers", Authorization="Bearer 7"),
        secret(
            ready.namespace,
            "smtp",
            host="127.0.0.1",
            port=str(inbox.smtp.port),
            tls="none",
            **{"from": "LabFunctions <robot@example.com>"},
        ),
    )
    footprint = Footprint(control_plane.audit_log)
    targets = [
        {"slack": {"secretRef": {"name": "bot"}, "channel": "alerts"}},
        {"discord": {"webhookSecretRef": {"name": "discord"}}},
        inbox.hook("hook", headersSecretRef={"name": "headers"}),
        inbox.hook("events", format="CloudEvents"),
        {"email": {"smtpSecretRef": {"name": "smtp"}, "to": ["ada@example.com"]}},
    ]
    fail(ready, notifications={"onFailure": targets, "onSuccess": [inbox.hook("never")]})
    told = notified(ready)
    assert [d["state"] for d in told["status"]["notifications"]] == ["Sent"] * 5

    [slack] = inbox.to("slack/api/chat.postMessage")
    assert slack.headers["Authorization"] == "Bearer xoxb-1"
    assert slack.body["channel"] == "alerts"
    assert "no wine left" in str(slack.body["blocks"])
    [discord] = inbox.to("discord")
    assert discord.body["allowed_mentions"] == {"parse": []}
    [hook] = inbox.to("hook")
    assert hook.headers["Authorization"] == "Bearer 7"
    said = hook.body
    assert (said["event"], said["reason"], said["run"]) == ("Failed", "NotebookError", "first")
    assert said["cell"] == {"index": 2, "source": "drink()"}
    [event] = inbox.to("events")
    assert event.headers["Content-Type"].startswith("application/cloudevents+json")
    assert event.body["data"]["id"] == said["id"]
    [mail] = inbox.mails
    assert mail["Subject"].endswith("first failed: NotebookError")
    assert (mail["To"], "no wine left" in mail.get_content()) == ("ada@example.com", True)
    assert inbox.to("never") == []
    writes = sorted(w for w in footprint.writes(ready.namespace) if "projects" not in w)
    assert writes == sorted([*ONE_RUN, "create events", "patch runs/status"])
    reads = [r for r in footprint.requests() if r.target == "secrets" and r.verb != "create"]
    assert {(r.verb, r.name) for r in reads if r.namespace == ready.namespace} == {
        ("get", "bot"),
        ("get", "discord"),
        ("get", "headers"),
        ("get", "smtp"),
    }


def test_a_message_shows_the_last_lines_and_links_to_the_notebook(
    ready: Bench, inbox: Inbox
) -> None:
    pod = start(ready, notifications={"onFailure": [inbox.hook("hook")]})
    [job] = ready.jobs(run="first")
    output = {"output_type": "stream", "name": "stdout", "text": "pouring\nno wine left\n"}
    executed = json.dumps({"cells": [{"cell_type": "code", "outputs": [output]}]})
    with urllib3.PoolManager() as pool:
        url = courier_config(job)["uploads"]["notebook.ipynb"]
        assert pool.request("PUT", url, body=executed).status == 200
        ready.kubelet.finish(pod, FAILED, exit_code=1)
        [letter] = inbox.receive("hook")
        assert letter.body["output"] == ["pouring", "no wine left"]
        [notebook, _] = letter.body["links"]
        assert notebook["label"] == "Notebook"
        assert notebook["expires"]
        assert pool.request("GET", notebook["url"]).data == executed.encode()


def test_a_project_may_say_it_in_its_own_words(
    bench: Bench, repository: Repository, inbox: Inbox
) -> None:
    template = {"title": "{{ run }} needs a look", "text": "{{ exception.message }} <!channel>"}
    bench.create(project(bench.namespace, repository.url, notificationTemplate=template))
    bench.await_reason("Project", "wine", "Ready")
    bench.create(secret(bench.namespace, "slack", url=f"{inbox.url}/slack"))
    words = {"onFailure": [{"slack": {"webhookSecretRef": {"name": "slack"}}}]}
    fail(bench, notifications=words)
    [letter] = inbox.receive("slack")
    shown = str(letter.body["blocks"])
    assert "first needs a look" in shown
    assert "no wine left &lt;!channel&gt;" in shown


def test_the_projects_targets_are_named_as_labfunctions_did(
    bench: Bench, repository: Repository, inbox: Inbox
) -> None:
    targets = [{"name": "slack", **inbox.hook("slack")}, {"name": "chat", **inbox.hook("chat")}]
    defaults = {"notifications": {"onSuccess": ["slack", {"name": "chat"}]}}
    made = project(bench.namespace, repository.url, notificationTargets=targets, defaults=defaults)
    bench.create(made, workflow(bench.namespace))
    bench.await_reason("Project", "wine", "Ready")
    bench.create(run(bench.namespace))
    pod = bench.pod("first")
    bench.patch("Project", "wine", notificationTargets=[], defaults={"notifications": {}})
    bench.kubelet.finish(pod, SUCCEEDED)
    notified(bench)
    assert (len(inbox.to("slack")), len(inbox.to("chat"))) == (1, 1)


def test_the_first_success_after_a_failure_is_told_as_such(ready: Bench, inbox: Inbox) -> None:
    words = {"onRecovered": [inbox.hook("recovered")], "onSuccess": [inbox.hook("success")]}
    ready.create(workflow(ready.namespace, notifications=words))

    def end(name: str, message: Object, repeats: str = "", **options: Any) -> None:
        body = run(ready.namespace, name)
        if repeats:
            body["spec"] = {"from": repeats}
        ready.create(body)
        ready.kubelet.finish(ready.pod(name), message, **options)
        ready.await_reason("Run", name, message["reason"])
        time.sleep(1)  # ends are told apart by seconds

    end("good", SUCCEEDED)
    end("bad", FAILED, exit_code=1)
    end("better", SUCCEEDED)
    end("best", SUCCEEDED)
    end("worse", FAILED, exit_code=1)
    end("again", SUCCEEDED, repeats="worse")
    end("last", SUCCEEDED)
    notified(ready, "last")
    assert [letter.body["run"] for letter in inbox.to("recovered")] == ["better", "again"]
    succeeded = ["good", "better", "best", "again", "last"]
    assert [letter.body["run"] for letter in inbox.to("success")] == succeeded


def test_killed_before_a_message_is_sent(ready: Bench, inbox: Inbox) -> None:
    inbox.status["hook"] = 503
    fail(ready, notifications={"onFailure": [inbox.hook("hook")]})
    inbox.receive("hook")
    ready.operator.kill()
    inbox.reset()
    ready.operator.ensure()
    notified(ready)
    assert len(inbox.to("hook")) == 1


def test_killed_while_a_message_is_sent(ready: Bench, inbox: Inbox) -> None:
    inbox.hold("hook")
    fail(ready, notifications={"onFailure": [inbox.hook("hook")]})
    [first] = inbox.receive("hook")
    ready.operator.kill()
    inbox.release("hook")
    assert condition(ready.get("Run", "first"), "Notified")["status"] == "Unknown"
    ready.operator.ensure()
    notified(ready)
    [_, second] = inbox.to("hook")
    assert second.body["id"] == first.body["id"], "so that a receiver can tell a repeat"


def test_killed_after_a_message_was_sent(ready: Bench, inbox: Inbox) -> None:
    fail(ready, notifications={"onFailure": [inbox.hook("hook")]})
    notified(ready)
    ready.operator.kill()
    ready.operator.ensure()
    # Something that comes later: once it is told, all before it would be.
    fail(ready, "second", notifications={"onFailure": [inbox.hook("other")]})
    notified(ready, "second")
    assert len(inbox.to("hook")) == 1


def test_a_restart_repeats_nothing_that_was_sent(ready: Bench, inbox: Inbox) -> None:
    """Even while another target of the same Run is still being tried."""
    inbox.hold("dead")
    fail(ready, notifications={"onFailure": [inbox.hook("alive"), inbox.hook("dead")]})
    inbox.receive("dead")
    inbox.receive("alive")
    ready.operator.stop()
    inbox.release("dead")
    [alive, dead] = ready.get("Run", "first")["status"]["notifications"]
    assert (alive["state"], dead["state"]) == ("Sent", "Pending")
    ready.operator.ensure()
    notified(ready)
    assert (len(inbox.to("alive")), len(inbox.to("dead"))) == (1, 2)


def test_a_dead_target_delays_neither_runs_nor_other_targets(ready: Bench, inbox: Inbox) -> None:
    inbox.hold("dead")
    words = {"onFailure": [inbox.hook("dead"), inbox.hook("alive")]}
    for number in range(3):
        fail(ready, f"run-{number}", notifications=words)
    assert len(inbox.receive("alive", 3)) == 3
    assert len(inbox.to("dead")) == 1, "the others wait behind it"
    inbox.release("dead")
    for number in range(3):
        notified(ready, f"run-{number}")


def test_a_burst_is_one_message(ready: Bench, inbox: Inbox) -> None:
    words = {"onFailure": [inbox.hook("hook")], "groupSeconds": 8}
    names = ["a", "b", "c"]
    pods = [start(ready, name, notifications=words) for name in names]
    for pod in pods:
        ready.kubelet.finish(pod, FAILED, exit_code=1)
    for name in names:
        notified(ready, name)
    [letter] = inbox.to("hook")
    assert (letter.body["count"], sorted(letter.body["runs"])) == (3, names)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("lost", "lost: the Project has no notification target of this name"),
        (
            {"slack": {"webhookSecretRef": {"name": "missing"}}},
            "slack: Secret missing does not exist in this namespace",
        ),
        (
            {"webhook": {"url": "http://169.254.169.254/latest/meta-data"}},
            "webhook: 169.254.169.254 is not a public address",
        ),
        (
            {"discord": {"webhookSecretRef": {"name": "empty"}}},
            "discord: Secret empty has no key url",
        ),
    ],
)
def test_what_cannot_be_sent_is_said(ready: Bench, inbox: Inbox, target: Any, why: str) -> None:
    ready.create(secret(ready.namespace, "empty", other="x"))
    fail(ready, notifications={"onFailure": [target, inbox.hook("hook")]})
    told = notified(ready, reason="NotificationFailed")
    assert condition(told, "Notified")["message"] == f"1 of 2 messages sent; {why}"

    def warnings() -> list[Object]:
        events = ready.api.list("Event", ready.namespace)
        return [e for e in events if e["reason"] == "NotificationFailed"]

    [warning] = until(warnings, "the Event that comes after the status")
    assert (warning["type"], warning["message"]) == ("Warning", why)


def test_targets_that_are_none_are_refused_where_they_are_written(
    ready: Bench, repository: Repository
) -> None:
    wrong = {"onFailure": [{"slack": {"secretRef": {"name": "a"}}}]}
    ready.create(
        workflow(ready.namespace, notifications=wrong),
        run(ready.namespace),
        inline_run(ready.namespace, "second", notifications=wrong),
    )
    refused = ready.await_reason("Workflow", "analysis", "InvalidSpec")
    path = "spec.notifications.onFailure[0].slack"
    assert condition(refused, "Ready")["message"].startswith(path)
    ready.await_reason("Run", "first", "WorkflowInvalid")
    ready.await_reason("Run", "second", "InvalidSpec")
    for target in ({}, {"slack": {}}, {"slack": {"secretRef": {"name": "a"}}}, {"webhook": {}}):
        with pytest.raises(ApiError) as error:
            ready.create(
                project(
                    ready.namespace,
                    repository.url,
                    "other",
                    notificationTargets=[{"name": "a", **target}],
                )
            )
        assert error.value.code == 422


def test_a_run_that_cannot_be_read_tells_through_what_can_be(
    bench: Bench, repository: Repository, inbox: Inbox
) -> None:
    """Also when the operator dies before the message is sent."""
    defaults = {"notifications": {"onFailure": [inbox.hook("project")]}}
    bench.create(project(bench.namespace, repository.url, defaults=defaults))
    bench.create(workflow(bench.namespace))
    bench.await_reason("Workflow", "analysis", "Ready")
    inbox.status["project"] = 503
    unreadable = {"onFailure": [{"slack": {}}]}
    bench.create(run(bench.namespace, notifications=unreadable))
    inbox.receive("project")
    bench.operator.kill()
    inbox.reset()
    bench.operator.ensure()
    notified(bench)
    [letter] = inbox.to("project")
    assert letter.body["reason"] == "InvalidSpec"
    assert letter.body["message"].startswith("spec.notifications.onFailure[0].slack")
    assert letter.body["workflow"] == "analysis"


def test_refused_parameters_are_told(bench: Bench, repository: Repository, inbox: Inbox) -> None:
    bench.create(built_project(bench.namespace, repository.url))
    bench.build()
    bench.create(workflow(bench.namespace, notifications={"onFailure": [inbox.hook("hook")]}))
    bench.create(run(bench.namespace, parameters={"trees": "many"}))
    [letter] = inbox.receive("hook")
    assert letter.body["reason"] == "ParametersInvalid"
    assert "trees" in letter.body["message"]


def test_who_started_a_run_as_far_as_the_object_tells(
    ready: Bench, inbox: Inbox, kubectl: Kubectl
) -> None:
    refused = {
        "resources": {"limits": {"memory": "much"}},
        "notifications": {"onFailure": [inbox.hook("hook")]},
    }
    made = inline_run(ready.namespace, "by-hand", **refused)
    made["metadata"]["annotations"] = {"kubernetes.io/change-cause": "new data"}
    kubectl.run("create", "-f", "-", text=json.dumps(made))
    [letter] = inbox.receive("hook")
    assert letter.body["startedBy"] == "a request through kubectl-create: new data"
    by = {"labfunctions.io/started-by": "ada@example.com"}
    portal = inline_run(ready.namespace, "portal", **refused)
    portal["metadata"]["annotations"] = by
    ready.create(portal)
    [_, letter] = inbox.receive("hook", 2)
    assert letter.body["startedBy"] == "ada@example.com"
