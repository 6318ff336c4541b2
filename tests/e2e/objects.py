"""What the tests' users write: notebooks and manifests."""

import json
from typing import Any

from dev.gitserver.credentials import HOST

Object = dict[str, Any]

# A cell that waits for `touch /tmp/go` in its container, so that a test decides how long it runs.
WAIT = """\
import pathlib, time
deadline = time.monotonic() + 240
while not pathlib.Path("/tmp/go").exists():
    assert time.monotonic() < deadline, "nobody let this notebook go on"
    time.sleep(0.1)
"""


def code(source: str, *tags: str) -> Object:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {"tags": list(tags)},
        "outputs": [],
        "source": source,
    }


def markdown(source: str) -> Object:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def notebook(*cells: str | Object) -> str:
    """Return a notebook's file; plain strings are code."""
    numbered = [
        {**(code(cell) if isinstance(cell, str) else cell), "id": f"cell-{number}"}
        for number, cell in enumerate(cells)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    content = {"cells": numbered, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1)


HELLO = notebook(
    markdown("# Hello"),
    code('name: str = "nobody"\ncount: int = 1', "parameters"),
    'print(f"hello {name}", "again " * count)',
)
GATE = notebook("print('begun')", WAIT, "print('gone through')")


def repository_url(repository: str) -> str:
    return f"http://{HOST}/{repository}"


def project(
    name: str = "lab", *, repository: str = "", runtimes: list[Object] | None = None, **git: Any
) -> Object:
    source = {"url": repository_url(repository), "interval": "5s", **git}
    spec: Object = {"source": {"git": source}}
    if runtimes:
        spec["runtimes"] = runtimes
    return _manifest("Project", name, spec)


def workflow(
    name: str, *, notebook: str | None = None, project: str = "lab", **spec: Any
) -> Object:
    named = {"projectRef": {"name": project}, "notebook": notebook or f"{name}.ipynb"}
    return _manifest("Workflow", name, {**named, **spec})


def run(name: str, workflow: str | None = None, **spec: Any) -> Object:
    if workflow:
        spec["workflowRef"] = {"name": workflow}
    return _manifest("Run", name, spec)


def inline_run(name: str, notebook: str, *, project: str = "lab", **spec: Any) -> Object:
    return run(name, projectRef={"name": project}, notebook=notebook, **spec)


def secret(name: str, data: dict[str, str]) -> Object:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
    return {**body, "stringData": data}


def _manifest(kind: str, name: str, spec: Object) -> Object:
    return {
        "apiVersion": "labfunctions.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def condition(obj: Object | None, type: str = "") -> Object:
    """Return a condition of an object, or an empty one; the main one where none is named."""
    obj = obj or {}
    type = type or ("Succeeded" if obj.get("kind") == "Run" else "Ready")
    conditions = (obj.get("status") or {}).get("conditions") or []
    found: Object = next((c for c in conditions if c["type"] == type), {})
    return found


def printed(notebook: Object) -> str:
    """Return all that an executed notebook printed."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return "".join("".join(output.get("text", "")) for output in outputs)
