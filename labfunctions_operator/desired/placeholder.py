"""Place-holders: pods that do nothing but ask an autoscaler for the room of Runs to come.

They have no controller: the operator alone says how many there are and which one goes, so that no
second loop brings one back that a Run has just pushed aside.
"""

from collections.abc import Sequence
from typing import Any

from labfunctions_operator.api import labels
from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.desired.names import owner_reference
from labfunctions_operator.settings import Settings

HOLDER = "placeholder"
BUFFER_API_VERSION = "autoscaling.x-k8s.io/v1beta1"
# Enough to be counted, too little to be missed.
_TOKEN_REQUESTS = {"cpu": "10m", "memory": "16Mi"}
_STAY = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
# Does not exist in any image: the image is pulled, and nothing of it ever runs.
_NOTHING = "/labfunctions/pull-only"


def placeholder_name(group: str, index: int) -> str:
    """Return the name of a group's place-holder."""
    return f"{group}-placeholder-{index}"


def build_placeholder(
    group: NodeGroup, index: int, images: Sequence[str], settings: Settings
) -> dict[str, Any]:
    """Build one place-holder.

    Args:
        group: Its owner.
        index: Its number, which makes its name.
        images: Pulled onto the node ahead of the Runs that use them.
        settings: The operator's.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": placeholder_name(group.metadata.name, index),
            "namespace": settings.namespace,
            "labels": _labels(group),
            "annotations": {**_STAY, labels.PULLS_ANNOTATION: " ".join(images)},
            "ownerReferences": [owner_reference("NodeGroup", group.metadata)],
        },
        "spec": _pod(group, images, settings),
    }


def build_buffer(group: NodeGroup, replicas: int, settings: Settings) -> list[dict[str, Any]]:
    """Build a CapacityBuffer, which an autoscaler reads in place of pods, and its template."""
    metadata = {
        "name": f"{group.metadata.name}-placeholder",
        "namespace": settings.namespace,
        "labels": _labels(group),
        "ownerReferences": [owner_reference("NodeGroup", group.metadata)],
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": metadata,
            "template": {
                "metadata": {"labels": _labels(group)},
                "spec": _pod(group, (), settings),
            },
        },
        {
            "apiVersion": BUFFER_API_VERSION,
            "kind": "CapacityBuffer",
            "metadata": metadata,
            "spec": {
                "provisioningStrategy": "buffer.x-k8s.io/active-capacity",
                "podTemplateRef": {"name": metadata["name"]},
                "replicas": replicas,
            },
        },
    ]


def _labels(group: NodeGroup) -> dict[str, str]:
    return {
        **labels.common(group.metadata.name, labels.COMPONENT_PLACEHOLDER),
        labels.NODE_GROUP: group.metadata.name,
    }


def _pod(group: NodeGroup, images: Sequence[str], settings: Settings) -> dict[str, Any]:
    spec = group.spec
    capacity = spec.provider.capacity
    slot = dict(capacity.resources) if capacity else {}
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "priorityClassName": settings.autoscaling.priority_class,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": dict(spec.labels),
        "tolerations": [{"operator": "Equal", **taint.wire()} for taint in spec.taints],
        "containers": [
            {
                # The courier's image, which every Run needs as well.
                **_container(HOLDER, settings.images.courier, ["sleep", "infinity"]),
                "resources": {
                    "requests": {**_TOKEN_REQUESTS, **slot, **spec.devices},
                    "limits": spec.devices,
                },
            },
            *(
                _container(f"pull-{number}", image, [_NOTHING])
                for number, image in enumerate(images)
            ),
        ],
    }
    if not slot:
        pod["affinity"] = {"podAntiAffinity": _alone_on_its_node(group)}
    return pod


def _container(name: str, image: str, command: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "command": command,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _alone_on_its_node(group: NodeGroup) -> dict[str, Any]:
    """Keep off nodes that have a Run or another place-holder of the group."""
    term = {
        "labelSelector": {"matchLabels": {labels.NODE_GROUP: group.metadata.name}},
        "namespaceSelector": {},
        "topologyKey": "kubernetes.io/hostname",
    }
    return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
