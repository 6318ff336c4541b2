"""Kubernetes Events about our objects, as `kubectl describe` shows them."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from labfunctions_operator.reconcile.plan import Event

COMPONENT = "labfunctions-operator"
MESSAGE_LIMIT = 1024
# Where Events of cluster-scoped objects live.
EVENTS_OF_CLUSTER = "default"


def build_event(obj: Mapping[str, Any], event: Event, now: datetime) -> dict[str, Any]:
    """Return a core Event, whose name is the same for a repeat about one version of an object.

    Core rather than events.k8s.io, as `kubectl describe` shows its age and count in full.
    """
    metadata = obj["metadata"]
    version = metadata["resourceVersion"]
    identity = "\0".join((metadata["uid"], version, event.type, event.reason, event.message))
    suffix = hashlib.sha256(identity.encode()).hexdigest()[:16]
    timestamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    involved = {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "resourceVersion": version,
    }
    if "namespace" in metadata:
        involved["namespace"] = metadata["namespace"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{suffix}",
            "namespace": metadata.get("namespace", EVENTS_OF_CLUSTER),
        },
        "involvedObject": involved,
        "type": event.type,
        "reason": event.reason,
        "message": _shorten(event.message),
        "count": 1,
        "firstTimestamp": timestamp,
        "lastTimestamp": timestamp,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
    }


def _shorten(message: str) -> str:
    encoded = message.encode()
    if len(encoded) <= MESSAGE_LIMIT:
        return message
    return encoded[: MESSAGE_LIMIT - 3].decode(errors="ignore") + "…"
