"""The Run of one tick of a Workflow's schedule."""

from datetime import datetime
from typing import Any

from labfunctions_operator.api import labels
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.api.types import Metadata
from labfunctions_operator.desired.names import owner_reference


def scheduled_run_name(workflow: str, tick: datetime) -> str:
    """Return the name of a tick's Run, as CronJob names its Jobs: a repeat is the same Run."""
    return f"{workflow}-{int(tick.timestamp()) // 60}"


def build_scheduled_run(workflow: Metadata, tick: datetime) -> dict[str, Any]:
    """Build the Run of a tick, which the Workflow owns and which knows its tick."""
    return {
        "apiVersion": labels.API_VERSION,
        "kind": "Run",
        "metadata": {
            "name": scheduled_run_name(workflow.name, tick),
            "namespace": workflow.namespace,
            "labels": {
                **labels.common(workflow.name, labels.COMPONENT_RUN),
                labels.WORKFLOW: workflow.name,
            },
            "annotations": {labels.SCHEDULED_AT_ANNOTATION: rfc3339(tick)},
            "ownerReferences": [owner_reference("Workflow", workflow)],
        },
        "spec": {"workflowRef": {"name": workflow.name}},
    }
