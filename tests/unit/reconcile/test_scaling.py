"""How many nodes a group should have."""

from typing import Any

import pytest
from objects import at, make_node_group, stamp

from labfunctions_operator.api.nodegroup import Decision, NodeGroupSpec
from labfunctions_operator.reconcile.scaling import Load, Node, Size, size_for

HOUR = 3600


def spec_of(**spec: Any) -> NodeGroupSpec:
    return make_node_group(**spec).spec


def nodes(*, busy: int = 0, idle: int = 0, idle_for: float = HOUR, awaited: bool = False) -> Any:
    """Some nodes, the idle ones for that many seconds."""
    return [
        Node(
            name=f"node-{n}",
            runs=int(n < busy),
            idle_since=at(-idle_for),
            is_awaited=awaited and n >= busy,
        )
        for n in range(busy + idle)
    ]


def decided(
    spec: NodeGroupSpec,
    load: Load,
    *,
    desired: int | None = None,
    last: tuple[float, int, int] | None = None,
) -> Size:
    decision = None
    if last:
        when, before, after = last
        decision = Decision(at=stamp(when), from_size=before, to=after, why="")
    return size_for(spec, load, desired=desired, last=decision, now=at(0))


# LabFunctions decided each of these wrongly.


def test_an_idle_node_with_an_empty_queue_at_min_and_max_of_one_stays() -> None:
    size = decided(spec_of(min=1, max=1), Load(nodes=nodes(idle=1)), desired=1)
    assert size.desired == 1


def test_three_busy_nodes_at_a_max_of_one_lose_nobody() -> None:
    size = decided(spec_of(min=0, max=1), Load(nodes=nodes(busy=3)), desired=3)
    assert (size.desired, size.releasable) == (1, ())


def test_an_idle_node_with_five_queued_runs_stays_and_gets_company() -> None:
    load = Load(nodes=nodes(idle=1, awaited=True), pending=5)
    size = decided(spec_of(), load, desired=1)
    assert (size.desired, size.releasable) == (5, ())


def test_a_hundred_queued_runs_at_one_node_fill_the_group_and_no_more() -> None:
    size = decided(spec_of(max=10), Load(nodes=nodes(busy=1), pending=100), desired=1)
    assert (size.desired, size.need) == (10, 101)


def test_a_decrease_by_three_takes_idle_nodes_only() -> None:
    spec = spec_of(policy={"steps": {"decreaseBy": 3}})
    size = decided(spec, Load(nodes=nodes(busy=3, idle=2)), desired=5)
    assert size.desired == 3
    assert size.releasable == ("node-3", "node-4")
    size = decided(spec, Load(nodes=nodes(busy=1, idle=4)), desired=5)
    assert size.desired == 2


@pytest.mark.parametrize(
    ("spec", "load", "desired", "expected"),
    [
        pytest.param({}, {"pending": 3}, 0, 3, id="a node for each waiting run"),
        pytest.param(
            {"queue": {"runsPerNode": 4}}, {"pending": 9}, 0, 3, id="runs that share a node"
        ),
        pytest.param({"queue": {"maxStep": 2}}, {"pending": 9}, 1, 3, id="no more than a step"),
        pytest.param({"min": 2}, {}, 0, 2, id="the minimum without any run"),
        pytest.param({"max": 4}, {"nodes": nodes(busy=2), "pending": 5}, 2, 4, id="the maximum"),
        pytest.param({"max": 3}, {"nodes": nodes(idle=5, idle_for=60)}, 5, 3, id="a lower maximum"),
        pytest.param({}, {"nodes": nodes(idle=2, idle_for=60)}, 2, 2, id="idle for too short"),
        pytest.param({}, {"nodes": nodes(idle=2)}, 2, 0, id="idle for long enough"),
        pytest.param({}, {"nodes": nodes(busy=1, idle=2)}, 3, 1, id="what is busy stays"),
        pytest.param({}, {"ahead": 2}, 0, 2, id="runs that are due soon"),
        pytest.param(
            {"queue": {"scaleUpAt": 5}},
            {"nodes": nodes(busy=1), "pending": 4},
            1,
            1,
            id="a short queue waits for the busy node",
        ),
        pytest.param(
            {"queue": {"scaleUpAt": 5}}, {"pending": 1}, 0, 1, id="a short queue without a node"
        ),
        pytest.param({}, {"pending": 0}, 4, 0, id="nodes that never came are not waited for"),
        pytest.param({}, {"nodes": nodes(idle=2)}, None, 0, id="seen for the first time"),
    ],
)
def test_size_follows_demand(spec: Any, load: Any, desired: int | None, expected: int) -> None:
    assert decided(spec_of(**spec), Load(**load), desired=desired).desired == expected


@pytest.mark.parametrize(
    ("steps", "load", "desired", "expected"),
    [
        pytest.param({"itemsGt": 10, "increaseBy": 2}, {"pending": 11}, 0, 2, id="a long queue"),
        pytest.param({"itemsGt": 10}, {"pending": 3}, 0, 1, id="a short queue and no node"),
        pytest.param(
            {"itemsGt": 10},
            {"nodes": nodes(busy=1), "pending": 3},
            1,
            1,
            id="a short queue and a busy node",
        ),
        pytest.param(
            {"itemsGt": 2, "increaseBy": 3},
            {"nodes": nodes(busy=1), "pending": 9},
            4,
            4,
            id="the last step has not arrived",
        ),
        pytest.param(
            {"itemsGt": 2, "increaseBy": 3},
            {"nodes": nodes(busy=4), "pending": 9},
            4,
            7,
            id="the last step has arrived",
        ),
        pytest.param({"idleTimeGt": "30m"}, {"nodes": nodes(idle=2)}, 2, 1, id="idle for longer"),
        pytest.param({"idleTimeGt": "2h"}, {"nodes": nodes(idle=2)}, 2, 2, id="idle for shorter"),
        pytest.param(
            {"itemsLt": 5, "itemsGt": 9},
            {"nodes": nodes(busy=1, idle=1), "pending": 5},
            2,
            2,
            id="between the bounds nothing moves",
        ),
    ],
)
def test_size_follows_steps(steps: Any, load: Any, desired: int, expected: int) -> None:
    spec = spec_of(policy={"steps": steps})
    assert decided(spec, Load(**load), desired=desired).desired == expected


def test_a_step_up_stands_until_its_cooldown_is_over() -> None:
    spec = spec_of(cooldown={"up": "60s"})
    load = Load(nodes=nodes(busy=1), pending=5)
    early = decided(spec, load, desired=1, last=(-59, 0, 1))
    assert (early.desired, early.look_again) == (1, at(1))
    assert decided(spec, load, desired=1, last=(-60, 0, 1)).desired == 6
    assert decided(spec, load, desired=1, last=(-1, 4, 1)).desired == 6, "after a step down, none"


def test_any_decision_stands_before_nodes_go() -> None:
    spec = spec_of(cooldown={"down": "5m"})
    load = Load(nodes=nodes(idle=3))
    for last in ((-299, 0, 3), (-299, 5, 3)):
        early = decided(spec, load, desired=3, last=last)
        assert (early.desired, early.look_again) == (3, at(1))
    assert decided(spec, load, desired=3, last=(-300, 0, 3)).desired == 0


def test_the_next_look_is_when_a_node_has_been_idle_for_long_enough() -> None:
    size = decided(spec_of(), Load(nodes=nodes(idle=1, idle_for=540)), desired=1)
    assert (size.desired, size.look_again) == (1, at(60))


def test_a_node_that_a_waiting_run_fits_does_not_go() -> None:
    load = Load(nodes=nodes(idle=3, awaited=True), pending=1)
    size = decided(spec_of(), load, desired=3)
    assert (size.desired, size.releasable) == (3, ())


# The tests' clock shows 12:00 UTC on a Thursday.
@pytest.mark.parametrize(
    ("warm", "expected", "seconds"),
    [
        pytest.param({"schedule": "0 12 * * *", "duration": "1h"}, 2, 3600, id="begins now"),
        pytest.param({"schedule": "30 11 * * *", "duration": "1h"}, 2, 1800, id="began before"),
        pytest.param({"schedule": "0 11 * * *", "duration": "1h"}, 0, 23 * 3600, id="just ended"),
        pytest.param({"schedule": "1 12 * * *", "duration": "1h"}, 0, 60, id="begins soon"),
        pytest.param(
            {"schedule": "0 13 * * 4", "timeZone": "Europe/Berlin", "duration": "1h"},
            2,
            3600,
            id="in a time zone",
        ),
    ],
)
def test_a_warm_window_is_a_minimum_for_a_while(warm: Any, expected: int, seconds: int) -> None:
    size = decided(spec_of(warm=[{"min": 2, **warm}]), Load(), desired=0)
    assert size.desired == expected
    assert size.look_again == at(seconds)


def test_the_highest_of_two_warm_windows_counts() -> None:
    warm = [
        {"schedule": "0 11 * * *", "duration": "4h", "min": 3},
        {"schedule": "0 12 * * *", "duration": "1h", "min": 2},
    ]
    size = decided(spec_of(warm=warm), Load(), desired=0)
    assert (size.desired, size.floor.until) == (3, at(3 * 3600))
    assert size.why == "3 kept warm by '0 11 * * *'"


def test_bounds_hold_during_a_cooldown() -> None:
    spec = spec_of(min=2, max=4, cooldown={"up": "1h", "down": "1h"})
    assert decided(spec, Load(), desired=0, last=(-1, 5, 0)).desired == 2
    assert decided(spec, Load(), desired=9, last=(-1, 0, 9)).desired == 4
