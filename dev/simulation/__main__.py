"""`make simulate`: writes the table and the plot of docs/nodegroups.md."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from dev.simulation.days import DAY, STEP, Day
from dev.simulation.table import BEGIN, END, PAGE, compare, table

PLOT = PAGE.with_suffix(".svg")
# One point for every five minutes.
DRAWN = 300 // STEP


def main() -> None:
    """Simulate, and write the results into the documentation."""
    results = compare()
    shown = table(results)
    print(shown)
    plot(results, PLOT)
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n{shown}\n{END}{tail}")


def plot(results: dict[str, list[Day]], path: Path) -> None:
    """Draw nodes and queue over the first day."""
    mpl.rcParams |= {"svg.hashsalt": "labfunctions", "svg.fonttype": "none", "font.size": 9}
    figure, axes = plt.subplots(
        len(results), 1, figsize=(9, 7), sharex=True, sharey=True, layout="constrained"
    )
    hours = [n * STEP / 3600 for n in range(DAY // STEP)][::DRAWN]
    for axis, (policy, days) in zip(axes, results.items(), strict=True):
        axis.fill_between(hours, days[0].nodes[::DRAWN], step="post", alpha=0.35, label="nodes")
        axis.step(hours, days[0].queue[::DRAWN], where="post", color="C3", label="Runs that wait")
        axis.set_title(policy, loc="left", fontsize=9)
        axis.set_xlim(0, 24)
    axes[0].legend(loc="upper right", frameon=False)
    axes[-1].set_xlabel("hour of the day")
    axes[-1].set_xticks(range(0, 25, 3))
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
