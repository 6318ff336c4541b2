"""Messages about schedules on their way, where a later one takes in an earlier one."""

import asyncio

from notifier_bench import Act, Bench, fails, fails_once, hook, loop_time
from objects import at, make_workflow, stamp
from virtual_loop import play

from labfunctions_operator.api.notification import MissedDelivery
from labfunctions_operator.controllers.post import PATIENCE
from labfunctions_operator.errors import Transient
from labfunctions_operator.reconcile.missed import pending, tell_missed
from labfunctions_operator.reconcile.plan import Key


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
        assert bench.messages["team", "Missed", "webhook", "Failed"] == 1
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
