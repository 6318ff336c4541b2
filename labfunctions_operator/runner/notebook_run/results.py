"""The values that a notebook returns."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from labfunctions_operator.runner.notebook_run.notebook import source_of
from labfunctions_operator.runner.notebook_run.text import TYPE_NAMES, first_line

RESULT_MIME = "application/vnd.labfunctions.result+json"


def collect_results(cells: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """The values that cells displayed as results, later over earlier, and a note on the refused."""
    results: dict[str, Any] = {}
    refused = []
    for cell in cells:
        for output in cell.get("outputs") or []:
            data = output.get("data") or {}
            if RESULT_MIME not in data:
                continue
            problem = _result_problem(data[RESULT_MIME])
            if problem:
                refused.append(f"{problem}, in the cell ({first_line(source_of(cell))[:60]})")
            else:
                results.update(data[RESULT_MIME])
    more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
    return results, f"a displayed result was ignored: {refused[0]}{more}" if refused else ""


def _result_problem(content: Any) -> str:
    if not isinstance(content, dict):
        return f"it is no JSON object but of type {TYPE_NAMES.get(type(content), 'null')}"
    try:
        json.dumps(content, allow_nan=False)
    except ValueError:
        return "it holds NaN or infinity, which JSON does not know"
    return ""
