"""Manifests and sources as users write them."""

import json
from typing import Any

from .api import Object

API_VERSION = "labfunctions.io/v1alpha1"
IMAGE = "registry.test/analysis@sha256:" + "1" * 64
READY_MADE = {"name": "default", "image": IMAGE}
# The status of a Run of the past, with nothing left to do.
FINISHED = {
    "phase": "Succeeded",
    "observedGeneration": 1,
    "completionTime": "2026-01-01T00:00:00Z",
    "conditions": [
        {
            "type": "Succeeded",
            "status": "True",
            "reason": "Succeeded",
            "message": "3 of 3 cells ran",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        },
        {
            "type": "Recorded",
            "status": "True",
            "reason": "Stored",
            "message": "run.json is in the store",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        },
    ],
}


def project(namespace: str, url: str, name: str = "wine", **spec: Any) -> Object:
    """Return a Project with a ready-made image, or with what `spec` says."""
    git = {"url": url, "interval": "1s", **spec.pop("git", {})}
    return _object(
        "Project",
        namespace,
        name,
        {"source": {"git": git}, "runtimes": spec.pop("runtimes", [READY_MADE]), **spec},
    )


def sourceless(namespace: str, name: str = "wine") -> Object:
    """Return a Project that has nothing but a ready-made image."""
    return _object("Project", namespace, name, {"runtimes": [READY_MADE]})


def built_project(namespace: str, url: str, name: str = "wine", **spec: Any) -> Object:
    """Return a Project whose image is generated."""
    return project(namespace, url, name, runtimes=[{"name": "default"}], **spec)


def workflow(namespace: str, name: str = "analysis", **spec: Any) -> Object:
    return _object(
        "Workflow",
        namespace,
        name,
        {"projectRef": {"name": "wine"}, "notebook": "analysis.ipynb", **spec},
    )


def run(namespace: str, name: str = "first", **spec: Any) -> Object:
    """Return a Run of the Workflow `analysis`, or of what `spec` says."""
    inline = "notebook" in spec or "workflowRef" in spec
    base = {} if inline else {"workflowRef": {"name": "analysis"}}
    return _object("Run", namespace, name, {**base, **spec})


def inline_run(namespace: str, name: str = "first", **spec: Any) -> Object:
    """Return a Run that names Project and notebook itself."""
    return run(
        namespace,
        name,
        **{"projectRef": {"name": "wine"}, "notebook": "analysis.ipynb", **spec},
    )


def secret(namespace: str, name: str, **values: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": namespace, "name": name},
        "stringData": values,
    }


def notebook(parameters: str = "trees: int = 100") -> str:
    """Return a notebook with one cell of parameters and one of code."""
    cells = [
        _cell("parameters", parameters, tags=["parameters"]),
        _cell("work", "print(trees)"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps(
        {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    )


def _cell(id: str, source: str, tags: list[str] | None = None) -> Object:
    return {
        "cell_type": "code",
        "id": id,
        "metadata": {"tags": tags or []},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }


def _object(kind: str, namespace: str, name: str, spec: Object) -> Object:
    metadata = {"namespace": namespace, "name": name}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
