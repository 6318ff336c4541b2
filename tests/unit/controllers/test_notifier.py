"""Messages on their way, on a loop whose time passes only while everybody sleeps."""

import asyncio
import json
import logging
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notifier_bench import Act, Bench, fails, fails_once, hangs, loop_time
from objects import make_object
from virtual_loop import play

from labfunctions_operator.controllers.post import PATIENCE
from labfunctions_operator.errors import Denied, Transient
from labfunctions_operator.providers.notify.gate import Partly, Undeliverable
from labfunctions_operator.telemetry import JsonFormatter, speak_of


def test_each_target_gets_one_message_and_all_are_one_write() -> None:
    async def story() -> None:
        bench = Bench()
        key = bench.end("r", "a", "b", "c")
        await asyncio.sleep(1)
        assert sorted(bench.servers.names()) == ["a", "b", "c"]
        assert bench.states(key) == ["Sent"] * 3
        assert len(bench.writes) == 1
        bench.reconcile(key)
        await asyncio.sleep(5000)
        assert len(bench.servers.sent) == 3

    play(story())


def test_a_slow_message_delays_the_record_but_no_other_message() -> None:
    async def slow(_: str) -> None:
        await asyncio.sleep(10)

    async def story() -> None:
        bench = Bench(a=slow)
        key = bench.end("r", "a", "b")
        await asyncio.sleep(1)
        assert bench.servers.names() == ["b"]
        bench.reconcile(key)
        assert bench.writes == []
        await asyncio.sleep(10)
        assert len(bench.writes) == 1

    play(story())


def test_a_dead_target_delays_no_other_and_what_was_sent_is_on_record() -> None:
    async def story() -> None:
        bench = Bench(dead=fails(Transient("connection refused")))
        keys = [bench.end(f"r-{number}", "dead", "alive") for number in range(50)]
        await asyncio.sleep(1)
        assert bench.servers.names() == ["alive"] * 50
        await asyncio.sleep(60)
        assert [bench.states(key) for key in keys] == [["Pending", "Sent"]] * 50
        late = bench.end("late", "dead", "alive")
        await asyncio.sleep(1)
        assert bench.states(late) == ["Pending", "Sent"], "it does not wait for a try"
        assert len([t for _, t in bench.servers.tries if t == "dead"]) < 10
        assert len(bench.writes) == 51

    play(story())


def test_a_dead_host_delays_no_other_however_many_targets_are_there() -> None:
    async def story() -> None:
        dead = [f"dead.example.com/{n}" for n in range(40)]
        bench = Bench(**{str(n): hangs for n in range(40)})
        for number, target in enumerate(dead):
            bench.end(f"r-{number}", target)
        await asyncio.sleep(1)
        assert len(bench.servers.tries) == 4
        bench.end("s", *(f"alive-{n}" for n in range(9)))
        await asyncio.sleep(1)
        assert sorted(bench.servers.names()) == [f"alive-{n}" for n in range(9)]
        await asyncio.sleep(1000)
        assert {name for _, name in bench.servers.tries} >= set(map(str, range(40)))

    play(story())


def test_after_the_last_try_it_is_said_why() -> None:
    async def story() -> None:
        bench = Bench(dead=fails(Transient("connection refused")))
        keys = [bench.end(f"r-{n}", "dead") for n in range(20)]
        await asyncio.sleep(PATIENCE + 2000)
        assert {s for key in keys for s in bench.states(key)} == {"Failed"}
        assert {bench.message(key) for key in keys} == {"connection refused"}
        gaps = [b - a for (a, _), (b, _) in pairwise(bench.servers.tries)]
        assert gaps[:5] == [2, 4, 8, 16, 32]
        assert max(gaps) == 300
        assert bench.messages["team", "Failed", "webhook", "Failed"] == 20
        assert len(bench.writes) == 20

    play(story())


def test_a_server_that_hangs_is_left_after_a_while() -> None:
    async def story() -> None:
        bench = Bench(a=hangs)
        key = bench.end("r", "a")
        await asyncio.sleep(PATIENCE + 2000)
        assert bench.message(key) == "no answer in time"

    play(story())


def test_what_will_never_arrive_is_tried_once() -> None:
    async def story() -> None:
        bench = Bench(a=fails(Undeliverable("the server answered 404")))
        key = bench.end("r", "a")
        await asyncio.sleep(5000)
        assert bench.states(key) == ["Failed"]
        assert bench.message(key) == "the server answered 404"
        assert len(bench.servers.tries) == 1

    play(story())


@pytest.mark.parametrize(
    ("never", "second", "said"),
    [
        ("", None, None),
        ("refuses bob (550)", None, "refuses bob (550)"),
        ("refuses bob (550)", Undeliverable("refuses cy (550)"), "refuses bob (550); refuses cy"),
        ("", Transient("refuses cy (451)"), "refuses cy (451)"),
    ],
)
def test_only_recipients_that_may_take_it_later_are_tried_again(
    never: str, second: Exception | None, said: str | None
) -> None:
    errors: list[Exception] = [Partly("refuses cy (451)", later=["cy"], never=never)]

    async def act(_: str) -> None:
        if errors:
            raise errors.pop()
        if second:
            raise second

    async def story() -> None:
        bench = Bench(a=act)
        key = bench.end("r", "a")
        await asyncio.sleep(2 * PATIENCE)
        assert bench.servers.only[0] == ()
        assert set(bench.servers.only[1:]) == {("cy",)}
        assert bench.states(key) == ["Failed" if said else "Sent"]
        assert (bench.message(key) or "").startswith(said or "")

    play(story())


@pytest.mark.parametrize("error", [Transient("busy"), Denied("may not read the Secret")])
def test_what_passes_is_tried_again(error: Exception) -> None:
    async def story() -> None:
        bench = Bench(a=fails_once(error))
        key = bench.end("r", "a")
        await asyncio.sleep(100)
        assert bench.states(key) == ["Sent"]
        assert [when for when, _ in bench.servers.tries] == [0, 2]
        assert len(bench.writes) == 1

    play(story())


def test_a_server_that_asks_to_wait_is_not_asked_before() -> None:
    async def story() -> None:
        bench = Bench(a=fails_once(Transient("429", retry_after=77)))
        bench.end("r", "a")
        await asyncio.sleep(1)
        bench.end("s", "a")
        await asyncio.sleep(200)
        assert [when for when, _ in bench.servers.tries] == [0, 77, 77]

    play(story())


def test_a_server_that_asks_to_wait_for_all_the_time_there_is_is_asked_once_more() -> None:
    async def story() -> None:
        bench = Bench(a=fails_once(Transient("429", retry_after=PATIENCE + 100)))
        key = bench.end("r", "a")
        await asyncio.sleep(PATIENCE + 200)
        assert [when for when, _ in bench.servers.tries] == [0, PATIENCE]
        assert bench.states(key) == ["Sent"]

    play(story())


def test_a_message_that_one_server_cannot_take_does_not_hold_up_those_behind_it() -> None:
    async def story() -> None:
        bench = Bench(a=fails_once(Transient("500")))
        first, second = bench.end("r", "a"), bench.end("s", "a")
        await asyncio.sleep(10)
        assert [run for _, _, run, _ in bench.servers.sent] == ["s", "r"]
        assert bench.states(first) == bench.states(second) == ["Sent"]

    play(story())


def test_a_bug_of_ours_ends_one_message_only(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        bench = Bench(a=fails(RuntimeError("oops")))
        key = bench.end("r", "a", "b")
        await asyncio.sleep(1)
        assert bench.states(key) == ["Failed", "Sent"]
        assert bench.message(key) == "an error of the operator's own"

    play(story())
    assert "oops" in caplog.text


def test_a_burst_of_failures_alike_is_one_message_with_a_count() -> None:
    async def story() -> None:
        bench = Bench()
        keys = []
        for number in range(30):
            keys.append(bench.end(f"r-{number}", "a", group=60))
            await asyncio.sleep(1)
        other = bench.end("other", "a", group=60, reason="OutOfMemory")
        assert bench.servers.sent == []
        await asyncio.sleep(100)
        assert [(run, count) for _, _, run, count in bench.servers.sent] == [
            ("r-0", 30),
            ("other", 1),
        ]
        assert bench.servers.sent[0][0] == 60
        assert {s for key in [*keys, other] for s in bench.states(key)} == {"Sent"}
        late = bench.end("late", "a", group=60)
        await asyncio.sleep(100)
        assert bench.servers.sent[-1][2:] == ("late", 1)
        assert bench.states(late) == ["Sent"]

    play(story())


def test_failures_of_runs_that_never_started_are_one_message_too() -> None:
    async def story() -> None:
        bench = Bench()
        keys = [
            bench.end(f"r-{n}", "a", group=60, reason="ParametersInvalid", started=False)
            for n in range(100)
        ]
        await asyncio.sleep(100)
        assert bench.servers.sent == [(60, "a", "r-0", 100)]
        assert {s for key in keys for s in bench.states(key)} == {"Sent"}

    play(story())


def test_waiting_for_a_burst_does_not_keep_other_messages_off_the_record() -> None:
    async def story() -> None:
        bench = Bench()
        key = bench.end("r", "a", group=3600)
        await asyncio.sleep(1)
        assert bench.states(key) == ["Pending"]
        await asyncio.sleep(3600)
        assert bench.states(key) == ["Sent"]

    play(story())


def test_failures_alike_found_after_a_restart_are_one_message_too() -> None:
    async def story() -> None:
        bench = Bench()
        keys = [bench.end(f"r-{n}", "a", group=60) for n in range(5)]
        await asyncio.sleep(10)
        await bench.notifier.stop()
        await asyncio.sleep(1000)
        bench.start()
        for key in keys:
            bench.reconcile(key)
        await asyncio.sleep(2)
        assert [(run, count) for _, _, run, count in bench.servers.sent] == [("r-0", 5)]

    play(story())


def test_a_crash_repeats_only_what_is_not_on_record() -> None:
    async def story() -> None:
        bench = Bench(dead=fails(Transient("refused")))
        done = bench.end("done", "a")
        key = bench.end("r", "a", "dead")
        await asyncio.sleep(1)
        bench.servers.acts.clear()
        bench.crash()
        bench.reconcile(done)
        bench.reconcile(key)
        await asyncio.sleep(1)
        assert bench.servers.names() == ["a", "a", "dead"]
        assert bench.states(key) == ["Sent", "Sent"]

    play(story())


def test_stopping_lets_what_is_under_way_arrive_and_be_put_on_record() -> None:
    async def slow(_: str) -> None:
        await asyncio.sleep(3)

    async def story() -> None:
        bench = Bench(a=slow, dead=fails(Transient("refused")), never=hangs)
        bench.notifier._on_outcome = lambda key: None  # the engine has stopped
        sent = bench.end("r", "a", "dead")
        stuck = bench.end("s", "never")
        await asyncio.sleep(1)
        before = loop_time()
        for key in await bench.notifier.stop():
            bench.reconcile(key)
        assert loop_time() - before <= 5
        assert bench.states(sent) == ["Sent", "Pending"]
        assert bench.states(stuck) == ["Pending"]
        bench.end("late", "a")
        await asyncio.sleep(100)
        assert bench.servers.names() == ["a"], "nothing is begun any more"

    play(story())


def test_a_deleted_runs_message_arrives_and_nothing_is_written() -> None:
    async def story() -> None:
        bench = Bench(a=fails_once(Transient("busy")))
        key = bench.end("r", "a")
        await asyncio.sleep(1)
        bench.notifier.forget(key)
        await asyncio.sleep(10)
        assert bench.servers.names() == ["a"]
        assert bench.writes == []

    play(story())


def test_each_message_has_a_line_that_names_its_run_target_and_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.handler.setFormatter(JsonFormatter())
    caplog.set_level(logging.INFO)

    async def story() -> None:
        bench = Bench(a=fails_once(Transient("busy")), b=fails(Undeliverable("404")))
        for name in ("r", "s"):
            speak_of(make_object("Run", name, {}))
            bench.end(name, "a", "b")
        await asyncio.sleep(100)

    play(story())
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    assert {(line["action"], line["event"], line["target"]) for line in lines} == {
        ("notify", "Failed", "webhook")
    }
    ends = [(line["name"], line["message"]) for line in lines]
    assert sorted(ends) == [
        ("r", "a message waits for its target: busy"),
        ("r", "a message was given up: 404"),
        ("r", "a message was sent"),
        ("s", "a message was given up: 404"),
        ("s", "a message was sent"),
    ]


ERRORS = st.sampled_from(
    [None, Transient("busy"), Transient("429", retry_after=50), Undeliverable("404"), Denied("no")]
)


@given(
    scripts=st.dictionaries(st.sampled_from("abc"), st.lists(ERRORS, max_size=6)),
    ends=st.lists(
        st.tuples(
            st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True),
            st.sampled_from([0, 60]),
            st.sampled_from([0.0, 1.0, 100.0]),
        ),
        max_size=6,
    ),
)
def test_every_message_ends_and_is_sent_once(scripts: Any, ends: Any) -> None:
    def act(errors: list[Exception | None]) -> Act:
        remaining = list(errors)

        async def play_one(_: str) -> None:
            error = remaining.pop(0) if remaining else None
            if error:
                raise error

        return play_one

    async def story() -> None:
        bench = Bench(**{name: act(errors) for name, errors in scripts.items()})
        keys = []
        for number, (targets, group, wait) in enumerate(ends):
            keys.append(bench.end(f"r-{number}", *targets, group=group))
            await asyncio.sleep(wait)
        await asyncio.sleep(3 * PATIENCE)
        states = [state for key in keys for state in bench.states(key)]
        assert "Pending" not in states
        told = sum(count for _, _, _, count in bench.servers.sent)
        assert told == states.count("Sent")
        assert bench.notifier._hands == {}
        assert bench.notifier._post._lanes == {}

    play(story())
