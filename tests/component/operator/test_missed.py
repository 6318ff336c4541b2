"""Messages about ticks that got no Run: what is sent, written and said; what a crash repeats."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dev.cluster.controlplane import ControlPlane
from tests.providers.provider_servers import Repository

from .api import Object, condition, until
from .bench import Bench
from .inbox import Inbox
from .objects import project, secret, workflow
from .process import Footprint

# A tick that is minutes late does not start any more.
HOURLY = {"interval": "1h", "startingDeadlineSeconds": 30}


def stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


@pytest.fixture
def ready(bench: Bench, repository: Repository) -> Bench:
    bench.create(project(bench.namespace, repository.url))
    bench.await_reason("Project", "wine", "Ready")
    return bench


def watched(bench: Bench, *targets: Any, **spec: Any) -> None:
    """Create a Workflow that is told of what it misses, none of which is so far."""
    start = stamp(datetime.now(UTC) - timedelta(minutes=150))
    words = {"notifications": {"onMissed": list(targets)}} if targets else {}
    spec = {**({} if "schedule" in spec else {**HOURLY, "startAt": start}), **words, **spec}
    bench.create(workflow(bench.namespace, **spec))
    bench.await_reason("Workflow", "analysis", "Scheduled", type="Scheduled")


def miss(bench: Bench, hours: float = 3) -> None:
    """Have nobody been there for some hours, and all be well before."""
    since = stamp(datetime.now(UTC) - timedelta(hours=hours))
    status = {"status": {"schedule": {"since": since}, "conditions": []}}
    bench.api.patch("Workflow", bench.namespace, "analysis", status, subresource="/status")


def notified(bench: Bench, reason: str = "Sent") -> Object:
    return bench.await_reason("Workflow", "analysis", reason, type="Notified")


def events(bench: Bench, reason: str) -> list[Object]:
    return [e for e in bench.api.list("Event", bench.namespace) if e["reason"] == reason]


def test_missed_ticks_are_told_for_one_write_more(
    ready: Bench, inbox: Inbox, control_plane: ControlPlane
) -> None:
    ready.create(secret(ready.namespace, "slack", url=f"{inbox.url}/slack"))
    slack = {"slack": {"webhookSecretRef": {"name": "slack"}}}
    watched(ready, inbox.hook("hook"), inbox.hook("events", format="CloudEvents"), slack)
    footprint = Footprint(control_plane.audit_log)
    miss(ready)
    told = notified(ready)
    assert [d["state"] for d in told["status"]["notifications"]] == ["Sent"] * 3
    [hook], [event], [chat] = (inbox.to(path) for path in ("hook", "events", "slack"))
    said = hook.body
    assert (said["event"], said["reason"]) == ("Missed", "MissedSchedule")
    assert (said["workflow"], said["run"], said["count"]) == ("analysis", None, 3)
    assert said["message"] == "more than spec.startingDeadlineSeconds, 30, had passed"
    assert said["nextScheduleTime"] == told["status"]["nextScheduleTime"]
    assert event.body["data"]["id"] == said["id"]
    assert event.body["type"] == "io.labfunctions.run.missed"
    assert "got no Run: more than spec.startingDeadlineSeconds, 30, had passed" in str(
        chat.body["blocks"]
    )
    assert footprint.writes(ready.namespace) == [
        "patch workflows/status",
        "create events",
        "patch workflows/status",
    ]


@pytest.mark.parametrize("spec", [{}, {"scheduler": "CronJob"}])
def test_the_projects_defaults_tell_as_labfunctions_did(
    bench: Bench, repository: Repository, inbox: Inbox, spec: dict[str, Any]
) -> None:
    template = {"title": "{{ workflow }} {{ event }}", "text": "{{ count }} at {{ due }}"}
    made = project(
        bench.namespace,
        repository.url,
        notificationTargets=[{"name": "slack", "slack": {"webhookSecretRef": {"name": "slack"}}}],
        defaults={"notifications": {"onMissed": ["slack"]}},
        notificationTemplate=template,
    )
    bench.create(made, secret(bench.namespace, "slack", url=f"{inbox.url}/slack"))
    bench.await_reason("Project", "wine", "Ready")
    due = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=20)
    daily = f"{due.minute} {due.hour} * * *"
    watched(bench, schedule=daily, startingDeadlineSeconds=30, **spec)
    if spec:
        until(lambda: bench.api.get("CronJob", bench.namespace, "analysis"), "a CronJob")
    miss(bench, hours=1)
    notified(bench)
    [chat] = inbox.to("slack")
    shown = str(chat.body["blocks"])
    assert "analysis Missed" in shown
    assert f"1 at {stamp(due)}" in shown


@pytest.mark.parametrize("while_sending", [False, True])
def test_killed_before_it_is_known_that_a_message_was_sent(
    ready: Bench, inbox: Inbox, *, while_sending: bool
) -> None:
    inbox.status["hook"] = 503
    if while_sending:
        inbox.hold("hook")
    watched(ready, inbox.hook("hook"))
    miss(ready)
    [first] = inbox.receive("hook")
    ready.operator.kill()
    if while_sending:
        inbox.release("hook")
    inbox.status.clear()
    assert condition(ready.get("Workflow", "analysis"), "Notified")["status"] == "Unknown"
    ready.operator.ensure()
    notified(ready)
    [_, second] = inbox.to("hook")
    assert second.body["id"] == first.body["id"], "so that a receiver can tell a repeat"
    assert second.body["count"] == 3
    assert len(events(ready, "MissedSchedule")) == 1


def test_killed_after_a_message_was_sent(ready: Bench, inbox: Inbox) -> None:
    watched(ready, inbox.hook("hook"))
    miss(ready)
    notified(ready)
    ready.operator.kill()
    ready.operator.ensure()
    # Something that comes later: once it is told, all before it would be.
    ready.patch("Workflow", "analysis", notifications={"onMissed": [inbox.hook("other")]})
    miss(ready)
    inbox.receive("other")
    notified(ready)
    assert len(inbox.to("hook")) == 1


def test_a_target_that_cannot_be_reached_is_said(ready: Bench, inbox: Inbox) -> None:
    dead = {"discord": {"webhookSecretRef": {"name": "missing"}}}
    watched(ready, dead, inbox.hook("hook"))
    miss(ready)
    told = notified(ready, "NotificationFailed")
    why = "discord: Secret missing does not exist in this namespace"
    assert condition(told, "Notified")["message"] == f"1 of 2 messages sent; {why}"
    [warning] = until(lambda: events(ready, "NotificationFailed"), "the Event")
    assert (warning["type"], warning["message"]) == ("Warning", why)
    assert warning["involvedObject"]["kind"] == "Workflow"
    assert len(inbox.to("hook")) == 1
    assert condition(told, "Ready")["status"] == "True"
