"""What goes into a message beside the Run itself: links, last lines, and the program that asked."""

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from objects import at, make_run, make_workflow, stamp

from labfunctions_operator.api.notification import MissedDelivery, Target, Template
from labfunctions_operator.api.run import Run
from labfunctions_operator.controllers import dispatch as dispatch_module
from labfunctions_operator.controllers.dispatch import Dispatch
from labfunctions_operator.desired.message import Link
from labfunctions_operator.errors import Denied, NotFound, Transient
from labfunctions_operator.providers.notify.gate import Undeliverable
from labfunctions_operator.settings import NotificationSettings

OUTPUTS = {"notebook": "s3://b/n.ipynb", "html": "s3://b/n.html"}
STREAM = {"output_type": "stream", "name": "stdout", "text": "pouring\nno wine left\n"}
EXECUTED = json.dumps({"cells": [{"cell_type": "code", "outputs": [STREAM]}]}).encode()
MANAGERS = [{"manager": "kubectl-create", "operation": "Update", "time": stamp()}]


class Cluster:
    """Holds objects by kind and name; a kind may fail instead."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Any] = {}
        self.errors: dict[str, Exception] = {}
        self.asked: list[tuple[str, str]] = []

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Any:
        self.asked.append((kind, name))
        if error := self.errors.get(kind):
            raise error
        if (kind, name) not in self.objects:
            raise NotFound(name)
        return self.objects[kind, name]

    def add_secret(self, name: str, **values: bytes) -> None:
        data = {key: base64.b64encode(value).decode() for key, value in values.items()}
        self.objects["Secret", name] = {"data": data}


class Files:
    """A store with one notebook."""

    error: Exception | None = None
    token = ""

    def key_of(self, uri: str) -> str | None:
        return uri.removeprefix("s3://b/") if uri.startswith("s3://b/") else None

    def get_short(self, key: str, limit: int) -> bytes:
        if self.error:
            raise self.error
        return EXECUTED[:limit]

    def sign_get(self, key: str, *, expires: int) -> str:
        if self.error:
            raise self.error
        return f"https://store.example.com/{key}?expires={expires}{self.token}"


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def files() -> Files:
    return Files()


Make = Callable[..., Dispatch]


@pytest.fixture
async def make(cluster: Cluster, files: Files) -> AsyncIterator[Make]:
    made: list[Dispatch] = []

    def make(**settings: Any) -> Dispatch:
        words = NotificationSettings.model_validate(settings)
        dispatch = Dispatch(cluster, files, words, lambda: at(0))  # type: ignore[arg-type]
        made.append(dispatch)
        return dispatch

    yield make
    for dispatch in made:
        dispatch.close()


def failed(**changes: Any) -> Run:
    return make_run(status={"phase": "Failed", "outputs": OUTPUTS, **changes})


async def links(dispatch: Dispatch, run: Run) -> list[Link]:
    return list((await dispatch.write(run, "Failed", ["first"], 1)).links)


async def test_links_are_signed_and_say_how_long_they_work(make: Make) -> None:
    found = await links(make(linkSeconds=3600), failed())
    assert found == [
        Link(
            label=label,
            url=f"https://store.example.com/{key}?expires=3600",
            expires=stamp(3600),
        )
        for label, key in (("Notebook", "n.ipynb"), ("HTML", "n.html"))
    ]


async def test_of_a_link_that_ends_with_credentials_no_time_is_said(
    make: Make, files: Files
) -> None:
    files.token = "&X-Amz-Security-Token=abc"
    found = await links(make(linkSeconds=3600), failed())
    assert [link.expires for link in found] == [None, None]


async def test_a_console_stands_for_all_links(make: Make) -> None:
    dispatch = make(consoleUrl="https://lab.example.com/", linkSeconds=3600)
    console = [Link(label="Run", url="https://lab.example.com/runs/team/first")]
    assert await links(dispatch, failed()) == console
    assert await links(dispatch, failed(outputs=None)) == console


@pytest.mark.parametrize(
    ("settings", "outputs", "error"),
    [
        ({"linkSeconds": 0}, OUTPUTS, None),
        ({"linkSeconds": 60}, OUTPUTS, Transient("the store is down")),
        ({"linkSeconds": 60}, {"notebook": "s3://other/n", "html": "s3://other/h"}, None),
    ],
)
async def test_where_nothing_can_be_signed_the_address_is_named(
    make: Make, files: Files, settings: Any, outputs: Any, error: Exception | None
) -> None:
    files.error = error
    found = await links(make(**settings), failed(outputs=outputs))
    assert [(link.url, link.expires) for link in found] == [
        (outputs["notebook"], None),
        (outputs["html"], None),
    ]


@pytest.mark.parametrize("error", [Transient("down"), Denied("no"), NotFound("gone")])
async def test_a_message_goes_without_what_the_store_does_not_give(
    make: Make, files: Files, error: Exception
) -> None:
    dispatch = make(linkSeconds=0)
    assert (await dispatch.write(failed(), "Failed", ["first"], 1)).tail == (
        "pouring",
        "no wine left",
    )
    files.error = error
    assert (await dispatch.write(failed(), "Failed", ["first"], 1)).tail == ()


async def test_a_message_does_not_wait_for_a_store_that_hangs(
    make: Make, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch_module, "TAIL_TIMEOUT", 0.1)
    ended = threading.Event()
    monkeypatch.setattr(files, "get_short", lambda *_: ended.wait() and b"")
    dispatch = make(linkSeconds=60)
    # More of them than there are threads.
    said = await asyncio.gather(*(dispatch.write(failed(), "Failed", [], 1) for _ in range(6)))
    ended.set()
    assert {message.tail for message in said} == {()}
    assert {len(message.links) for message in said} == {2}, "links need no answer"


async def starter(dispatch: Dispatch, run: Run) -> str:
    said: str = (await dispatch.write(run, "Failed", ["first"], 1)).document["startedBy"]
    return said


async def test_the_program_that_created_a_run_is_asked_for(make: Make, cluster: Cluster) -> None:
    run = failed(outputs=None)
    stored = {"metadata": {"uid": run.metadata.uid, "managedFields": MANAGERS}}
    cluster.objects["Run", "first"] = stored
    assert await starter(make(), run) == "a request through kubectl-create"
    scheduled = {"labfunctions.io/scheduled-at": "2026-01-01T06:00:00Z"}
    cluster.asked.clear()
    tick = run.but(metadata=run.metadata.but(annotations=scheduled))
    assert (await starter(make(), tick)).startswith("the schedule")
    assert cluster.asked == []


@pytest.mark.parametrize(
    "error", [None, NotFound("first"), Denied("forbidden"), Transient("no answer")]
)
async def test_without_an_answer_it_is_a_request(
    make: Make, cluster: Cluster, error: Exception | None
) -> None:
    later = {"metadata": {"uid": "of a later Run", "managedFields": MANAGERS}}
    cluster.objects["Run", "first"] = later
    if error:
        cluster.errors["Run"] = error
    assert await starter(make(), failed(outputs=None)) == "a request"


async def test_a_project_words_messages_about_its_schedules_too(make: Make) -> None:
    delivery = MissedDelivery(
        target=Target(name="a"), due=stamp(), count=2, reason="MissedSchedule", cause="away"
    )
    own = Template(title="{{ workflow }}!", text="{{ count }}: {{ message }}{{ run or '' }}")
    said = await make().write_missed(make_workflow(), delivery, own)
    assert (said.title, said.text) == ("report!", "2: away")
    broken = await make().write_missed(make_workflow(), delivery, Template(text="{{ nothing }}"))
    assert broken.text is None
    assert "the template fails" in broken.summary


@pytest.mark.parametrize(
    ("target", "values", "why"),
    [
        ({"slack": {"webhookSecretRef": {"name": "s"}}}, {}, "Secret s has no key url"),
        ({"slack": {"secretRef": {"name": "s"}, "channel": "c"}}, {}, "Secret s has no key token"),
        ({"discord": {"webhookSecretRef": {"name": "s"}}}, {"url": b" "}, "has no key url"),
        ({"webhook": {"secretRef": {"name": "s"}}}, {"url": b"\xff"}, "holds what is not text"),
        ({"webhook": {"secretRef": {"name": "none"}}}, {}, "Secret none does not exist"),
        (
            {"webhook": {"url": "https://h.example.com", "headersSecretRef": {"name": "none"}}},
            {},
            "Secret none does not exist",
        ),
        ({"email": {"smtpSecretRef": {"name": "s"}, "to": ["a@b.c"]}}, {}, "no key host"),
        (
            {"email": {"smtpSecretRef": {"name": "s"}, "to": ["a@b.c"]}},
            {"host": b"mail.example.com", "from": b"a@b.c\nBcc: x@y.z"},
            "from is no mail address",
        ),
        ({"name": "lost"}, {}, "no notification target of this name"),
    ],
)
async def test_what_a_secret_lacks_is_said(
    make: Make, cluster: Cluster, target: Any, values: dict[str, bytes], why: str
) -> None:
    cluster.add_secret("s", **values)
    dispatch = make()
    message = await dispatch.write(failed(outputs=None), "Failed", ["first"], 1)
    with pytest.raises(Undeliverable, match=why):
        await dispatch.address("team", Target.model_validate(target), message)
