"""What papermill's metadata says of the cells of an execution that has ended."""

from __future__ import annotations

from typing import Any

from labfunctions_operator.runner.notebook_run.notebook import ERROR_MARKER_TAG, tags_of


def settle(notebook: dict[str, Any], *, reason: str, message: str) -> None:
    """Makes the metadata of an execution that has ended tell the truth, in place.

    papermill calls cells completed that never started when the kernel dies; and whatever was
    running when the execution ended has failed. The reason is shown where it happened.
    """
    about = notebook.setdefault("metadata", {})
    if reason != "NotebookError":
        # papermill also marks errors that a cell's tag allows, and our own interrupt.
        cells = notebook["cells"]
        notebook["cells"] = [cell for cell in cells if ERROR_MARKER_TAG not in tags_of(cell)]
    for cell in notebook["cells"]:
        state = (cell.get("metadata") or {}).get("papermill")
        if not state:
            continue
        if state.get("status") == "completed" and not state.get("start_time"):
            state.update(status="pending", exception=None, end_time=None, duration=None)
        elif state.get("status") == "running":
            state.update(status="failed", exception=True)
        if reason != "Succeeded" and state.get("status") == "failed":
            about.setdefault("papermill", {})["exception"] = True
            _show_failure(cell, reason, message)
    about["labfunctions"] = {"reason": reason, "message": message}


def _show_failure(cell: dict[str, Any], reason: str, message: str) -> None:
    outputs = cell.setdefault("outputs", [])
    if cell.get("cell_type") == "code" and reason != "NotebookError":
        text = f"{reason}: {message}"
        error = {"output_type": "error", "ename": reason, "evalue": message, "traceback": [text]}
        # nbformat wants its own kind of mapping where the cell is one.
        outputs.append(type(cell)(error))
