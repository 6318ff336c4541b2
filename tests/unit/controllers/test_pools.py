"""What is asked of a provider, when, and what is known of its pool meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from objects import make_node_group

from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.controllers import pool_failures
from labfunctions_operator.controllers import pools as module
from labfunctions_operator.controllers.backoff import DENIED_DELAY, LAST_DELAY
from labfunctions_operator.controllers.pool_failures import FIRST_DELAY
from labfunctions_operator.controllers.pools import Pools
from labfunctions_operator.errors import Denied, Drifted, InvalidSpec, NotFound, Transient
from labfunctions_operator.providers.nodes.hints import RAISED_UNTIL
from labfunctions_operator.providers.nodes.protocol import NodeProvider
from labfunctions_operator.reconcile.nodes import Bounds, GroupSize, PoolView
from labfunctions_operator.reconcile.plan import Key, Problem

KEY = Key("NodeGroup", "", "gpu")
GROUP = make_node_group(provider={"awsAutoScalingGroup": {"name": "g", "region": "eu-west-1"}})


@dataclass
class FakeProvider:
    """A pool in memory.

    Attributes:
        failures: What the next calls raise, the first one first.
        gate: Calls wait for it.
    """

    size: GroupSize = field(default_factory=lambda: GroupSize(min=0, max=4, desired=0))
    calls: list[str] = field(default_factory=list)
    failures: list[Exception | None] = field(default_factory=list)
    gate: asyncio.Event | None = None
    after_write: Exception | None = None

    async def read(self) -> GroupSize:
        await self._begin("read")
        return self.size

    async def write(self, bounds: Bounds, seen: GroupSize) -> GroupSize:
        await self._begin("write")
        assert seen == self.size
        tags = {RAISED_UNTIL: bounds.raised_until} if bounds.raised_until else {}
        self.size = GroupSize(min=bounds.min, max=bounds.max, desired=self.size.desired, tags=tags)
        if self.after_write:
            raise self.after_write
        return self.size

    async def close(self) -> None:
        self.calls.append("close")

    async def _begin(self, call: str) -> None:
        self.calls.append(call)
        if self.gate:
            await self.gate.wait()
        if self.failures and (failure := self.failures.pop(0)):
            raise failure


@dataclass
class Bench:
    provider: FakeProvider
    pools: Pools
    news: asyncio.Queue[Key]
    clock: list[float]
    writes: list[tuple[str, str]]

    @property
    def view(self) -> PoolView:
        view = self.pools.view(KEY, GROUP)
        assert view is not None
        return view

    async def done(self) -> None:
        """Wait for the call that is under way."""
        await asyncio.gather(*(t for t in asyncio.all_tasks() if t.get_name() == f"pool {KEY}"))

    async def left(self) -> None:
        """Wait for the end of what is done for a group that is gone."""
        tasks = [t for t in asyncio.all_tasks() if t.get_name() == f"leave pool {KEY}"]
        await asyncio.gather(*tasks)

    async def follow(self, wanted: Bounds | None = None) -> PoolView:
        """Follow once, and wait for what comes of it."""
        assert self.pools.follow(KEY, GROUP, wanted) is None
        await self.news.get()
        return self.view


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    provider, news, clock = FakeProvider(), asyncio.Queue[Key](), [0.0]

    def make(group: NodeGroup) -> NodeProvider:
        return provider

    writes: list[tuple[str, str]] = []

    def measured(name: str, result: str) -> None:
        writes.append((name, result))

    pools = Pools(make, news.put_nowait, measured=measured, clock=lambda: clock[0])
    yield Bench(provider, pools, news, clock, writes)
    await pools.close()


def bounds(least: int = 2, **more: Any) -> Bounds:
    return Bounds(min=least, max=4, **more)


async def test_a_pool_is_read_before_it_is_known(bench: Bench) -> None:
    assert bench.view == PoolView()
    assert await bench.follow() == PoolView(size=GroupSize(min=0, max=4, desired=0))
    assert bench.pools.follow(KEY, GROUP, None) == module.READ_INTERVAL


async def test_it_is_read_again_now_and_then(bench: Bench) -> None:
    await bench.follow()
    bench.provider.size = GroupSize(min=1, max=4, desired=1)
    bench.clock[0] = module.READ_INTERVAL
    assert (await bench.follow()).size == bench.provider.size


async def test_what_is_wanted_is_written_at_once_and_only_once(bench: Bench) -> None:
    await bench.follow()
    view = await bench.follow(bounds())
    assert view.size == GroupSize(min=2, max=4, desired=0)
    assert bench.pools.follow(KEY, GROUP, bounds()) == module.READ_INTERVAL
    bench.clock[0] = module.READ_INTERVAL
    bench.pools.follow(KEY, GROUP, bounds())
    await asyncio.sleep(0)
    assert bench.provider.calls.count("write") == 1
    assert bench.writes == [("gpu", "Succeeded")]


async def test_a_new_expiry_is_written_though_the_bounds_stay(bench: Bench) -> None:
    await bench.follow()
    await bench.follow(bounds())
    bench.clock[0] += module.WRITE_INTERVAL
    bench.pools.follow(KEY, GROUP, bounds(raised_until="2026-01-01T00:00:00Z"))
    await bench.done()
    assert bench.provider.calls.count("write") == 2


async def test_what_a_provider_has_lost_is_told_again(bench: Bench) -> None:
    await bench.follow()
    await bench.follow(bounds())
    bench.provider.size = GroupSize(min=0, max=4, desired=0)
    bench.clock[0] = module.READ_INTERVAL
    await bench.follow(bounds())
    assert (await bench.follow(bounds())).size == GroupSize(min=2, max=4, desired=0)


async def test_nothing_is_written_while_a_pool_is_changing(bench: Bench) -> None:
    await bench.follow()
    before, changing = bench.provider.size, GroupSize(min=0, max=4, desired=0, is_changing=True)
    bench.provider.size = changing
    assert await bench.follow(bounds()) == PoolView(size=changing)
    assert bench.writes == []
    assert bench.pools.follow(KEY, GROUP, None) == module.CHANGING_INTERVAL
    bench.clock[0] = module.CHANGING_INTERVAL
    bench.provider.size = before
    assert await bench.follow() == PoolView(size=before)
    assert (await bench.follow(bounds())).problem is None
    assert bench.provider.size.min == 2


async def test_what_came_of_a_write_is_known_at_the_end_of_the_change(bench: Bench) -> None:
    await bench.follow()
    await bench.follow(bounds())
    before = GroupSize(min=0, max=4, desired=0)
    for size, writes in ((replace(before, is_changing=True), 1), (before, 1), (before, 2)):
        bench.provider.size = size
        bench.clock[0] += module.READ_INTERVAL
        await bench.follow(bounds())
        assert bench.provider.calls.count("write") == writes


@pytest.mark.parametrize("tags", [{}, {RAISED_UNTIL: "2030-01-01T00:00:00Z"}])
async def test_a_note_that_somebody_changed_is_written_again(
    bench: Bench, tags: dict[str, str]
) -> None:
    wanted = bounds(raised_until="2026-01-01T00:00:00Z")
    await bench.follow()
    written = (await bench.follow(wanted)).size
    bench.provider.size = GroupSize(min=2, max=4, desired=0, tags=tags)
    bench.clock[0] = module.READ_INTERVAL
    await bench.follow(wanted)
    assert (await bench.follow(wanted)).size == written


async def test_a_note_that_somebody_changed_before_a_write_is_looked_at_first(
    bench: Bench,
) -> None:
    await bench.follow()
    await bench.follow(bounds(raised_until="2026-01-01T00:00:00Z"))
    theirs = bench.provider.size = GroupSize(min=2, max=4, desired=0)
    bench.clock[0] = module.WRITE_INTERVAL
    assert await bench.follow(bounds(3)) == PoolView()
    assert bench.provider.size == theirs


async def test_a_slow_provider_keeps_nobody_waiting(bench: Bench) -> None:
    await bench.follow()
    bench.provider.gate = asyncio.Event()
    assert bench.pools.follow(KEY, GROUP, bounds()) is None
    await asyncio.sleep(0)
    assert bench.view.is_writing
    assert bench.pools.follow(KEY, GROUP, bounds(3)) is None, "one call at a time"
    bench.provider.gate.set()
    await bench.news.get()
    assert bench.view.size == GroupSize(min=2, max=4, desired=0)
    assert bench.pools.follow(KEY, GROUP, bounds(3)) == module.WRITE_INTERVAL
    bench.clock[0] += module.WRITE_INTERVAL
    assert (await bench.follow(bounds(3))).size == GroupSize(min=3, max=4, desired=0)


async def test_a_provider_that_does_not_answer_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_TIMEOUT", 0.01)
    bench.provider.gate = asyncio.Event()
    view = await bench.follow()
    assert view.problem is not None
    assert view.problem.reason == "ProviderTimeout"


@pytest.mark.parametrize(
    ("error", "reason", "delay"),
    [
        (Transient("503"), "ProviderUnavailable", FIRST_DELAY),
        (Transient("slow down", retry_after=40), "ProviderUnavailable", 40),
        (Denied("no rights"), "Forbidden", DENIED_DELAY),
        (NotFound("no such group"), "PoolNotFound", FIRST_DELAY),
        (InvalidSpec("spec.provider", "wrong"), "InvalidSpec", FIRST_DELAY),
        (RuntimeError("a bug"), "InternalError", FIRST_DELAY),
    ],
)
async def test_a_failure_is_said_and_tried_again_later(
    bench: Bench, error: Exception, reason: str, delay: float
) -> None:
    bench.provider.failures = [error]
    view = await bench.follow()
    assert view.problem is not None
    assert (view.size, view.problem.reason) == (None, reason)
    assert bench.pools.follow(KEY, GROUP, None) == delay
    bench.clock[0] = delay
    assert (await bench.follow()).problem is None


async def test_failures_in_a_row_are_tried_ever_later(bench: Bench) -> None:
    waits = []
    for _ in range(12):
        bench.provider.failures = [Transient("503")]
        bench.pools.follow(KEY, GROUP, bounds())
        await bench.done()
        wait = bench.pools.follow(KEY, GROUP, bounds())
        assert wait is not None
        waits.append(wait)
        bench.clock[0] += wait
    assert waits[:3] == [2.0, 4.0, 8.0]
    assert waits[-1] == LAST_DELAY


async def test_after_a_write_that_may_have_happened_the_pool_is_read_anew(bench: Bench) -> None:
    await bench.follow()
    bench.provider.after_write = Transient("the connection broke")
    view = await bench.follow(bounds())
    assert view == PoolView(
        problem=Problem(reason="ProviderUnavailable", message="the connection broke")
    )
    assert bench.writes == [("gpu", "Failed")]
    bench.clock[0] += FIRST_DELAY
    assert (await bench.follow()).size == GroupSize(min=2, max=4, desired=0)


@pytest.mark.parametrize("who_sees", ["operator", "provider"])
async def test_a_change_since_the_last_look_is_not_overwritten(bench: Bench, who_sees: str) -> None:
    await bench.follow()
    theirs = GroupSize(min=1, max=9, desired=1)
    if who_sees == "operator":
        bench.provider.size = theirs
    else:
        bench.provider.failures = [None, Drifted("changed")]
    assert await bench.follow(bounds()) == PoolView()
    assert bench.provider.size == (
        theirs if who_sees == "operator" else GroupSize(min=0, max=4, desired=0)
    )
    assert (await bench.follow()).size == bench.provider.size


async def test_a_refused_write_is_said_until_one_succeeds(bench: Bench) -> None:
    refused = Problem(reason="Forbidden", message="no rights")
    size = bench.provider.size
    await bench.follow()
    for failures, delay in enumerate((60, 120, 240)):
        bench.provider.failures = [None, Denied("no rights")]
        assert await bench.follow(bounds()) == PoolView(problem=refused), failures
        bench.clock[0] += FIRST_DELAY
        assert await bench.follow(bounds()) == PoolView(size=size, problem=refused)
        assert bench.pools.follow(KEY, GROUP, bounds()) == min(
            module.READ_INTERVAL, delay - FIRST_DELAY
        )
        bench.clock[0] += delay - FIRST_DELAY
    assert (await bench.follow(bounds())).problem is None
    assert bench.provider.size.min == 2


async def test_a_refused_write_that_is_wanted_no_more_is_not_spoken_of(bench: Bench) -> None:
    await bench.follow()
    await bench.follow(bounds())
    bench.clock[0] += module.WRITE_INTERVAL
    bench.provider.failures = [None, Denied("no rights")]
    await bench.follow(bounds(3))
    bench.clock[0] += FIRST_DELAY
    assert (await bench.follow()).problem is not None
    bench.pools.follow(KEY, GROUP, bounds())
    bench.clock[0] += module.READ_INTERVAL
    assert (await bench.follow(bounds())).problem is None
    assert bench.provider.calls.count("write") == 2


async def test_a_provider_that_sees_a_change_each_time_is_asked_ever_less_often(
    bench: Bench,
) -> None:
    await bench.follow()
    bench.provider.failures = [None, Drifted("more nodes than that")]
    assert await bench.follow(bounds()) == PoolView(), "once is nothing to speak of"
    bench.provider.failures = [None, None, Drifted("more nodes than that")]
    await bench.follow(bounds())
    view = await bench.follow(bounds())
    assert view.problem == Problem(reason="Drifted", message="more nodes than that")
    writes = bench.provider.calls.count("write")
    for _ in range(3):
        bench.clock[0] += 1
        bench.pools.follow(KEY, GROUP, bounds())
        await bench.done()
    assert bench.provider.calls.count("write") == writes


async def test_another_pool_needs_another_provider(bench: Bench) -> None:
    await bench.follow()
    other = make_node_group(
        provider={"awsAutoScalingGroup": {"name": "other", "region": "eu-west-1"}}
    )
    assert bench.pools.view(KEY, other) == PoolView()
    bench.pools.follow(KEY, other, None)
    await bench.news.get()
    assert "close" in bench.provider.calls


async def test_groups_within_the_cluster_have_no_pool(bench: Bench) -> None:
    group = make_node_group()
    assert bench.pools.view(KEY, group) is None
    assert bench.pools.follow(KEY, group, None) is None
    assert bench.provider.calls == []


async def test_a_forgotten_group_lets_go_of_its_connections(bench: Bench) -> None:
    await bench.follow()
    bench.provider.gate = asyncio.Event()
    bench.pools.follow(KEY, GROUP, bounds())
    await bench.pools.close()
    assert bench.provider.calls[-1] == "close"
    assert bench.provider.size == GroupSize(min=0, max=4, desired=0)


# A group that is gone, or has another pool.

RAISED = bounds(3, raised_until="2026-01-01T13:00:00Z")


async def raised(bench: Bench) -> None:
    await bench.follow()
    await bench.follow(RAISED)
    assert bench.provider.size.min == 3


async def test_a_group_that_is_deleted_puts_back_what_it_raised(bench: Bench) -> None:
    await raised(bench)
    bench.pools.leave(KEY)
    await bench.left()
    assert bench.provider.size == GroupSize(min=0, max=4, desired=0)
    assert bench.provider.calls[-2:] == ["write", "close"]
    bench.pools.leave(KEY)
    await bench.left()
    assert bench.provider.calls[-1] == "close", "once"


async def test_a_raise_of_an_earlier_process_is_put_back_before_the_first_look(
    bench: Bench,
) -> None:
    bench.provider.size = GroupSize(
        min=3, max=4, desired=3, tags={RAISED_UNTIL: "2026-01-01T13:00:00Z"}
    )
    bench.provider.failures = [Transient("503")]
    bench.pools.follow(KEY, GROUP, RAISED)
    bench.pools.leave(KEY)
    await bench.left()
    assert bench.provider.size.min == 0


async def test_a_group_that_gets_another_pool_puts_back_what_it_raised(bench: Bench) -> None:
    await raised(bench)
    bench.pools.follow(KEY, make_node_group(), None)
    await bench.left()
    assert bench.provider.size.min == 0


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param({"min": 3, "tags": {RAISED_UNTIL: "another's"}}, 3, id="another group's"),
        pytest.param({"min": 2}, 2, id="somebody's minimum without a mark"),
        pytest.param(
            {"min": 2, "tags": {RAISED_UNTIL: RAISED.raised_until}}, 2, id="somebody's minimum"
        ),
    ],
)
async def test_what_is_not_ours_stays(bench: Bench, size: Any, expected: int) -> None:
    await raised(bench)
    bench.provider.size = GroupSize(max=4, desired=3, **size)
    bench.pools.leave(KEY)
    await bench.left()
    assert bench.provider.size.min == expected
    assert RAISED.raised_until not in bench.provider.size.tags.values()


@pytest.mark.parametrize("is_seen", [False, True])
async def test_a_raise_is_put_back_though_somebody_removed_its_mark(
    bench: Bench, is_seen: bool
) -> None:
    await raised(bench)
    bench.provider.size = GroupSize(min=3, max=9, desired=3)
    if is_seen:
        bench.clock[0] = module.READ_INTERVAL
        await bench.follow()
    bench.pools.leave(KEY)
    await bench.left()
    assert bench.provider.size == GroupSize(min=0, max=9, desired=3)


OF_POOL = {"min": 3, "max": 4, "until": RAISED.raised_until, "pool": GROUP.spec.provider.pool}


@pytest.mark.parametrize(
    ("wanted", "size", "expected"),
    [
        pytest.param({}, {"min": 3, "tags": {RAISED_UNTIL: RAISED.raised_until}}, 0, id="marked"),
        pytest.param({}, {"min": 3}, 0, id="its mark is gone"),
        pytest.param({}, {"min": 2}, 2, id="somebody's minimum"),
        pytest.param({}, {"min": 3, "tags": {RAISED_UNTIL: "another's"}}, 3, id="another group's"),
        pytest.param({"until": None}, {"min": 3}, 3, id="no raise"),
        pytest.param({"pool": "another"}, {"min": 3}, 3, id="a raise of another pool"),
    ],
)
async def test_a_raise_on_record_is_put_back_by_a_process_that_has_told_nothing(
    bench: Bench, wanted: Any, size: Any, expected: int
) -> None:
    """As one that has just started, or that finds the bounds changed by somebody."""
    bench.provider.size = GroupSize(max=4, desired=3, **size)
    status = {"wanted": {k: v for k, v in (OF_POOL | wanted).items() if v}}
    group = make_node_group(provider=GROUP.spec.provider.wire(), status=status)
    bench.pools.follow(KEY, group, None)
    await bench.done()
    bench.pools.leave(KEY)
    await bench.left()
    assert bench.provider.size.min == expected


async def test_a_minimum_that_is_not_raised_costs_no_call(bench: Bench) -> None:
    await bench.follow()
    await bench.follow(bounds(0))
    calls = list(bench.provider.calls)
    bench.pools.leave(KEY)
    await bench.left()
    assert bench.provider.calls == [*calls, "close"]


async def test_it_is_tried_for_a_while(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_failures, "FIRST_DELAY", 0.0)
    await raised(bench)
    bench.provider.failures = [Transient("503"), Transient("503")]
    bench.pools.leave(KEY)
    await bench.left()
    assert bench.provider.size.min == 0


async def test_the_end_of_the_process_is_not_the_end_of_a_group(bench: Bench) -> None:
    await raised(bench)
    await bench.pools.close()
    assert bench.provider.size.min == 3


async def test_a_group_that_is_made_anew_takes_its_pool_over_as_it_is(bench: Bench) -> None:
    await raised(bench)
    again = GROUP.but(metadata=GROUP.metadata.but(uid="another"))
    bench.pools.leave(KEY)
    bench.pools.follow(KEY, again, None)
    await bench.left()
    await bench.news.get()
    view = bench.pools.view(KEY, again)
    assert view is not None
    assert view.size == bench.provider.size
    assert bench.provider.size.min == 3
