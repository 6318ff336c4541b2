"""Whether given parameters fit a notebook, and as what they reach it."""

from __future__ import annotations

import ast
import contextlib
import json
import keyword
import math
from typing import Any

from labfunctions_operator.runner.notebook_run.declared import Declared
from labfunctions_operator.runner.notebook_run.text import TYPE_NAMES, did_you_mean

INJECTED = frozenset(["WFID", "EXECID", "NOW", "PROJECT", "ATTEMPT", "SCHEDULED_AT"])
# What JSON has no numbers for, as text.
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_ACCEPTS = {
    "bool": ["bool"],
    "int": ["int"],
    "float": ["int", "float"],
    "str": ["str"],
    **{name: ["list"] for name in ("list", "List", "Sequence", "Iterable")},
    **{name: ["dict"] for name in ("dict", "Dict", "Mapping")},
    "None": ["None"],
}


def check_parameters(
    declared: list[Declared] | None, given: dict[str, Any], policy: str
) -> list[str]:
    """What is wrong with the given parameters, a line for each; no line if they fit.

    Args:
        declared: what the notebook declares; None if that cannot be known: anything fits.
        given: the user's values by name.
        policy: Strict refuses what the notebook does not declare, or with another type; Permissive
            refuses only what no notebook can take.
    """
    by_name = {parameter.name: parameter for parameter in declared or []}
    problems = []
    for name, value in given.items():
        if not name.replace(".", "_").isidentifier() or keyword.iskeyword(name):
            problems.append(f"parameters.{name}: is not a name that a notebook can assign to")
        elif policy == "Permissive":
            continue
        elif name in by_name:
            problems.extend(_type_problem(by_name[name], value))
        elif declared is not None and name not in INJECTED:
            problems.append(f"parameters.{name}: {_unknown(name, list(by_name))}")
    return problems


def _unknown(name: str, known: list[str]) -> str:
    if not known:
        return 'the notebook declares no parameters (an assignment in a cell tagged "parameters")'
    listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return (
        f"the notebook declares no such parameter; it declares: {listed}{did_you_mean(name, known)}"
    )


def _type_problem(parameter: Declared, value: Any) -> list[str]:
    accepted = _accepted_text(parameter.type) if parameter.type else None
    if accepted is None or (value is None and parameter.default == "None"):
        return []
    if _not_finite(accepted, value) is not None:
        return []
    got = "None" if value is None else TYPE_NAMES.get(type(value), "")
    if got in accepted:
        return []
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    what = "null" if value is None else f"{got} {shown}"
    return [f"parameters.{parameter.name}: expected {parameter.type}, got {what}"]


def as_declared(declared: list[Declared] | None, given: dict[str, Any]) -> dict[str, Any]:
    """The given values, with floats where the notebook declares them.

    JSON writes no NaN and no infinity, and on its way through Kubernetes 1.0 becomes 1.
    """
    by_name = {parameter.name: parameter for parameter in declared or []}
    return {
        name: _as_float(by_name[name], value) if name in by_name else value
        for name, value in given.items()
    }


def _as_float(parameter: Declared, value: Any) -> Any:
    if type(value) is int and parameter.type == "float":
        with contextlib.suppress(OverflowError):
            return float(value)
    number = _not_finite(_accepted_text(parameter.type), value)
    return value if number is None else number


def _not_finite(accepted: frozenset[str] | None, value: Any) -> float | None:
    if accepted is None or "float" not in accepted or "str" in accepted:
        return None
    return _NOT_FINITE.get(value) if isinstance(value, str) else None


def _accepted(annotation: ast.AST) -> frozenset[str] | None:
    """The JSON types an annotation admits, None if it cannot be said."""
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _union([annotation.left, annotation.right])
    if isinstance(annotation, ast.Constant):
        return _accepted_text(annotation.value) if annotation.value else frozenset(["None"])
    if isinstance(annotation, ast.Subscript):
        inner: Any = annotation.slice
        inner = inner.value if type(inner).__name__ == "Index" else inner
        generic = _name(annotation.value)
        if generic == "Optional":
            return _union([inner, ast.Constant(value=None)])
        if generic == "Union":
            return _union(inner.elts if isinstance(inner, ast.Tuple) else [inner])
        annotation = annotation.value
    names = _ACCEPTS.get(_name(annotation))
    return frozenset(names) if names else None


def _union(members: list[ast.expr]) -> frozenset[str] | None:
    sets = [_accepted(member) for member in members]
    known: list[frozenset[str]] = [members for members in sets if members is not None]
    return frozenset().union(*known) if len(known) == len(sets) else None


def _accepted_text(text: Any) -> frozenset[str] | None:
    try:
        return _accepted(ast.parse(str(text), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
