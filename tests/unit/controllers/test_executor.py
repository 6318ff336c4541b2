"""Whom the executor tells of what it wrote, and when; the writes are tried at a real API server."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from objects import make_object

from labfunctions_operator.controllers.executor import Executor
from labfunctions_operator.errors import ChildRefused, Denied, InvalidSpec, NameTaken, Transient
from labfunctions_operator.kube.cache import Cache
from labfunctions_operator.kube.failures import AlreadyExists, TooManyRequests
from labfunctions_operator.reconcile.plan import Event, Plan, Ref

Object = dict[str, Any]


class Server:
    """Takes what it is given.

    Attributes:
        failure: What it answers to who creates something.
        cancelled: The names of Runs.
    """

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.cancelled: list[str] = []
        self.created: list[str] = []
        self.deleted: list[str] = []
        self.events: list[tuple[str, int]] = []

    async def cancel(self, ref: Ref) -> Object:
        self.cancelled.append(ref.name)
        return make_object("Run", ref.name, {"cancel": True}, resourceVersion="3")

    async def create(self, manifest: Object) -> Object:
        if self.failure:
            failure, self.failure = self.failure, None
            raise failure
        self.created.append(manifest["metadata"]["name"])
        metadata = {**manifest["metadata"], "uid": "1", "resourceVersion": "2"}
        return {**manifest, "metadata": metadata}

    async def create_event(self, obj: Object, event: Event) -> str:
        self.events.append((event.message, 1))
        return f"event.{len(self.events)}"

    async def count_event(self, obj: Object, name: str, count: int) -> None:
        self.events.append((name, count))

    async def delete(self, ref: Ref) -> None:
        self.deleted.append(ref.name)
        if ref.name == "web":
            raise Denied("no right to delete")

    async def evict(self, ref: Ref) -> None:
        if ref.name == "web":
            raise TooManyRequests("a budget")

    async def patch_status(self, *, status: Object, **_: Any) -> Object:
        return {**make_object("Workflow", "report", {}, status), "metadata": {**OWNER["metadata"]}}


class Full:
    """Has an object of that name, until it is deleted."""

    def __init__(self, existing: Object | None) -> None:
        self.existing = existing

    async def create(self, manifest: Object) -> Object:
        if self.existing:
            raise AlreadyExists("there is one")
        return await Server().create(manifest)

    async def get(self, *_: str) -> Object | None:
        return self.existing


OWNER = make_object("Workflow", "report", {}, resourceVersion="1")


def test_executor_tells_of_a_child_once_and_before_it_writes_the_status() -> None:
    caches = {"Workflow": Cache(), "Run": Cache()}
    told: list[tuple[str, str, int]] = []

    def on_child(child: Object, maker: Mapping[str, Any]) -> None:
        names = child["metadata"]["name"], maker["metadata"]["name"]
        told.append((*names, len(caches["Workflow"])))
        assert caches["Run"].get("team", "first") == child

    server: Any = Server()
    executor = Executor(server, caches, on_child=on_child)
    plan = Plan(apply=(make_object("Run", "first", {}),), status={"phase": "Ready"})
    for _ in range(2):
        asyncio.run(executor.execute(plan, OWNER))
    assert told == [("first", "report", 0)]
    assert len(caches["Workflow"]) == 1


@pytest.mark.parametrize("failure", [None, Denied("exceeded quota")])
def test_executor_cancels_a_run_only_once_its_successor_is_there(failure: Exception | None) -> None:
    server: Any = Server(failure)
    first = make_object("Run", "first", {})
    plan = Plan(
        apply=(make_object("Run", "second", {}),),
        cancel=(Ref.to(first["apiVersion"], "Run", first["metadata"]),),
    )
    with suppress(Denied):
        asyncio.run(Executor(server, {}).execute(plan, OWNER))
    assert server.cancelled == ([] if failure else ["first"])


def test_executor_tells_a_child_that_is_refused_from_its_owner() -> None:
    server: Any = Server(InvalidSpec("spec", "a policy says no"))
    plan = Plan(apply=(make_object("Run", "first", {}),))
    with pytest.raises(ChildRefused, match="spec: a policy says no"):
        asyncio.run(Executor(server, {}).execute(plan, OWNER))


def test_a_pod_that_may_not_leave_keeps_nothing_else_up() -> None:
    caches = {"Workflow": Cache()}
    server: Any = Server()
    web, dns = (Ref(api_version="v1", kind="Pod", namespace="x", name=n) for n in ("web", "dns"))
    plan = Plan(delete=(dns,), evict=(web, dns))
    assert asyncio.run(Executor(server, caches).attempt(plan, OWNER)).refused == {web: "a budget"}
    assert server.deleted == ["dns"]


@pytest.mark.parametrize("failure", [Denied("a quota"), InvalidSpec("spec", "a policy says no")])
def test_an_attempt_that_is_denied_one_write_makes_all_others(failure: Exception) -> None:
    server: Any = Server(failure)
    web, dns = (Ref(api_version="v1", kind="Pod", namespace="x", name=n) for n in ("web", "dns"))
    plan = Plan(
        delete=(web, dns),
        apply=(make_object("Pod", "first", {}), make_object("Pod", "second", {})),
        status={"phase": "Ready"},
    )
    caches = {"Workflow": Cache()}
    denied = asyncio.run(Executor(server, caches).attempt(plan, OWNER)).denied
    assert [str(denial.error) for denial in denied] == ["no right to delete", str(failure)]
    assert {denial.kind for denial in denied} == {"Pod"}
    assert (server.deleted, server.created) == (["web", "dns"], ["second"])
    assert len(caches["Workflow"]) == 0, "what came of it is to be told first"


def test_an_attempt_that_may_succeed_later_is_given_up_at_once() -> None:
    server: Any = Server(Transient("no answer"))
    plan = Plan(apply=(make_object("Pod", "first", {}), make_object("Pod", "second", {})))
    with pytest.raises(Transient):
        asyncio.run(Executor(server, {}).attempt(plan, OWNER))
    assert server.created == []


def test_an_event_that_repeats_itself_counts_up() -> None:
    server: Any = Server()
    told: list[str] = []
    executor = Executor(server, {}, on_event=told.append)
    for number, message in enumerate(("up", "down", "up", "up")):
        event = Event(type="Normal", reason="Scaled", message=message)
        plan = Plan(status={"phase": str(number)}, events=(event,))
        asyncio.run(executor.execute(plan, OWNER))
    assert server.events == [("up", 1), ("down", 1), ("event.1", 2), ("event.1", 3)]
    assert told == ["Recorded", "Recorded", "Repeated", "Repeated"]


def test_executor_goes_on_once_somebody_elses_job_of_the_name_is_gone() -> None:
    """Nothing tells of its end, as only what has our labels is watched."""
    server: Any = Full(make_object("Job", "first-1", {}))
    caches = {"Job": Cache()}
    executor = Executor(server, caches)
    mine = make_object("Job", "first-1", {}, ownerReferences=[{"kind": "Run", "uid": "mine"}])
    for _ in range(2):
        with pytest.raises(NameTaken, match="Job team/first-1 exists and belongs to another owner"):
            asyncio.run(executor.execute(Plan(apply=(mine,)), OWNER))
    server.existing = None
    asyncio.run(executor.execute(Plan(apply=(mine,)), OWNER))
    held = caches["Job"].get("team", "first-1")
    assert held is not None
    assert held["metadata"]["ownerReferences"] == mine["metadata"]["ownerReferences"]
