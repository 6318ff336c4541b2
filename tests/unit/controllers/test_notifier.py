"""Messages on their way, on a loop whose time passes only while everybody sleeps."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from objects import at, make_run, make_workflow, stamp
from virtual_loop import play

from labfunctions_operator.api.notification import MissedDelivery, Target
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.controllers.notifier import Notifier
from labfunctions_operator.controllers.post import PATIENCE
from labfunctions_operator.errors import Denied, Transient
from labfunctions_operator.providers.notify.gate import Undeliverable
from labfunctions_operator.reconcile.missed import pending, tell_missed
from labfunctions_operator.reconcile.notify import Outcome, is_pending, with_outcomes
from labfunctions_operator.reconcile.plan import Key

Act = Callable[[str], Awaitable[None]]


def hook(name: str) -> dict[str, Any]:
    return {"webhook": {"url": f"https://example.com/{name}", "format": "Json"}}


def loop_time() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Servers:
    """Stands where messages are written and sent; each server does what it is told."""

    acts: dict[str, Act] = field(default_factory=dict)
    sent: list[tuple[float, str, str, int]] = field(default_factory=list)
    tries: list[tuple[float, str]] = field(default_factory=list)

    async def write(self, run: Run, event: str, runs: Sequence[str], count: int) -> Any:
        return run.metadata.name, count

    async def write_missed(self, workflow: Workflow, delivery: MissedDelivery, own: Any) -> Any:
        return delivery.due, delivery.count

    async def send(self, namespace: str, target: Target, message: Any) -> None:
        assert target.webhook
        assert target.webhook.url
        name = target.webhook.url.rsplit("/", 1)[-1]
        self.tries.append((loop_time(), name))
        if act := self.acts.get(name):
            await act(name)
        self.sent.append((loop_time(), name, *message))

    def names(self) -> list[str]:
        return [name for _, name, *_ in self.sent]


def fails(*errors: Exception) -> Act:
    remaining = list(errors)

    async def act(_: str) -> None:
        if remaining:
            raise remaining.pop(0) if len(remaining) > 1 else remaining[0]

    return act


def fails_once(error: Exception) -> Act:
    remaining = [error]

    async def act(_: str) -> None:
        if remaining:
            raise remaining.pop()

    return act


async def hangs(_: str) -> None:
    await asyncio.sleep(1e9)


class Bench:
    """A notifier with the Runs' statuses, written as the reconciler writes them."""

    def __init__(self, **acts: Act) -> None:
        self.servers = Servers(acts)
        self.runs: dict[Key, Run] = {}
        self.writes: list[tuple[float, Key]] = []
        self.notifier = self.start()

    def start(self) -> Notifier:
        self.notifier = Notifier(
            self.servers,  # type: ignore[arg-type]
            self.reconcile,
            lambda: at(loop_time()),
            clock=loop_time,
            random=lambda: 0.0,
        )
        return self.notifier

    def crash(self) -> None:
        """Leave nothing of the process but what it wrote."""
        for lane in self.notifier._post._lanes.values():
            assert lane.task
            lane.task.cancel()
        self.start()

    def reconcile(self, key: Key) -> None:
        run = self.runs[key]
        outcomes: Mapping[int, Outcome] = {}
        if is_pending(run):
            outcomes = self.notifier.offer(key, run)
        else:
            self.notifier.forget(key)
        plan = with_outcomes(run, outcomes, at(loop_time()))
        if plan.status is not None:
            self.writes.append((loop_time(), key))
            self.runs[key] = run.but(status=type(run.status).model_validate(plan.status))
            self.reconcile(key)

    def end(self, name: str, *targets: str, group: int = 0, reason: str = "NotebookError") -> Key:
        """A Run ends, and the messages about it are due."""
        deliveries = [{"event": "Failed", "target": hook(t)} for t in targets]
        notify = {"groupSeconds": group}
        run = make_run(
            name,
            status={
                "phase": "Failed",
                "completionTime": stamp(loop_time()),
                "failure": {"reason": reason},
                "snapshot": {
                    "project": "demo",
                    "workflow": "report",
                    "image": "i",
                    "notify": notify,
                },
                "notifications": deliveries,
            },
        )
        key = Key("Run", "team", name)
        self.runs[key] = run
        self.reconcile(key)
        return key

    def states(self, key: Key) -> list[str]:
        return [d.state for d in self.runs[key].status.notifications or ()]

    def message(self, key: Key) -> str | None:
        return (self.runs[key].status.notifications or [])[0].message


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
        bench.end("r", "a", "b")
        await asyncio.sleep(1)
        assert bench.servers.names() == ["b"]
        assert bench.writes == []
        await asyncio.sleep(10)
        assert len(bench.writes) == 1

    play(story())


def test_a_dead_target_delays_no_other_and_what_was_sent_is_on_record() -> None:
    async def story() -> None:
        bench = Bench(dead=fails(Transient("connection refused")))
        first = bench.end("r", "dead", "alive")
        for number in range(50):
            bench.end(f"s-{number}", "dead", "alive")
        await asyncio.sleep(1)
        assert bench.servers.names() == ["alive"] * 51
        await asyncio.sleep(60)
        assert bench.states(first) == ["Pending", "Sent"]
        assert len([t for _, t in bench.servers.tries if t == "dead"]) < 10

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
        assert bench.notifier.messages["Failed", "webhook", "Failed"] == 20
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


class Schedule(Bench):
    """A notifier with the messages of one Workflow's status."""

    def __init__(self, **acts: Act) -> None:
        super().__init__(**acts)
        self.key = Key("Workflow", "team", "report")
        self.deliveries: list[MissedDelivery] = []

    def reconcile(self, key: Key) -> None:
        workflow = make_workflow(status={"notifications": [d.wire() for d in self.deliveries]})
        if not pending(workflow):
            self.notifier.forget(key)
            return
        outcomes = self.notifier.offer_missed(key, workflow, None)
        now = at(loop_time())
        told = tell_missed(workflow, [], None, project=None, outcomes=outcomes, now=now)
        if told.deliveries != self.deliveries:
            self.writes.append((loop_time(), key))
            self.deliveries = told.deliveries or []
            self.reconcile(key)

    def miss(self, *targets: str, count: int = 1, held: float | None = None) -> None:
        """The status says that messages are due now, in place of all others."""
        self.deliveries = [
            MissedDelivery.model_validate(
                {
                    "target": hook(target),
                    "due": stamp(loop_time()),
                    "count": count,
                    "reason": "MissedSchedule",
                    "cause": "late",
                    "notBefore": held and stamp(loop_time() + held),
                }
            )
            for target in targets
        ]
        self.reconcile(self.key)

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(d.state, d.message or "") for d in self.deliveries]

    @property
    def counts(self) -> list[tuple[str, int]]:
        return [(name, count) for _, name, _, count in self.servers.sent]


def test_a_missed_tick_is_told_once_and_put_on_record() -> None:
    async def story() -> None:
        bench = Schedule()
        bench.miss("a", "b", count=3)
        await asyncio.sleep(1)
        assert sorted(bench.counts) == [("a", 3), ("b", 3)]
        assert len(bench.writes) == 1
        assert bench.said == [("Sent", "")] * 2
        bench.reconcile(bench.key)
        await asyncio.sleep(5000)
        assert len(bench.servers.sent) == 2
        assert bench.notifier._hands == {}

    play(story())


def test_a_message_about_more_ticks_goes_in_place_of_the_one_before() -> None:
    async def story() -> None:
        bench = Schedule(a=fails_once(Transient("busy", retry_after=100)))
        bench.miss("a")
        await asyncio.sleep(50)
        bench.miss("a", count=2)
        await asyncio.sleep(200)
        assert bench.counts == [("a", 2)]
        assert bench.said == [("Sent", "")]

    play(story())


def test_one_that_is_on_its_way_meanwhile_is_not_sent_again() -> None:
    slow = [Transient("busy")]

    async def act(_: str) -> None:
        await asyncio.sleep(10)
        if slow:
            raise slow.pop()

    async def story() -> None:
        bench = Schedule(a=act)
        bench.miss("a")
        await asyncio.sleep(5)
        bench.miss("a", count=2)
        await asyncio.sleep(200)
        assert bench.counts == [("a", 2)]

    play(story())


def test_a_target_that_is_dead_for_good_is_given_up_although_more_is_to_be_told() -> None:
    async def story() -> None:
        bench = Schedule(dead=fails(Transient("refused")))
        for count in range(1, 100):
            bench.miss("dead", count=count)
            await asyncio.sleep(60)
            if bench.said[0][0] == "Failed":
                break
        assert bench.said == [("Failed", "refused")]
        assert PATIENCE - 600 <= loop_time() <= PATIENCE + 600
        assert bench.notifier.messages["Missed", "webhook", "Failed"] == 1
        bench.servers.acts.clear()
        bench.miss("dead")
        await asyncio.sleep(400)
        assert bench.said == [("Sent", "")]

    play(story())


def test_a_message_that_is_held_back_waits_also_over_a_restart() -> None:
    async def story() -> None:
        bench = Schedule()
        bench.miss("a", held=600)
        await asyncio.sleep(300)
        await bench.notifier.stop()
        bench.start()
        bench.reconcile(bench.key)
        await asyncio.sleep(299)
        assert bench.counts == []
        await asyncio.sleep(2)
        assert bench.counts == [("a", 1)]

    play(story())


def test_what_was_sent_about_a_schedule_is_on_record_after_an_orderly_stop() -> None:
    async def slow(_: str) -> None:
        await asyncio.sleep(3)

    async def story() -> None:
        bench = Schedule(a=slow)
        bench.notifier._on_outcome = lambda key: None  # the engine has stopped
        bench.miss("a")
        await asyncio.sleep(1)
        for key in await bench.notifier.stop():
            bench.reconcile(key)
        assert bench.said == [("Sent", "")]
        assert bench.counts == [("a", 1)]

    play(story())


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
