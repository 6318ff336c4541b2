"""The Job of one attempt, and what its runner and courier are told."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from labfunctions_operator.api import labels
from labfunctions_operator.api.run import Outputs, Run, Snapshot
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.desired.names import env_literal, owner_reference, run_job_name
from labfunctions_operator.desired.run_pod import Env, build_run_pod
from labfunctions_operator.desired.scheduled_run import tick_of_name
from labfunctions_operator.settings import Settings

CHECKPOINT_SECONDS = 30
# A notebook has no checkpoint to go on from: autoscalers are asked to leave it where it is.
_EVICT_PROTECTION = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# What the runner and the courier are told.
RUNNER_CONFIG, RUNNER_JOB = "RUNNER_CONFIG", "RUNNER_JOB"
COURIER_CONFIG, COURIER_JOB = "COURIER_CONFIG", "COURIER_JOB"
# Linux starts no program with a variable of 128 KiB; what else the runner is told is in it, too.
PARAMETERS_LIMIT_BYTES = 100 * 1024


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What one attempt's courier may do: URLs signed for its own keys, and nothing else.

    Attributes:
        uploads: File name to presigned PUT URL.
        report: Where progress goes, signed for this attempt.
        renew: Where other URLs are to be had once the store takes these no longer; the same.
        outputs: Where the files will lie.
    """

    uploads: Mapping[str, str]
    report: str
    renew: str
    outputs: Outputs


def build_run_job(
    run: Run,
    snapshot: Snapshot,
    grant: Grant,
    settings: Settings,
    *,
    attempt: int,
    now: datetime,
) -> dict[str, Any]:
    """Build the Job of one attempt.

    Args:
        run: Its owner.
        snapshot: What is run; kept in an annotation, so that it is recorded with the Job in one
            write and a restart in between loses nothing.
        grant: The courier's rights.
        settings: The operator's.
        attempt: Counted from 1.
        now: The time that the notebook sees as NOW.
    """
    name, workflow = run.metadata.name, snapshot.workflow
    inject = {
        "WFID": workflow or "",
        "EXECID": name,
        "NOW": rfc3339(now),
        "PROJECT": snapshot.project,
        "ATTEMPT": attempt,
        "SCHEDULED_AT": snapshot.scheduled_at,
    }
    body = job_template(
        snapshot,
        {labels.RUN: name, labels.ATTEMPT: str(attempt)},
        settings,
        name=workflow or name,
        runner=[config_env(RUNNER_CONFIG, runner_config(snapshot, inject))],
        courier=[config_env(COURIER_CONFIG, courier_config(grant))],
    )
    annotations = body["metadata"]["annotations"]
    outputs = json.dumps(grant.outputs.wire(), sort_keys=True)
    is_tick = workflow is not None and tick_of_name(workflow, name) is not None
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": run_job_name(name, attempt, is_tick=is_tick),
            "namespace": run.metadata.namespace,
            "labels": body["metadata"]["labels"],
            "annotations": {**annotations, labels.OUTPUTS_ANNOTATION: outputs},
            "ownerReferences": [owner_reference("Run", run.metadata)],
        },
        "spec": body["spec"],
    }


def job_template(
    snapshot: Snapshot,
    own: Mapping[str, str],
    settings: Settings,
    *,
    name: str,
    runner: list[Env],
    courier: list[Env],
) -> dict[str, Any]:
    """Build labels, annotations and spec of a Job that runs a snapshot, whoever creates it.

    Args:
        snapshot: What is run.
        own: Labels that say which attempt it is.
        settings: The operator's.
        name: Of the application.
        runner: Variables that tell the runner what to do.
        courier: Variables that tell the courier what to do.
    """
    common = {
        **labels.common(name, labels.COMPONENT_RUN),
        labels.PROJECT: snapshot.project,
        **own,
        **({labels.WORKFLOW: snapshot.workflow} if snapshot.workflow else {}),
        **({labels.NODE_GROUP: snapshot.node_group} if snapshot.node_group else {}),
    }
    queue = {QUEUE_LABEL: snapshot.queue_name} if snapshot.queue_name else {}
    words = json.dumps(snapshot.wire(), sort_keys=True)
    return {
        "metadata": {
            "labels": {**common, **queue},
            "annotations": {labels.SNAPSHOT_ANNOTATION: words},
        },
        "spec": {
            "backoffLimit": 0,
            # Kueue admits a Job by taking this back.
            **({"suspend": True} if queue else {}),
            "template": {
                "metadata": {
                    "labels": dict(common),
                    **({} if snapshot.safe_to_evict else {"annotations": _EVICT_PROTECTION}),
                },
                "spec": build_run_pod(snapshot, settings, runner=runner, courier=courier),
            },
        },
    }


def runner_config(snapshot: Snapshot, inject: Mapping[str, Any]) -> dict[str, Any]:
    """Say what the runner is to run; `inject` are variables that every notebook gets."""
    return {
        "notebook": snapshot.notebook,
        "parameters": snapshot.parameters,
        "parametersPolicy": snapshot.parameters_policy or "Strict",
        "inject": dict(inject),
        "timeoutSeconds": snapshot.timeout_seconds,
        "cellTimeoutSeconds": snapshot.cell_timeout_seconds,
        "mask": _secret_names(snapshot.env),
    }


def courier_config(grant: Grant) -> dict[str, Any]:
    """Say what the courier of one attempt may do."""
    return {
        "uploads": dict(grant.uploads),
        "report": grant.report,
        "renew": grant.renew,
        "checkpointSeconds": CHECKPOINT_SECONDS,
    }


def parameters_size(parameters: Mapping[str, Any]) -> int:
    """Return the bytes that parameters take on their way, six for each character beyond ASCII."""
    return len(json.dumps(parameters))


def config_env(name: str, config: Mapping[str, Any]) -> Env:
    """Return a container's variable that holds JSON."""
    return {"name": name, "value": env_literal(json.dumps(config))}


def _secret_names(env: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of the variables whose values come from Secrets."""
    return [
        str(entry.get("name"))
        for entry in env
        if isinstance(source := entry.get("valueFrom"), Mapping) and source.get("secretKeyRef")
    ]
