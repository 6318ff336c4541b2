"""Writes docs/metrics.md from the catalog."""

import sys
from pathlib import Path

from labfunctions_operator.metrics.catalog import (
    CATALOG,
    PROJECT_LIMIT,
    WORKFLOW_LIMIT,
    Definition,
)

_PAGE = """\
<!-- Generated from labfunctions_operator/metrics by `make generate`; do not edit. -->
# Metrics

The operator serves Prometheus metrics at `:9090/metrics`. The chart brings a ServiceMonitor, alerts
(PrometheusRule) and a Grafana dashboard, each off by default: `metrics.serviceMonitor.enabled`,
`metrics.prometheusRule.enabled`, `metrics.dashboard.enabled`.

## What is there

Gauges are read from the objects at each scrape: a restart of the operator changes none of them.

{gauges}

## What this process did

Counters and histograms begin at 0 with each start of the operator. Counted is what the process
itself writes into a status: what ended while it was away is counted once it is seen, and nothing is
counted again.

{counters}

Beside these there are the usual `process_*` metrics: memory, CPU, open files, start time.

## Labels

- `workflow` is empty for a Run without a Workflow. No label is ever a Run's name.
- At most {workflows} Workflows and {projects} Projects have series of their own at a time. Those
  beyond, and Runs of a Workflow that does not exist, share `_other` in their namespace: what is
  counted is their sum, and a result, a time or a lag is that of the worst of them. The series of a
  deleted object are dropped by the sweep, every ten minutes.
- `node_group` is empty for a Run that names no NodeGroup, `_other` for one that does not exist.
"""


def page() -> str:
    """Return the whole page."""
    return _PAGE.format(
        gauges=_table([d for d in CATALOG if d.type == "gauge"]),
        counters=_table([d for d in CATALOG if d.type != "gauge"]),
        workflows=WORKFLOW_LIMIT,
        projects=PROJECT_LIMIT,
    )


def _table(definitions: list[Definition]) -> str:
    rows = [
        f"| `{d.name}` | {d.type} | {', '.join(f'`{name}`' for name in d.labels)} | {d.help} |"
        for d in definitions
    ]
    return "\n".join(["| name | type | labels | meaning |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
