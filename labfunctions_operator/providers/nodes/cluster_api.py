"""Cluster API: the annotations by which the cluster-autoscaler scales a set of machines."""

import re
from collections.abc import Mapping
from typing import Any, Protocol

from labfunctions_operator.api.labels import FIELD_MANAGER
from labfunctions_operator.errors import Drifted, NotFound
from labfunctions_operator.providers.nodes.hints import (
    ADOPTED,
    MAX_SIZE,
    MIN_SIZE,
    check_bounds,
    machine_annotations,
    own_notes,
)
from labfunctions_operator.reconcile.nodes import Bounds, GroupSize

Object = Mapping[str, Any]

_VERSIONS = ("cluster.x-k8s.io/v1beta2", "cluster.x-k8s.io/v1beta1")


class MachineObjects(Protocol):
    """What is needed of the API server; `kube.client` has it."""

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """Return one object, or raise NotFound."""

    async def apply(self, manifest: dict[str, Any], *, force: bool = True) -> dict[str, Any]:
        """Apply on the server; without force, raise Drifted for a field of another manager."""


class MachineGroup:
    """One MachineDeployment, MachinePool or MachineSet; its replicas are the autoscaler's.

    Bounds that someone else wrote are taken over once. Whoever changes them after that keeps them
    until the annotation `labfunctions.io/bounds` is removed.

    Args:
        objects: The API server that holds the object.
        kind: MachineDeployment, MachinePool or MachineSet.
        namespace: Of the object.
        name: Of the object.
    """

    def __init__(self, objects: MachineObjects, *, kind: str, namespace: str, name: str) -> None:
        self._objects = objects
        self._kind = kind
        self._namespace = namespace
        self._name = name
        self._version: str | None = None

    async def read(self) -> GroupSize:
        """Return the bounds as annotated, or zeros, and the replicas asked for."""
        return _size_of(await self._get())

    async def write(self, bounds: Bounds, seen: GroupSize) -> GroupSize:
        """Set the annotations, unless they are there."""
        current = await self._get()
        what = f"{self._kind} {self._namespace}/{self._name}"
        now = _size_of(current)
        check_bounds(what, bounds, now=now, seen=seen, size=_nodes_of(current))
        wanted = machine_annotations(bounds)
        annotations = _annotations(current)
        # Another manager may share a field with us; what we alone own goes when it is left out.
        if wanted.items() <= annotations.items() and _owned(current) <= wanted.keys():
            return now
        manifest = {
            "apiVersion": current["apiVersion"],
            "kind": self._kind,
            "metadata": {
                "namespace": self._namespace,
                "name": self._name,
                # Else the object would be made anew, if it has just been deleted.
                "uid": current["metadata"]["uid"],
                "annotations": wanted,
            },
        }
        try:
            return _size_of(await self._objects.apply(manifest, force=ADOPTED not in annotations))
        except Drifted as error:
            raise Drifted(f"{error}; it is ours again once annotation {ADOPTED} is gone") from error

    async def close(self) -> None:
        """Nothing is held: the client is shared."""

    async def _get(self) -> Object:
        for version in (self._version,) if self._version else _VERSIONS:
            try:
                found = await self._objects.get(version, self._kind, self._namespace, self._name)
            except NotFound:
                continue
            self._version = version
            return found
        self._version = None  # it may have gone with an upgrade of Cluster API
        raise NotFound(f"there is no {self._kind} {self._namespace}/{self._name}")


def _annotations(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def _size_of(obj: Object) -> GroupSize:
    annotations = _annotations(obj)
    return GroupSize(
        min=_number(annotations.get(MIN_SIZE)),
        max=_number(annotations.get(MAX_SIZE)),
        desired=obj.get("spec", {}).get("replicas"),
        tags=own_notes(annotations),
    )


def _nodes_of(obj: Object) -> int:
    asked = obj.get("spec", {}).get("replicas") or 0
    return max(asked, obj.get("status", {}).get("replicas") or 0)


def _number(text: str | None) -> int:
    return int(text) if text and re.fullmatch("[0-9]{1,9}", text) else 0


def _owned(obj: Object) -> set[str]:
    """Return the annotations that the API server holds for ours."""
    return {
        field.removeprefix("f:")
        for entry in obj["metadata"].get("managedFields") or ()
        if entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply"
        for field in entry.get("fieldsV1", {}).get("f:metadata", {}).get("f:annotations", {})
        if field != "."
    }
