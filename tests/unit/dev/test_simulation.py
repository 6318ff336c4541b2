from functools import cache

import pytest

from dev.simulation import table
from dev.simulation.days import DAY, MAX_NODES, POLICIES, Day, arrivals, simulate

# Thousands of decisions, on a machine that may have other things to do.

MORNING = 10 * 3600
RUNS = [(at, seconds) for at, seconds in arrivals(1) if at < MORNING - 3600]


@cache
def morning(policy: str) -> Day:
    return simulate(RUNS, policy, until=MORNING)


def test_a_day_is_the_same_each_time() -> None:
    assert arrivals(1) == arrivals(1)
    assert arrivals(1) != arrivals(2)
    assert all(at < DAY for at, _ in arrivals(1))


@pytest.mark.parametrize("policy", POLICIES)
def test_each_run_gets_a_node_once_and_the_limit_holds(policy: str) -> None:
    day = morning(policy)
    assert len(day.waits) == len(RUNS)
    assert max(day.nodes) <= MAX_NODES
    assert day.queue[-1] == 0
    assert sum(day.nodes) * 10 / 3600 == pytest.approx(day.node_hours, abs=0.5)


def test_what_is_known_ahead_shortens_the_wait() -> None:
    without, with_warmth = morning("demand"), morning("demand, warm")
    assert sum(with_warmth.waits) < sum(without.waits) / 2


def test_the_documentation_shows_what_the_code_gives() -> None:
    """If it does not: `make simulate`, and read what the page says of the table."""
    _, _, rest = table.PAGE.read_text().partition(table.BEGIN)
    shown, _, _ = rest.partition(table.END)
    assert shown.strip() == table.table(table.compare())
