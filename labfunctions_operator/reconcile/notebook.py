"""Whether a notebook can be run with these parameters, as far as its source tells."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from labfunctions_operator.desired.run_job import PARAMETERS_LIMIT_BYTES, parameters_size
from labfunctions_operator.reconcile.plan import Problem
from labfunctions_operator.reconcile.source import SourceSnapshot
from labfunctions_operator.runner.notebook_run.parameters import check_parameters

# All that `check_notebook` may say.
NOTEBOOK_REASONS = frozenset({"NotebookNotFound", "NotebookInvalid", "ParametersInvalid"})


def check_size(parameters: Mapping[str, Any]) -> Problem | None:
    """Return what keeps parameters from reaching any notebook: their size in bytes."""
    size = parameters_size(parameters)
    if size <= PARAMETERS_LIMIT_BYTES:
        return None
    return Problem(
        reason="ParametersInvalid",
        message=f"spec.parameters: {size} bytes, at most {PARAMETERS_LIMIT_BYTES}",
    )


def check_notebook(
    source: SourceSnapshot, path: str, parameters: Mapping[str, Any], policy: str | None
) -> Problem | None:
    """Return the first thing that would keep the notebook from running, if there is one."""
    notebook = source.notebooks.get(path)
    if notebook is None:
        close = get_close_matches(path, source.notebooks, n=1)
        hint = f"; did you mean {close[0]}?" if close else _others(source)
        return Problem(
            reason="NotebookNotFound",
            message=f"{path} is not in the source at {source.commit[:12]}{hint}",
        )
    if notebook.error:
        return Problem(reason="NotebookInvalid", message=f"{path}: {notebook.error}")
    declared = None if notebook.declared is None else list(notebook.declared)
    errors = check_parameters(declared, dict(parameters), policy or "Strict")
    if errors:
        return Problem(reason="ParametersInvalid", message="; ".join(errors))
    return None


def _others(source: SourceSnapshot) -> str:
    names = sorted(source.notebooks)
    if not names:
        return ", which has no notebooks"
    more = ", …" if len(names) > 5 else ""
    return f"; it has {', '.join(names[:5])}{more}"
