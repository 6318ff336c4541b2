"""The Run of one tick: of a Workflow's schedule, or of a Backfill."""

import re
from datetime import UTC, datetime
from typing import Any

from labfunctions_operator.api import labels
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.api.types import Metadata
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.desired.names import owner_reference


def scheduled_run_name(maker: str, tick: datetime) -> str:
    """Return the name of a tick's Run, as CronJob names its Jobs: a repeat is the same Run."""
    return f"{maker}-{int(tick.timestamp()) // 60}"


def tick_of_name(workflow: str, name: str) -> datetime | None:
    """Return the tick that a Workflow's Run or Job is named by, None if it is not."""
    found = re.fullmatch(re.escape(workflow) + r"-([1-9][0-9]{7})", name)
    return datetime.fromtimestamp(int(found[1]) * 60, UTC) if found else None


def build_scheduled_run(workflow: Workflow, tick: datetime) -> dict[str, Any]:
    """Build the Run of a tick, which the Workflow owns and which knows its tick."""
    return _build("Workflow", workflow.metadata, workflow, tick)


def build_backfill_run(backfill: Metadata, workflow: Workflow, tick: datetime) -> dict[str, Any]:
    """Build the Run of a past tick, which the Backfill owns and which knows its tick."""
    run = _build("Backfill", backfill, workflow, tick)
    run["metadata"]["labels"][labels.BACKFILL] = backfill.name
    return run


def _build(kind: str, maker: Metadata, workflow: Workflow, tick: datetime) -> dict[str, Any]:
    name, zone = workflow.metadata.name, workflow.spec.time_zone
    return {
        "apiVersion": labels.API_VERSION,
        "kind": "Run",
        "metadata": {
            "name": scheduled_run_name(maker.name, tick),
            "namespace": maker.namespace,
            "labels": {
                **labels.common(name, labels.COMPONENT_RUN),
                labels.WORKFLOW: name,
            },
            "annotations": {
                labels.SCHEDULED_AT_ANNOTATION: rfc3339(tick),
                **({labels.TIME_ZONE_ANNOTATION: zone} if zone else {}),
            },
            "ownerReferences": [owner_reference(kind, maker)],
        },
        "spec": {"workflowRef": {"name": name}},
    }
