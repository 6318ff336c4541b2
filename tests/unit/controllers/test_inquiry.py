"""When Events are asked for, and who waits for it: each question reads all of a namespace."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from objects import Object, at, make_object, make_pod, stamp
from virtual_loop import play

from labfunctions_operator.controllers.engine import Engine
from labfunctions_operator.controllers.event_reader import FRESH, PAUSE, EventReader
from labfunctions_operator.controllers.inquiry import Inquiry
from labfunctions_operator.errors import Transient
from labfunctions_operator.kube.client import ListResult
from labfunctions_operator.reconcile.plan import Key
from labfunctions_operator.reconcile.pods import PodEvent

QUOTA = "exceeded quota"
RUN = Key("Run", "team", "first")


def refusal_of(job: Object, message: str = QUOTA) -> Object:
    about = {"uid": job["metadata"]["uid"]}
    return {"involvedObject": about, "reason": "FailedCreate", "message": message}


class Server:
    """Takes a while to read its Events, and counts how often it has to."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.events: list[Object] = []
        self.lists: Counter[str] = Counter()
        self.is_down = False

    async def list(self, *_: Any, namespace: str, **__: Any) -> ListResult:
        self.lists[namespace] += 1
        await asyncio.sleep(self.seconds)
        if self.is_down:
            raise Transient("no answer")
        return ListResult(list(self.events), "1")


class Desk:
    """An inquiry, at a time that is the loop's, and whom it wakes.

    Objects are made ten seconds before the time that counts from 0.
    """

    def __init__(self, server: Any, wake: Callable[[Key], None] | None = None) -> None:
        self.woken: list[Key] = []
        self.reader = EventReader(server, wake or self.woken.append)
        self._loop = asyncio.get_running_loop()
        self.inquiry = Inquiry(server, self.reader, lambda: at(self._loop.time() - 10))


@pytest.mark.parametrize(("age", "asked"), [(0, 0), (3, 0), (4, 1), (60, 1)])
def test_why_a_job_gets_no_pod_is_asked_once_it_should_have_one(age: int, asked: int) -> None:
    job = make_object("Job", "first", {})
    server = Server()
    server.events = [refusal_of(make_object("Job", "other", {})), refusal_of(job)]

    async def story() -> None:
        desk = Desk(server)
        await asyncio.sleep(age)
        assert desk.inquiry.refusal(RUN, [job]) == (None, bool(asked))
        await asyncio.sleep(0.1)
        assert desk.woken == [RUN] * asked
        assert desk.inquiry.refusal(RUN, [job]) == (QUOTA if asked else None, False)
        assert server.lists.total() == asked
        await desk.reader.close()

    play(story())


def test_a_queued_job_is_to_get_no_pod() -> None:
    async def story() -> None:
        desk = Desk(Server())
        await asyncio.sleep(60)
        assert desk.inquiry.refusal(RUN, [make_object("Job", "a", {"suspend": True})]) == (
            None,
            False,
        )

    play(story())


def test_an_answer_from_before_a_job_should_have_had_a_pod_is_none() -> None:
    job = make_object("Job", "first", {}, creationTimestamp="2026-01-01T11:59:55Z")
    server = Server()

    async def story() -> None:
        desk = Desk(server)
        await asyncio.sleep(8)
        older = make_object("Job", "older", {})
        desk.inquiry.refusal(RUN, [older])
        await asyncio.sleep(1)
        assert desk.inquiry.refusal(RUN, [job]) == (None, True)
        server.events = [refusal_of(job)]
        await asyncio.sleep(PAUSE)
        assert desk.inquiry.refusal(RUN, [job]) == (QUOTA, False)
        assert server.lists.total() == 2
        await desk.reader.close()

    play(story())


def test_who_has_asked_is_woken_by_another_answer_only() -> None:
    job = make_object("Job", "first", {})
    server = Server()
    server.events = [refusal_of(job)]

    async def story() -> None:
        desk = Desk(server)
        for seconds, message, woken in (
            (60.0, QUOTA, 1),
            (FRESH + 1, QUOTA, 1),
            (FRESH + 1, "no rights", 2),
        ):
            await asyncio.sleep(seconds)
            server.events = [refusal_of(job, message)]
            desk.inquiry.refusal(RUN, [job])
            await asyncio.sleep(PAUSE)
            assert len(desk.woken) == woken
        await desk.reader.close()

    play(story())


def test_a_server_that_does_not_answer_takes_nothing_back() -> None:
    job = make_object("Job", "first", {})
    server = Server()

    async def story() -> None:
        desk = Desk(server)
        server.is_down = True
        await asyncio.sleep(60)
        desk.inquiry.refusal(RUN, [job])
        await asyncio.sleep(1)
        assert desk.woken == [RUN]
        assert desk.inquiry.refusal(RUN, [job]) == (None, False)
        server.is_down, server.events = False, [refusal_of(job)]
        await asyncio.sleep(FRESH + 1)
        desk.inquiry.refusal(RUN, [job])
        await asyncio.sleep(1)
        server.is_down = True
        await asyncio.sleep(FRESH + 1)
        for _ in range(2):
            assert desk.inquiry.refusal(RUN, [job]) == (QUOTA, False)
            await asyncio.sleep(1)
        await desk.reader.close()

    play(story())


@pytest.mark.parametrize("namespaces", [1, 100])
def test_a_run_is_not_delayed_by_hundreds_that_get_no_pod(namespaces: int) -> None:
    server = Server(seconds=0.5)
    jobs = [make_object("Job", f"job-{n}", {}) for n in range(500)]
    server.events = [refusal_of(job) for job in jobs]
    blocked = {Key("Run", f"team-{n % namespaces}", f"run-{n}"): job for n, job in enumerate(jobs)}
    told: set[Key] = set()
    delays: list[float] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        since = 0.0

        async def reconcile(key: Key) -> float | None:
            if key == RUN:
                delays.append(loop.time() - since)
                return None
            await asyncio.sleep(0.001)
            if desk.inquiry.refusal(key, [blocked[key]])[0]:
                told.add(key)
            return 5.0

        engine = Engine(reconcile, workers=16, clock=loop.time, random=lambda: 0.0)
        desk = Desk(server, engine.enqueue)
        work = asyncio.create_task(engine.run())
        await asyncio.sleep(60)
        for key in blocked:
            engine.enqueue(key)
        for _ in range(60):
            since = loop.time()
            engine.enqueue(RUN)
            await asyncio.sleep(1)
        await engine.stop()
        await work
        await desk.reader.close()

    play(story())
    assert told == set(blocked)
    assert len(delays) == 60
    assert max(delays) < 0.1
    assert max(server.lists.values()) <= 60 / FRESH


def test_how_far_a_slow_start_has_come_is_asked_for_each_pod() -> None:
    pod = make_pod(make_object("Job", "first", {}, labels={}), phase="Pending", created=-10)
    about = {"uid": pod["metadata"]["uid"]}
    text = 'Pulling image "x"'
    server = Server()
    server.events = [{"involvedObject": about, "reason": "Pulling", "message": text}]

    async def story() -> None:
        desk = Desk(server)
        await asyncio.sleep(7)
        assert desk.inquiry.start_event(RUN, [pod]) == (None, False), "it may still start soon"
        await asyncio.sleep(1)
        assert desk.inquiry.start_event(RUN, [pod]) == (None, True)
        await asyncio.sleep(1)
        assert desk.woken == [RUN]
        assert desk.inquiry.start_event(RUN, [pod]) == (PodEvent("Pulling", text), False)
        await desk.reader.close()

    play(story())


def test_a_start_fails_since_the_first_warning_that_is_about_its_node() -> None:
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(-400)}
    job = make_object("Job", "first", {}, labels={})
    pod = make_pod(job, phase="Pending", created=-500, conditions=[placed])
    server = Server()

    def happens(reason: str, first: float, last: float, type: str) -> None:
        about = {"uid": pod["metadata"]["uid"]}
        times = {"firstTimestamp": stamp(first), "lastTimestamp": stamp(last)}
        event = {"involvedObject": about, "reason": reason, "message": reason, "type": type}
        server.events.append({**event, **times})

    happens("FailedScheduling", -480, -450, "Warning")
    happens("Pulling", -399, -10, "Normal")
    happens("BackOff", -29, -5, "Warning")
    happens("Failed", -30, -6, "Warning")

    async def story() -> None:
        desk = Desk(server)
        assert desk.inquiry.start_event(RUN, [pod]) == (None, True)
        await asyncio.sleep(1)
        known = (PodEvent("Pulling", "Pulling", failing_since=stamp(-30)), False)
        assert desk.inquiry.start_event(RUN, [pod]) == known
        await desk.reader.close()

    play(story())
