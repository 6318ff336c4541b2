"""What the saved notebook says of its cells once the execution has ended."""

import copy
from typing import Any

from executions import code, markdown

from labfunctions_operator.runner.notebook_run.cell_state import settle


def killed_notebook() -> dict[str, Any]:
    """What papermill leaves when the kernel dies in the second cell."""
    return {
        "metadata": {"papermill": {"exception": None}},
        "cells": [
            code("a", status="completed", start_time="t", end_time="t", exception=False),
            code("b", status="running", start_time="t", end_time=None, exception=False),
            code("c", status="completed", start_time=None, end_time="t", exception=None),
            code("d", status="pending", start_time=None, end_time=None, exception=None),
            markdown("no metadata of papermill"),
        ],
    }


def test_no_cell_claims_to_have_completed_that_never_ran() -> None:
    notebook = killed_notebook()
    settle(notebook, reason="KernelDied", message="it died")
    states = [cell["metadata"].get("papermill", {}) for cell in notebook["cells"]]
    assert [state.get("status") for state in states] == [
        "completed",
        "failed",
        "pending",
        "pending",
        None,
    ]
    assert states[1]["exception"] is True
    assert states[2]["end_time"] is None
    assert notebook["metadata"]["papermill"]["exception"] is True
    assert notebook["metadata"]["labfunctions"] == {"reason": "KernelDied", "message": "it died"}
    assert notebook["cells"][1]["outputs"] == [
        {
            "output_type": "error",
            "ename": "KernelDied",
            "evalue": "it died",
            "traceback": ["KernelDied: it died"],
        }
    ]


def test_a_cell_that_raised_keeps_its_own_error_alone() -> None:
    notebook = {"metadata": {}, "cells": [code("a", status="failed", start_time="t")]}
    settle(notebook, reason="NotebookError", message="x")
    assert notebook["cells"][0]["outputs"] == []  # type: ignore[index]


def test_an_error_that_was_allowed_leaves_no_marker_of_papermill() -> None:
    notebook = {"metadata": {}, "cells": [code("m", "papermill-error-cell-tag"), code("a")]}
    failed = copy.deepcopy(notebook)
    settle(notebook, reason="Succeeded", message="")
    settle(failed, reason="NotebookError", message="")
    assert [len(n["cells"]) for n in (notebook, failed)] == [1, 2]
