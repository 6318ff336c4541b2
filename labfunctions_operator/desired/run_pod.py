"""The pod of one attempt: the notebook in the project's image, and a courier beside it."""

from collections.abc import Iterable, Mapping
from typing import Any

from labfunctions_operator.api.run import Snapshot
from labfunctions_operator.api.workflow import MASK_PREFIX, is_reserved
from labfunctions_operator.settings import Settings

FOLDER = "/labfunctions"
# How long a finished pod may go on trying to reach the store.
GRACE_SECONDS = 600
NOTEBOOK = "notebook"
COURIER = "courier"
# Any image will do that has Python with papermill, whatever Python is called there.
_START = (
    "for p in python python3; do command -v $p >/dev/null 2>&1 "
    f"&& exec $p {FOLDER}/bin/runner.pyz; done; echo 'no python in the image' >&2; exit 127"
)
# Said to the runner as well: an image, a ConfigMap or a Secret may have variables of these names.
_WHERE = {"LABFUNCTIONS_DIR": FOLDER, "TERMINATION_LOG": "/dev/termination-log"}
Env = dict[str, Any]


def build_run_pod(
    snapshot: Snapshot, settings: Settings, *, runner: list[Env], courier: list[Env]
) -> dict[str, Any]:
    """Build the spec of a pod that runs a snapshot.

    Args:
        snapshot: What is run.
        settings: The operator's.
        runner: Variables that tell the runner what to do.
        courier: Variables that tell the courier what to do.
    """
    scheduling = {
        "nodeSelector": snapshot.node_selector,
        "tolerations": snapshot.tolerations,
        "affinity": snapshot.affinity,
        "priorityClassName": snapshot.priority_class_name,
        "serviceAccountName": snapshot.service_account_name,
        "imagePullSecrets": [ref.wire() for ref in snapshot.image_pull_secrets],
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        # A token is there only for who asks for an identity.
        "automountServiceAccountToken": snapshot.service_account_name is not None,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": snapshot.user.uid,
            "runAsGroup": snapshot.user.gid,
            "fsGroup": snapshot.user.gid,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_courier(courier, settings)],
        "volumes": [
            {"name": "labfunctions-work", "emptyDir": {}},
            {"name": "labfunctions-tmp", "emptyDir": {}},
            {"name": "labfunctions-courier-tmp", "emptyDir": {}},
            *snapshot.volumes,
        ],
        **{key: value for key, value in scheduling.items() if value},
        "containers": [_notebook(snapshot, runner)],
    }


def _courier(env: list[Env], settings: Settings) -> dict[str, Any]:
    return {
        "name": COURIER,
        "image": settings.images.courier,
        "restartPolicy": "Always",
        "command": ["courier"],
        "env": env,
        "startupProbe": {
            "exec": {"command": ["test", "-f", f"{FOLDER}/ready"]},
            "periodSeconds": 1,
            "failureThreshold": 120,
        },
        "resources": {
            "requests": {"cpu": "10m", "memory": "64Mi"},
            "limits": {"memory": "1Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "labfunctions-work", "mountPath": FOLDER},
            {"name": "labfunctions-courier-tmp", "mountPath": "/tmp"},
        ],
    }


def _notebook(snapshot: Snapshot, config: list[Env]) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": NOTEBOOK,
        "image": snapshot.image,
        "command": ["/bin/sh", "-c", _START],
        "env": [
            *(e for e in snapshot.env if not is_reserved(e.get("name"))),
            *config,
            *({"name": name, "value": value} for name, value in _WHERE.items()),
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "labfunctions-work", "mountPath": FOLDER},
            {"name": "labfunctions-tmp", "mountPath": "/tmp"},
            *snapshot.volume_mounts,
        ],
    }
    if snapshot.env_from:
        container["envFrom"] = [*snapshot.env_from, *_to_mask(snapshot.env_from)]
    if resources := _resources(snapshot):
        container["resources"] = resources
    return container


def _to_mask(sources: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give the runner, under a prefix that it takes away, the values it must mask.

    The names inside a Secret are not known here: the operator reads no Secrets of notebooks.
    """
    return [{**source, "prefix": MASK_PREFIX} for source in sources if source.get("secretRef")]


def _resources(snapshot: Snapshot) -> dict[str, Any]:
    resources = {k: v for k, v in (snapshot.resources or {}).items() if v}
    if snapshot.gpu:
        # Extended resources are set as limits; the API server copies them to requests.
        own = resources.get("limits")
        gpus = snapshot.gpu.amounts
        resources["limits"] = {**own, **gpus} if isinstance(own, dict) else gpus
    return resources
