"""A Workflow's schedule as a native CronJob, whose pod is the one of any Run."""

from typing import Any

from labfunctions_operator.api import labels
from labfunctions_operator.api.run import Snapshot
from labfunctions_operator.api.types import Metadata
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.desired.names import owner_reference
from labfunctions_operator.desired.run_job import (
    CHECKPOINT_SECONDS,
    COURIER_CONFIG,
    COURIER_JOB,
    RUNNER_CONFIG,
    RUNNER_JOB,
    config_env,
    job_template,
    runner_config,
)
from labfunctions_operator.desired.run_pod import Env
from labfunctions_operator.settings import Settings

# A Job goes with its Run; the CronJob must not remove one whose verdict nobody has read.
KEEP_ALL = 2**31 - 1


def build_cron_job(
    workflow: Workflow, snapshot: Snapshot, claim: str, settings: Settings
) -> dict[str, Any]:
    """Build the CronJob that runs a snapshot at each tick.

    Args:
        workflow: Its owner, whose name it has, so that its Jobs are called what Runs are.
        snapshot: What is run.
        claim: Where the courier of each Job asks for what it may do.
        settings: The operator's.
    """
    meta: Metadata = workflow.metadata
    spec = workflow.spec
    inject = {"WFID": meta.name, "PROJECT": snapshot.project, "ATTEMPT": 1}
    deadline = spec.starting_deadline_seconds
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "labels": {
                **labels.common(meta.name, labels.COMPONENT_RUN),
                labels.PROJECT: snapshot.project,
                labels.WORKFLOW: meta.name,
                **({labels.NODE_GROUP: snapshot.node_group} if snapshot.node_group else {}),
            },
            "ownerReferences": [owner_reference("Workflow", meta)],
        },
        "spec": {
            "schedule": spec.schedule,
            "timeZone": spec.time_zone or "Etc/UTC",
            "concurrencyPolicy": spec.concurrency_policy,
            "suspend": False,
            **({} if deadline is None else {"startingDeadlineSeconds": deadline}),
            "successfulJobsHistoryLimit": KEEP_ALL,
            "failedJobsHistoryLimit": KEEP_ALL,
            "jobTemplate": job_template(
                snapshot,
                {labels.ATTEMPT: "1"},
                settings,
                name=meta.name,
                runner=[
                    config_env(
                        RUNNER_CONFIG, {**runner_config(snapshot, inject), "namedByJob": True}
                    ),
                    _name_of_job(RUNNER_JOB),
                ],
                courier=[
                    config_env(
                        COURIER_CONFIG, {"claim": claim, "checkpointSeconds": CHECKPOINT_SECONDS}
                    ),
                    _name_of_job(COURIER_JOB),
                ],
            ),
        },
    }


def _name_of_job(variable: str) -> Env:
    """Let the pod know the name of its Job, which its template cannot."""
    path = f"metadata.labels['{labels.JOB_NAME}']"
    return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}
