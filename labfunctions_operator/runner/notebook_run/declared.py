"""Which parameters a notebook declares."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

from labfunctions_operator.runner.notebook_run.notebook import (
    language_of,
    load_notebook,
    source_of,
    tags_of,
)
from labfunctions_operator.runner.notebook_run.text import TYPE_NAMES


class Declared(NamedTuple):
    """A parameter as the notebook's `parameters` cell declares it; an unknown type is empty."""

    name: str
    type: str
    default: str
    help: str


def declared_parameters(notebook_path: str | Path) -> list[Declared] | None:
    """The parameters that a notebook declares, None if its cell cannot be read (not Python).

    papermill's own inspection drops every assignment whose line holds a second `=`, such as
    `url = "http://host/?a=b"`; refusing unknown parameters needs the syntax tree.
    """
    notebook = load_notebook(notebook_path)
    sources = [source_of(cell) for cell in notebook["cells"] if "parameters" in tags_of(cell)]
    if not sources:
        return []
    if language_of(notebook) not in ("python", ""):
        return None
    source = re.sub(r"^[ \t]*[%!?].*$", "", sources[0], flags=re.MULTILINE)
    try:
        tree = ast.parse(source)
        comments = _comments(source)
    except (SyntaxError, ValueError, RecursionError, tokenize.TokenError):
        return None
    found: dict[str, Declared] = {}
    for statement in tree.body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            comment = comments.get(statement.end_lineno or 0, "")
            found.update((d.name, d) for d in _declared(statement, source, comment))
    return list(found.values())


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def _declared(statement: ast.Assign | ast.AnnAssign, source: str, comment: str) -> list[Declared]:
    annotation, targets = "", [getattr(statement, "target", None)]
    if isinstance(statement, ast.AnnAssign):
        annotation = ast.get_source_segment(source, statement.annotation) or ""
    else:
        targets = list(statement.targets)
    typed = re.match(r"type:\s*(\S+)\s*(.*)", comment)
    if typed:
        annotation, comment = annotation or typed.group(1), typed.group(2)
    value = statement.value
    default = (ast.get_source_segment(source, value) or "") if value else ""
    names: list[Declared] = []
    for target in targets:
        if isinstance(target, ast.Name):
            names.append(Declared(target.id, annotation or _inferred(value), default, comment))
        elif isinstance(target, (ast.Tuple, ast.List)):
            parts = [part.id for part in target.elts if isinstance(part, ast.Name)]
            names.extend(Declared(name, "", "", comment) for name in parts)
    return names


def _inferred(value: ast.expr | None) -> str:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        return value.func.id if value.func.id in TYPE_NAMES.values() else ""
    try:
        literal = ast.literal_eval(value) if value else None
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ""
    return "" if literal is None else type(literal).__name__
