"""The queue, on a loop whose time passes only while everybody sleeps."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_loop import play

from labfunctions_operator.controllers.engine import Engine
from labfunctions_operator.errors import Denied, InvalidSpec, NotFound, Transient
from labfunctions_operator.reconcile.plan import Key

A, B = Key("Run", "team", "a"), Key("Run", "team", "b")


@dataclass
class Recorder:
    """A reconciler that notes when it ran, and does what it is told."""

    act: Callable[[Key], Awaitable[float | None]] | None = None
    starts: list[tuple[float, Key]] = field(default_factory=list)
    running: Counter[Key] = field(default_factory=Counter)
    most: int = 0

    async def __call__(self, key: Key) -> float | None:
        self.starts.append((asyncio.get_running_loop().time(), key))
        self.running[key] += 1
        assert self.running[key] == 1, f"{key} runs twice at once"
        self.most = max(self.most, self.running.total())
        try:
            return await self.act(key) if self.act else None
        finally:
            self.running[key] -= 1

    def times(self, key: Key = A) -> list[float]:
        return [time for time, started in self.starts if started == key]


def failing(*outcomes: Exception | float | None) -> Callable[[Key], Awaitable[float | None]]:
    remaining = list(outcomes)

    async def act(key: Key) -> float | None:
        outcome = remaining.pop(0) if remaining else None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return act


def sleeping(seconds: float) -> Callable[[Key], Awaitable[None]]:
    async def act(key: Key) -> None:
        await asyncio.sleep(seconds)

    return act


def start(recorder: Recorder, *, workers: int = 8) -> tuple[Engine, asyncio.Task[None]]:
    loop = asyncio.get_running_loop()
    engine = Engine(recorder, workers=workers, clock=loop.time, random=lambda: 0.0)
    return engine, asyncio.create_task(engine.run())


async def finish(engine: Engine, task: asyncio.Task[None]) -> None:
    await engine.stop()
    await task


async def ran_at(
    recorder: Recorder, *, for_seconds: float, prepare: Callable[[Engine], None]
) -> list[float]:
    engine, task = start(recorder)
    prepare(engine)
    await asyncio.sleep(for_seconds)
    await finish(engine, task)
    return recorder.times()


def test_engine_coalesces_what_waits() -> None:
    async def scenario() -> None:
        def prepare(engine: Engine) -> None:
            for _ in range(100):
                engine.enqueue(A)

        assert await ran_at(Recorder(), for_seconds=1, prepare=prepare) == [0.0]

    play(scenario())


def test_engine_earliest_enqueue_wins() -> None:
    async def scenario() -> None:
        def prepare(engine: Engine) -> None:
            for after in (30, 10, 20):
                engine.enqueue(A, after)

        assert await ran_at(Recorder(), for_seconds=100, prepare=prepare) == [10.0]

    play(scenario())


def test_engine_ends_what_a_key_has_made_before_it_begins_another_key() -> None:
    async def scenario() -> None:
        async def act(key: Key) -> None:
            await asyncio.sleep(5)
            if key.kind == "Workflow":
                engine.enqueue_child(Key("Run", "team", key.name), key)

        recorder = Recorder(act)
        engine, task = start(recorder, workers=1)
        for after, name in enumerate("abc"):
            engine.enqueue(Key("Workflow", "team", name), after)
        await asyncio.sleep(60)
        await finish(engine, task)
        assert [(key.kind, key.name) for _, key in recorder.starts] == [
            (kind, name) for name in "abc" for kind in ("Workflow", "Run")
        ]

    play(scenario())


def test_engine_runs_a_key_again_after_it_was_enqueued_while_running() -> None:
    async def scenario() -> None:
        recorder = Recorder(sleeping(5))
        engine, task = start(recorder)
        engine.enqueue(A)
        await asyncio.sleep(1)
        engine.enqueue(A)
        engine.enqueue(A)
        await asyncio.sleep(20)
        await finish(engine, task)
        assert recorder.times() == [0.0, 5.0]

    play(scenario())


def test_engine_keeps_other_keys_going_beside_a_slow_one() -> None:
    async def scenario() -> None:
        async def act(key: Key) -> None:
            await asyncio.sleep(100 if key == A else 0)

        recorder = Recorder(act)
        engine, task = start(recorder, workers=2)
        engine.enqueue(A)
        for _ in range(5):
            engine.enqueue(B)
            await asyncio.sleep(1)
        assert recorder.times(B) == [0.0, 1.0, 2.0, 3.0, 4.0]
        await finish(engine, task)

    play(scenario())


def test_engine_uses_all_workers_and_no_more() -> None:
    async def scenario() -> None:
        recorder = Recorder(sleeping(1))
        engine, task = start(recorder, workers=3)
        for number in range(10):
            engine.enqueue(Key("Run", "team", str(number)))
        await asyncio.sleep(10)
        await finish(engine, task)
        assert recorder.most == 3
        assert [time for time, _ in recorder.starts] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]

    play(scenario())


def test_engine_looks_again_when_the_reconciler_asks() -> None:
    async def scenario() -> None:
        recorder = Recorder(failing(60.0, 0.0, None))
        times = await ran_at(recorder, for_seconds=1000, prepare=lambda e: e.enqueue(A))
        assert times == [0.0, 60.0, 60.0]

    play(scenario())


def test_engine_forgets_an_older_appointment_once_it_has_run() -> None:
    async def scenario() -> None:
        def prepare(engine: Engine) -> None:
            engine.enqueue(A, 50)
            engine.enqueue(A)

        assert await ran_at(Recorder(), for_seconds=100, prepare=prepare) == [0.0]

    play(scenario())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Transient("busy"), [0.0, 0.5, 1.5, 3.5]),
        (InvalidSpec("spec.x", "no"), [0.0, 0.5, 1.5, 3.5]),
        (NotFound("gone"), [0.0, 0.5, 1.5, 3.5]),
        (ZeroDivisionError("bug"), [0.0, 0.5, 1.5, 3.5]),
        (Denied("no"), [0.0, 60.0, 180.0, 420.0]),
        (Transient("later", retry_after=30), [0.0, 30.0, 60.0, 90.0]),
    ],
)
def test_engine_backs_off(error: Exception, expected: list[float]) -> None:
    async def scenario() -> None:
        recorder = Recorder(failing(error, error, error, None))
        times = await ran_at(recorder, for_seconds=1000, prepare=lambda e: e.enqueue(A))
        assert times == expected

    play(scenario())


def test_engine_backs_off_five_minutes_at_most_for_ever() -> None:
    async def scenario() -> None:
        recorder = Recorder(failing(*[Transient("busy")] * 2000))
        times = await ran_at(recorder, for_seconds=400_000, prepare=lambda e: e.enqueue(A))
        assert times[-1] - times[-2] == 300
        assert len(times) > 1200

    play(scenario())


def test_engine_success_resets_the_backoff() -> None:
    async def scenario() -> None:
        busy = Transient("busy")
        recorder = Recorder(failing(busy, busy, 10.0, busy, None))
        times = await ran_at(recorder, for_seconds=1000, prepare=lambda e: e.enqueue(A))
        assert times == [0.0, 0.5, 1.5, 11.5, 12.0]

    play(scenario())


def test_engine_an_event_does_not_wait_for_the_backoff() -> None:
    async def scenario() -> None:
        recorder = Recorder(failing(Denied("no"), None))
        engine, task = start(recorder)
        engine.enqueue(A)
        await asyncio.sleep(5)
        engine.enqueue(A)
        await asyncio.sleep(500)
        await finish(engine, task)
        assert recorder.times() == [0.0, 5.0]

    play(scenario())


def test_engine_gives_up_on_a_stuck_reconcile(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        recorder = Recorder(sleeping(1e6))
        times = await ran_at(recorder, for_seconds=150, prepare=lambda e: e.enqueue(A))
        assert times == [0.0, 120.5]

    play(scenario())
    assert "Run team/a: Transient: not done after 120 s; next try in 0.5 s" in caplog.text


def test_engine_logs_a_bug_with_its_traceback_and_whom_it_hit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        recorder = Recorder(failing(ZeroDivisionError("bug"), Transient("busy"), None))
        await ran_at(recorder, for_seconds=100, prepare=lambda e: e.enqueue(A))

    play(scenario())
    bug, busy = caplog.records
    assert (bug.levelno, busy.levelno) == (logging.ERROR, logging.WARNING)
    assert bug.exc_info is not None
    assert bug.exc_info[0] is ZeroDivisionError
    assert busy.exc_info is None
    assert bug.__dict__["object"] == {"kind": "Run", "namespace": "team", "name": "a"}


@pytest.mark.parametrize("workers", [1, 8])
def test_engine_stop_lets_running_work_finish_and_starts_nothing_more(workers: int) -> None:
    async def scenario() -> None:
        done = []

        async def act(key: Key) -> None:
            await asyncio.sleep(5)
            done.append(key)

        recorder = Recorder(act)
        engine, task = start(recorder, workers=workers)
        engine.enqueue(A)
        engine.enqueue(B, after=2)
        await asyncio.sleep(1)
        await finish(engine, task)
        assert done == [A]
        assert recorder.times(B) == []

    play(scenario())


@pytest.mark.parametrize("workers", [1, 8])
def test_engine_stop_cancels_what_takes_too_long(workers: int) -> None:
    async def scenario() -> None:
        recorder = Recorder(sleeping(100))
        engine, task = start(recorder, workers=workers)
        engine.enqueue(A)
        await asyncio.sleep(1)
        await finish(engine, task)
        assert asyncio.get_running_loop().time() == 11.0
        assert recorder.running.total() == 0

    play(scenario())


def test_engine_cancelled_run_leaves_no_task_behind() -> None:
    async def scenario() -> None:
        recorder = Recorder(sleeping(100))
        engine, task = start(recorder)
        engine.enqueue(A)
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert recorder.running.total() == 0
        assert len(asyncio.all_tasks()) == 1

    play(scenario())


def test_engine_takes_ten_thousand_keys_without_a_task_for_each() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        engine, task = start(recorder)
        for number in range(10_000):
            engine.enqueue(Key("Run", "team", str(number)), after=number % 600)
        await asyncio.sleep(0.5)
        assert len(asyncio.all_tasks()) < 20
        assert len(engine) > 9_000
        await asyncio.sleep(700)
        await finish(engine, task)
        assert len({key for _, key in recorder.starts}) == len(recorder.starts) == 10_000

    play(scenario())


def test_engine_does_not_keep_outdated_appointments() -> None:
    async def scenario() -> None:
        async def act(key: Key) -> float:
            return 1e6

        recorder = Recorder(act)
        engine, task = start(recorder)
        # Before the others, so that they do not leave one by one at the top.
        engine.enqueue(B, after=1e5)
        for _ in range(5000):
            engine.enqueue(A)
            await asyncio.sleep(0.01)
        assert len(recorder.starts) == 5000
        assert len(engine) == 2
        assert len(engine._heap) < 100
        await finish(engine, task)

    play(scenario())


actions = st.lists(
    st.tuples(
        st.floats(0, 5),  # pause before
        st.sampled_from("abc"),
        st.sampled_from([0.0, 0.0, 1.0, 10.0]),  # after
    ),
    min_size=1,
    max_size=30,
)
outcomes = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 3.0]), st.sampled_from(["done", "fail", "again"])),
    max_size=20,
)


@given(actions=actions, outcomes=outcomes, workers=st.integers(1, 3))
def test_engine_runs_every_enqueued_key_in_time_and_never_twice_at_once(
    actions: list[tuple[float, str, float]], outcomes: list[tuple[float, str]], workers: int
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        remaining = list(outcomes)

        async def act(key: Key) -> float | None:
            seconds, outcome = remaining.pop(0) if remaining else (0.0, "done")
            await asyncio.sleep(seconds)
            if outcome == "fail":
                raise Transient("busy")
            return 2.0 if outcome == "again" else None

        recorder = Recorder(act)
        engine, task = start(recorder, workers=workers)
        wanted: list[tuple[float, float, int, Key]] = []
        for pause, name, after in actions:
            await asyncio.sleep(pause)
            key = Key("Run", "team", name)
            engine.enqueue(key, after)
            wanted.append((loop.time(), after, len(recorder.starts), key))
        await asyncio.sleep(1000)
        assert len(engine) == 0
        await finish(engine, task)
        assert recorder.most <= workers
        # Nothing takes longer than all outcomes one after another.
        slack = sum(seconds for seconds, _ in outcomes) + 0.001
        for time, after, started, key in wanted:
            later = [t for t, k in recorder.starts[started:] if k == key]
            assert later, "an enqueue was lost"
            assert later[0] <= time + after + slack
        assert len(recorder.starts) <= len(actions) + len(outcomes)

    play(scenario())


def test_depth_tells_what_is_due_from_what_comes_later() -> None:
    now = 100.0
    engine = Engine(Recorder(), clock=lambda: now)
    engine.enqueue(A)
    engine.enqueue(B, after=60)
    now = 103.0
    assert engine.depth() == (1, 1, 3.0)
    now = 160.0
    assert engine.depth() == (2, 0, 60.0)
