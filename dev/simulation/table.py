"""The comparison of policies, as docs/nodegroups.md shows it."""

import statistics
from pathlib import Path

from dev.simulation.days import POLICIES, Day, arrivals, simulate

PAGE = Path(__file__).parents[2] / "docs" / "nodegroups.md"
BEGIN, END = "<!-- simulation -->", "<!-- /simulation -->"
PRICE = 3.0
DAYS = 10


def compare() -> dict[str, list[Day]]:
    """Play the same days under each policy."""
    days = [arrivals(seed) for seed in range(DAYS)]
    return {policy: [simulate(runs, policy) for runs in days] for policy in POLICIES}


def table(results: dict[str, list[Day]]) -> str:
    """Return the comparison as Markdown, each column a mean over the days."""
    lines = [
        "| policy | wait p50 | wait p95 | node-hours a day | cost a day | for each Run |",
        "|---|---|---|---|---|---|",
    ]
    for policy, days in results.items():
        waits = sorted(w for day in days for w in day.waits)
        hours = statistics.mean(day.node_hours for day in days)
        runs = len(waits) / len(days)
        p50, p95 = (waits[int(len(waits) * q)] for q in (0.5, 0.95))
        cost = hours * PRICE
        lines.append(
            f"| {policy} | {p50:.0f} s | {p95:.0f} s | {hours:.1f} | {cost:.0f} "
            f"| {cost / runs:.2f} |"
        )
    return "\n".join(lines)
