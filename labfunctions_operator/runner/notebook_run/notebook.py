"""A notebook as its author wrote it: its file, its cells and what they are called."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from labfunctions_operator.runner.notebook_run.errors import Refused
from labfunctions_operator.runner.notebook_run.text import did_you_mean, joined

ERROR_MARKER_TAG = "papermill-error-cell-tag"


def load_notebook(path: str | Path) -> dict[str, Any]:
    """Reads a notebook file, of any nbformat, as nbformat 4; raises Refused."""
    path = Path(path)
    if path.is_dir():
        raise Refused("NotebookInvalid", f"{path} is a directory, not a notebook")
    if not path.exists():
        raise Refused("NotebookNotFound", f"{path} does not exist{_did_you_mean_file(path)}")
    try:
        notebook = json.loads(path.read_text("utf-8"))
        if not isinstance(notebook, dict) or not isinstance(notebook.get("nbformat"), int):
            raise ValueError("it has no nbformat")
        if notebook["nbformat"] < 4:
            nbformat: Any = import_module("nbformat")
            notebook = nbformat.convert(nbformat.from_dict(notebook), 4)
        cells = notebook.get("cells")
        if not isinstance(cells, list) or not all(_is_cell(cell) for cell in cells):
            raise ValueError("its cells are not a list of cells")
    except Exception as error:
        raise Refused("NotebookInvalid", f"{path} is not a notebook: {error}") from error
    return dict(notebook)


def _is_cell(cell: Any) -> bool:
    return isinstance(cell, dict) and isinstance(cell.get("source"), (str, list))


def _did_you_mean_file(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix == ".ipynb"]
    except OSError:
        return ""
    return did_you_mean(path.name, names)


def source_of(cell: dict[str, Any]) -> str:
    """The text of a cell; nbformat has it as one or in lines."""
    return joined(cell.get("source", ""))


def tags_of(cell: dict[str, Any]) -> list[str]:
    """The tags of a cell."""
    return list((cell.get("metadata") or {}).get("tags") or [])


def kernelspec_of(notebook: dict[str, Any]) -> dict[str, Any]:
    """The kernel that a notebook asks for, as nbformat has it; empty if it asks for none."""
    return (notebook.get("metadata") or {}).get("kernelspec") or {}


def language_of(notebook: dict[str, Any]) -> str:
    """The language a notebook says that it is in; empty if it does not."""
    info = (notebook.get("metadata") or {}).get("language_info") or {}
    name = str(info.get("name") or kernelspec_of(notebook).get("language") or "").lower()
    return "python" if name == "ipython" else name


def cell_names(cells: list[dict[str, Any]]) -> list[str]:
    """What each cell is called: the heading right above it, or its own first line."""
    names = []
    heading = ""
    for cell in cells:
        source = source_of(cell)
        lines = [line.strip() for line in source.splitlines() if line.strip()] or [""]
        if cell.get("cell_type") == "markdown":
            own = re.search(r"^#{1,6}\s+(.+)$", source, re.MULTILINE)
            heading = own.group(1).strip() if own else heading
            names.append((own.group(1).strip() if own else lines[0])[:80])
        else:
            names.append((heading or lines[0].lstrip("#").strip())[:80])
            heading = ""
    return names


def source_indexes(cells: list[dict[str, Any]], *, injects: bool) -> list[int | None]:
    """For each cell that papermill executes, its index in the source, None for the injected one.

    papermill replaces an injected cell that an earlier execution left behind, else adds one after
    the parameters, else at the top; and it drops the error markers of an earlier execution.
    """
    tags = [tags_of(cell) for cell in cells]

    def first(tag: str) -> int | None:
        return next((index for index, of_cell in enumerate(tags) if tag in of_cell), None)

    order: list[int | None] = list(range(len(cells)))
    injected, parameters = first("injected-parameters"), first("parameters")
    if injects and injected is not None:
        order[injected] = None
    elif injects:
        order.insert(0 if parameters is None else parameters + 1, None)
    return [index for index in order if index is None or ERROR_MARKER_TAG not in tags[index]]
