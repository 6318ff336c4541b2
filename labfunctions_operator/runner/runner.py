"""Executes one notebook with papermill and says exactly how it ended.

This file travels alone: the courier copies it into the pod, where the project's image runs it with
whatever Python (3.8 or later) and papermill (2.4 or later) it has. Hence one file, nothing but the
standard library at import, and no syntax or function that Python 3.8 lacks.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import ast
import asyncio
import contextlib
import difflib
import hashlib
import html
import io
import json
import keyword
import math
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tokenize
from base64 import b64encode
from collections.abc import Iterable, Iterator, MutableMapping
from importlib import import_module, metadata
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TextIO
from urllib.parse import quote, quote_plus

EXIT_CODES = {
    "Succeeded": 0,
    "NotebookError": 1,
    "ParametersInvalid": 64,
    "NotebookNotFound": 65,
    "NotebookInvalid": 65,
    "RunnerMissing": 69,
    "InternalError": 70,
    "TimedOut": 124,
    "CellTimedOut": 124,
    "OutOfMemory": 137,
    "KernelDied": 138,
    "Cancelled": 143,
}
TERMINATION_LIMIT = 4000
RESULT_LIMIT = 64 * 1024
AUTOSAVE_SECONDS = 5
KERNEL_START_SECONDS = 120
TICK_SECONDS = 0.2
INTERRUPT_GRACE_SECONDS = 5
KILL_GRACE_SECONDS = 10
ERROR_MARKER_TAG = "papermill-error-cell-tag"
RESULT_MIME = "application/vnd.labfunctions.result+json"
# A kernel says so at every start; its sockets never leave the pod.
KERNEL_NOTICE = "Kernel is running over TCP without encryption"
# What jupyter_client says of a kernel that takes longer than it may.
KERNEL_NOT_READY = "Kernel didn't respond in"
MASK_PREFIX = "LABFUNCTIONS_MASK_"
MASKED = "[masked]"
# Shorter ones stand everywhere by chance.
SHORTEST_SECRET = 4
SHORTEST_LINE = 12
SHORTEST_BASE64 = 8


class Refused(Exception):
    """The notebook cannot be executed, for a reason the user can mend."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Stopped(Exception):
    """Nothing more is to be executed: the run was cancelled or ran out of time."""


# --- the notebook as its author wrote it ---------------------------------------------------------


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
    return _did_you_mean(path.name, names)


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def _source(cell: dict[str, Any]) -> str:
    return _joined(cell.get("source", ""))


def _tags(cell: dict[str, Any]) -> list[str]:
    return list((cell.get("metadata") or {}).get("tags") or [])


def _kernelspec(notebook: dict[str, Any]) -> dict[str, Any]:
    return (notebook.get("metadata") or {}).get("kernelspec") or {}


def _language(notebook: dict[str, Any]) -> str:
    """The language a notebook says that it is in; empty if it does not."""
    info = (notebook.get("metadata") or {}).get("language_info") or {}
    name = str(info.get("name") or _kernelspec(notebook).get("language") or "").lower()
    return "python" if name == "ipython" else name


def first_line(source: str) -> str:
    """The first line of a cell that does something, or its first line at all."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    code = [line for line in lines if not line.startswith("#")]
    return (code or lines or [""])[0][:200]


def cell_names(cells: list[dict[str, Any]]) -> list[str]:
    """What each cell is called: the heading right above it, or its own first line."""
    names = []
    heading = ""
    for cell in cells:
        source = _source(cell)
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
    tags = [_tags(cell) for cell in cells]

    def first(tag: str) -> int | None:
        return next((index for index, of_cell in enumerate(tags) if tag in of_cell), None)

    order: list[int | None] = list(range(len(cells)))
    injected, parameters = first("injected-parameters"), first("parameters")
    if injects and injected is not None:
        order[injected] = None
    elif injects:
        order.insert(0 if parameters is None else parameters + 1, None)
    return [index for index in order if index is None or ERROR_MARKER_TAG not in tags[index]]


# --- parameters ----------------------------------------------------------------------------------


class Declared(NamedTuple):
    """A parameter as the notebook's `parameters` cell declares it; an unknown type is empty."""

    name: str
    type: str
    default: str
    help: str


_TYPES = {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "dict"}
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


def declared_parameters(notebook_path: str | Path) -> list[Declared] | None:
    """The parameters that a notebook declares, None if its cell cannot be read (not Python).

    papermill's own inspection drops every assignment whose line holds a second `=`, such as
    `url = "http://host/?a=b"`; refusing unknown parameters needs the syntax tree.
    """
    notebook = load_notebook(notebook_path)
    sources = [_source(cell) for cell in notebook["cells"] if "parameters" in _tags(cell)]
    if not sources:
        return []
    if _language(notebook) not in ("python", ""):
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
        return value.func.id if value.func.id in _TYPES.values() else ""
    try:
        literal = ast.literal_eval(value) if value else None
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ""
    return "" if literal is None else type(literal).__name__


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


INJECTED = frozenset(["WFID", "EXECID", "NOW", "PROJECT", "ATTEMPT", "SCHEDULED_AT"])


def _unknown(name: str, known: list[str]) -> str:
    if not known:
        return 'the notebook declares no parameters (an assignment in a cell tagged "parameters")'
    listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return (
        f"the notebook declares no such parameter; it declares: {listed}"
        f"{_did_you_mean(name, known)}"
    )


def _type_problem(parameter: Declared, value: Any) -> list[str]:
    accepted = _accepted_text(parameter.type) if parameter.type else None
    if accepted is None or (value is None and parameter.default == "None"):
        return []
    if _not_finite(accepted, value) is not None:
        return []
    got = "None" if value is None else _TYPES.get(type(value), "")
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


# --- secrets -------------------------------------------------------------------------------------


def take_secrets(environment: MutableMapping[str, str], names: Iterable[str]) -> list[str]:
    """The values of the variables that hold secrets.

    Takes away the prefixed copies, which are there for the runner alone: they tell it the values
    of whole Secrets, whose keys the operator does not know.
    """
    copies = [name for name in environment if name.startswith(MASK_PREFIX)]
    values = [environment[name] for name in names if name in environment]
    return values + [environment.pop(name) for name in copies]


def escapes(text: str) -> set[str]:
    """A text as it stands in the literals, JSON and HTML that a notebook prints."""
    escaped = html.escape(text)
    return {
        text,
        repr(text)[1:-1],
        # Beside both kinds of quotes, repr escapes the single ones.
        repr("'\"" + text)[4:-1],
        repr(_bytes(text))[2:-1],
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        escaped,
        html.escape(text, quote=False),
        escaped.replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
    }


def encodings(text: str) -> set[str]:
    """A text URL-quoted, and in base64, alone or amid another text (as in `user:password`)."""
    raw = _bytes(text)
    alone = b64encode(raw).decode()
    found = {quote(raw, safe=""), quote(raw), quote_plus(raw), alone, alone.rstrip("=")}
    for before, first in enumerate((0, 2, 3)):
        # The characters at both ends also hold bits of what stands beside the text.
        inner = b64encode(bytes(before) + raw).decode()[first : (before + len(raw)) * 8 // 6]
        if len(inner) >= SHORTEST_BASE64:
            found.add(inner)
    return found | {form.replace("+", "-").replace("/", "_") for form in found if form != text}


def _bytes(text: str) -> bytes:
    # As os.environ decoded it.
    return text.encode("utf-8", "surrogateescape")


class Mask:
    """Takes the values of secrets out of what a notebook shows, in every form they are likely in.

    It masks copies only: what the kernel goes on with, such as a display that it updates later,
    stays as it is.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[str] = set()
        for secret in secrets:
            text = secret.strip()
            if len(text) >= SHORTEST_SECRET:
                forms |= escapes(text) | encodings(text)
            lines = [line.strip() for line in text.splitlines()]
            for line in lines if len(lines) > 1 else []:
                if len(line) >= SHORTEST_LINE:
                    forms |= escapes(line)
        self.forms = frozenset(forms)

    def text(self, text: str, *, unfinished: bool = False) -> str:
        """The text with its secrets masked; if unfinished, also the begin of one at its end."""
        spans = self._spans(text, unfinished)
        plain = strip_ansi(text)
        if plain != text:
            # A secret that colours run through is worth the colours.
            beneath = self._spans(plain, unfinished)
            text, spans = (plain, beneath) if len(beneath) > len(spans) else (text, spans)
        shown, last = [], 0
        for start, end in spans:
            shown += [text[last:start], MASKED]
            last = end
        return "".join([*shown, text[last:]])

    def split(self, text: str) -> tuple[str, str]:
        """The text up to where a secret may have begun that goes on in the next, and the rest."""
        cut = len(text) - self._begun(text)
        cut = next((end for start, end in self._spans(text) if start < cut < end), cut)
        return text[:cut], text[cut:]

    def _spans(self, text: str, unfinished: bool = False) -> list[tuple[int, int]]:
        """Where secrets stand, those that overlap as one."""
        found = []
        for form in self.forms:
            start = text.find(form)
            while start >= 0:
                found.append((start, start + len(form)))
                start = text.find(form, start + 1)
        begun = self._begun(text) if unfinished else 0
        if begun >= SHORTEST_SECRET:
            found.append((len(text) - begun, len(text)))
        merged: list[tuple[int, int]] = []
        for span in sorted(found):
            if merged and span[0] < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], span[1]))
            else:
                merged.append(span)
        return merged

    def _begun(self, text: str) -> int:
        """How many characters at the end may be the begin of a secret."""
        last = text[-1:]
        return max(
            (
                size
                for form in self.forms
                for size in range(1, min(len(form), len(text) + 1))
                if form[size - 1] == last and text.endswith(form[:size])
            ),
            default=0,
        )

    def value(self, value: Any) -> Any:
        """A JSON value with the secrets in its texts, keys and numbers masked."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.value(key): self.value(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner) for inner in value]
        if isinstance(value, (int, float)) and str(value) in self.forms:
            return MASKED
        return value

    def notebook(self, notebook: dict[str, Any]) -> dict[str, Any]:
        """The notebook with its outputs masked, and what they left in its metadata."""
        chosen = ("kernelspec", "language_info")
        about = notebook.get("metadata") or {}
        return {
            **notebook,
            "metadata": {k: v if k in chosen else self.value(v) for k, v in about.items()},
            "cells": [self._cell(cell) for cell in notebook["cells"]],
        }

    def _cell(self, cell: dict[str, Any]) -> dict[str, Any]:
        if not cell.get("outputs"):
            return cell
        state = (cell.get("metadata") or {}).get("papermill") or {}
        outputs = list(join_streams(cell["outputs"]))
        last = len(outputs) - 1 if state.get("status") == "running" else None
        masked = [self._output(output, number == last) for number, output in enumerate(outputs)]
        return {**cell, "outputs": masked}

    def _output(self, output: dict[str, Any], unfinished: bool) -> dict[str, Any]:
        masked = dict(output)
        if output["output_type"] == "stream":
            masked["text"] = self.text(output["text"], unfinished=unfinished)
        for key in ("ename", "evalue", "traceback", "metadata"):
            if key in output:
                masked[key] = self.value(output[key])
        if "data" in output:
            data = output["data"].items()
            masked["data"] = {mime: v if is_binary(mime) else self.value(v) for mime, v in data}
        return masked


def join_streams(outputs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The outputs, with what a stream wrote piece by piece as one text."""
    for (kind, _), group in groupby(outputs, lambda o: (o["output_type"], o.get("name"))):
        if kind == "stream":
            pieces = list(group)
            yield {**pieces[0], "text": "".join(_joined(piece["text"]) for piece in pieces)}
        else:
            yield from group


def is_binary(mime: str) -> bool:
    """Whether the content of a MIME type is base64, which a secret stands in only by chance."""
    binary = mime.startswith(("image/", "audio/", "video/")) or mime == "application/pdf"
    return binary and not mime.endswith("+xml")


class Console:
    """The container's log: the notebook's output, and between it lines of our own, all masked.

    What may be the begin of a secret is held back until it is known how it goes on.
    """

    def __init__(self, mask: Mask) -> None:
        self.mask = mask
        self.lock = threading.Lock()
        self.stream: TextIO = sys.stdout
        self.held = ""
        self.midline = False
        self.kernel: threading.Thread | None = None
        self.closed = False

    def say(self, line: str) -> None:
        """Prints a line of our own."""
        with self.lock:
            self._release()
            self._write("\n" * self.midline + line + "\n", sys.stdout)

    def show(self, output: dict[str, Any]) -> None:
        """Prints a cell's output as it comes."""
        kind = output["output_type"]
        text = _joined(output.get("text") or (output.get("data") or {}).get("text/plain") or "")
        if kind == "error":
            text = strip_ansi("\n".join(output["traceback"]))
        if kind != "stream" and text:
            text += "\n"
        stream = sys.stderr if output.get("name") == "stderr" else sys.stdout
        with self.lock:
            if stream is not self.stream:
                self._release()
            self.stream = stream
            text, self.held = self.held + text, ""
            if kind == "stream":
                text, self.held = self.mask.split(text)
            self._write(text, stream)

    def release(self) -> None:
        """Prints what was held back: the cell has ended."""
        with self.lock:
            self._release()

    def follow(self, descriptor: int) -> None:
        """Prints what the kernel's process writes past its client, from now on."""
        self.kernel = threading.Thread(target=self._follow, args=(descriptor,), daemon=True)
        self.kernel.start()

    def close(self, line: str) -> None:
        """Prints a last line after the kernel's: a thread that printed on would spoil the exit."""
        if self.kernel:
            # A process that the notebook left behind may hold the pipe for ever.
            self.kernel.join(timeout=1)
        self.say(line)
        with self.lock:
            self.closed = True

    def _follow(self, descriptor: int) -> None:
        with open(descriptor, encoding="utf-8", errors="replace", newline="") as lines:
            for line in lines:
                if KERNEL_NOTICE not in line:
                    with self.lock:
                        self._release()
                        self._write(line, sys.stdout)

    def _release(self) -> None:
        self._write(self.held, self.stream)
        self.held = ""

    def _write(self, text: str, stream: TextIO) -> None:
        if text and not self.closed:
            stream.write(self.mask.text(text))
            stream.flush()
            self.midline = not text.endswith("\n")


def strip_ansi(text: str) -> str:
    """The text without terminal colours."""
    return re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text) if "\x1b" in text else text


# --- results -------------------------------------------------------------------------------------


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
                refused.append(f"{problem}, in the cell ({first_line(_source(cell))[:60]})")
            else:
                results.update(data[RESULT_MIME])
    more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
    return results, f"a displayed result was ignored: {refused[0]}{more}" if refused else ""


def _result_problem(content: Any) -> str:
    if not isinstance(content, dict):
        return f"it is no JSON object but of type {_TYPES.get(type(content), 'null')}"
    try:
        json.dumps(content, allow_nan=False)
    except ValueError:
        return "it holds NaN or infinity, which JSON does not know"
    return ""


# --- what papermill's metadata says --------------------------------------------------------------


def settle(notebook: dict[str, Any], *, reason: str, message: str) -> None:
    """Makes the metadata of an execution that has ended tell the truth, in place.

    papermill calls cells completed that never started when the kernel dies; and whatever was
    running when the execution ended has failed. The reason is shown where it happened.
    """
    about = notebook.setdefault("metadata", {})
    if reason != "NotebookError":
        # papermill also marks errors that a cell's tag allows, and our own interrupt.
        cells = notebook["cells"]
        notebook["cells"] = [cell for cell in cells if ERROR_MARKER_TAG not in _tags(cell)]
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


# --- the pod -------------------------------------------------------------------------------------


def oom_kills(root: str | Path = "/sys/fs/cgroup") -> int:
    """How many processes of this container the kernel has killed for memory (cgroup v2 or v1)."""
    for name in ("memory.events", "memory/memory.oom_control"):
        try:
            lines = Path(root, name).read_text("ascii").splitlines()
        except OSError:
            continue
        counts = dict(line.split() for line in lines if len(line.split()) == 2)
        return int(counts.get("oom_kill", 0))
    return 0


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, "utf-8")
    os.replace(temporary, path)


def reap_orphans(kernel: int) -> None:
    """Collects what the kernel's processes left to PID 1, but never the kernel's own status."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == kernel:
            return
        os.waitpid(ended.si_pid, 0)


def prepare_home() -> None:
    """Gives IPython and Jupyter folders that they can write; images rarely have a home for us."""
    scratch = tempfile.mkdtemp(prefix="labfunctions-")
    if not os.access(os.environ.get("HOME", ""), os.W_OK):
        os.environ["HOME"] = tempfile.gettempdir()
    os.environ["IPYTHONDIR"] = os.path.join(scratch, "ipython")
    os.environ["JUPYTER_RUNTIME_DIR"] = os.path.join(scratch, "runtime")


def now() -> str:
    """The present as RFC 3339 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# --- one execution -------------------------------------------------------------------------------


class Config(NamedTuple):
    """What the operator asks for, from RUNNER_CONFIG."""

    notebook: str
    parameters: dict[str, Any]
    inject: dict[str, Any]
    policy: str
    timeout: float | None
    cell_timeout: float | None
    mask: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, job: str | None = None) -> Config:
        """Reads the configuration from JSON; of a Job that a CronJob made, the rest from its name.

        A CronJob has one text for all its Jobs.
        """
        raw = json.loads(text)
        inject = raw.get("inject") or {}
        if raw.get("namedByJob"):
            inject = {**inject, **names_of_job(str(job or ""), str(inject.get("WFID")))}
        return cls(
            notebook=raw["notebook"],
            parameters=raw.get("parameters") or {},
            inject=inject,
            policy=raw.get("parametersPolicy") or "Strict",
            timeout=raw.get("timeoutSeconds"),
            cell_timeout=raw.get("cellTimeoutSeconds"),
            mask=tuple(raw.get("mask") or ()),
        )


def names_of_job(job: str, workflow: str) -> dict[str, Any]:
    """What a notebook gets from a CronJob's Job, which is named by the minutes of its tick."""
    found = re.match(re.escape(workflow) + r"-([1-9][0-9]{7})$", job)
    tick = time.gmtime(int(found.group(1)) * 60) if found else None
    return {
        "EXECID": job,
        "NOW": now(),
        "SCHEDULED_AT": time.strftime("%Y-%m-%dT%H:%M:%SZ", tick) if tick else None,
    }


class Verdict(NamedTuple):
    """How the execution ended."""

    reason: str
    message: str
    cell: int | None = None
    exception: dict[str, str] | None = None


class Session:
    """What is known about the execution while it goes on; the engine tells it, the watchdog asks.

    Attributes:
        notebook: the notebook as it is being executed, once papermill has it.
        current: the source index of the running cell, None outside cells and in the injected one.
        failure: the verdict on the cell that raised, if one did.
        finished: every cell that was to run has completed.
        stop_reason: why nothing more is to run, if so; `stop_cell` was running then.
    """

    def __init__(self, config: Config, out: Path, mask: Mask) -> None:
        self.config = config
        self.out = out
        self.mask = mask
        self.console = Console(mask)
        self.started = time.monotonic()
        self.started_at = now()
        self.oom_kills = oom_kills()
        self.source: list[dict[str, Any]] = []
        self.names: list[str] = []
        self.order: list[int | None] = []
        self.sha256: str | None = None
        self.notebook: Any = None
        self.kernel: subprocess.Popen[bytes] | None = None
        self.kernel_name = ""
        self.current: int | None = None
        self.cell_started_at: float | None = None
        self.progress: dict[str, Any] | None = None
        self.unsaved = False
        self.failure: Verdict | None = None
        self.finished = False
        self.stop_reason = ""
        self.stop_cell: int | None = None

    def read(self, notebook: dict[str, Any]) -> None:
        """Learns the cells as their author numbered them."""
        self.source = notebook["cells"]
        self.names = [self.mask.text(name) for name in cell_names(self.source)]
        injects = bool(self.config.parameters or self.config.inject)
        self.order = source_indexes(self.source, injects=injects)

    def stop(self, reason: str) -> None:
        """Asks that nothing more be executed; safe in a signal handler."""
        if not self.stop_reason:
            self.stop_cell = self.current
            self.stop_reason = reason

    def overdue(self) -> str:
        """The reason of the time limit that has passed, if one has."""
        elapsed, limits = time.monotonic(), self.config
        if limits.timeout and elapsed - self.started > limits.timeout:
            return "TimedOut"
        begun = self.cell_started_at
        if limits.cell_timeout and begun and elapsed - begun > limits.cell_timeout:
            return "CellTimedOut"
        return ""

    def check(self) -> None:
        """Raises Stopped if nothing more is to be executed."""
        if self.stop_reason:
            raise Stopped(self.stop_reason)

    def cell_started(self, index: int) -> None:
        """A cell, by papermill's numbering, is about to run."""
        self.check()
        self.current = self.order[index]
        self.cell_started_at = time.monotonic()
        if self.current is None:
            return
        number, cells, name = self.current + 1, len(self.source), self.names[self.current]
        self.progress = {"cell": number, "cells": cells, "name": name}
        write_atomically(self.out / "progress.json", json.dumps(self.progress))
        if self.source[self.current].get("cell_type") == "code":
            self.console.say(f"[{number}/{cells}] {name}")

    def cell_ended(self) -> None:
        """The running cell has ended, one way or the other."""
        self.cell_started_at = None
        self.console.release()

    def cell_failed(self, error: BaseException) -> None:
        """The running cell raised; unless it was told to stop, that is the verdict."""
        if self.stop_reason or not hasattr(error, "ename"):
            return
        name, text = strip_ansi(error.ename), strip_ansi(str(error.evalue))  # type: ignore[attr-defined]
        message = f"{self.where(self.current)} raised {name}: {text}".rstrip(": ")
        exception = {"name": name, "message": text}
        self.failure = Verdict("NotebookError", message, self.current, exception)

    def where(self, index: int | None) -> str:
        """A cell for a person."""
        if index is None:
            return "the start" if self.progress is None else "the injected parameters"
        line = first_line(_source(self.source[index]))
        return f"cell {index + 1} of {len(self.source)} ({line[:60]})"

    def save(self) -> None:
        """Writes the notebook as it is now, without its secrets."""
        masked = self.mask.notebook(self.notebook)
        write_atomically(self.out / "notebook.ipynb", json.dumps(masked, indent=1))
        self.unsaved = False


class Watchdog(threading.Thread):
    """Ends an execution that was cancelled or is overdue, whatever its cell is doing.

    It interrupts the kernel, so that the cell can say where it was; kills it if that does not
    help; and, if even then the main thread does not come back, writes the verdict itself.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(daemon=True)
        self.session = session
        self.ended = threading.Event()

    def run(self) -> None:
        """Watches until the execution has ended."""
        session = self.session
        while not session.stop_reason:
            if self.ended.wait(TICK_SECONDS):
                return
            if session.kernel:
                reap_orphans(session.kernel.pid)
            overdue = session.overdue()
            if overdue:
                session.stop(overdue)
        session.console.say(f"{session.stop_reason}: interrupting the kernel")
        self._signal_kernel(signal.SIGINT)
        if self.ended.wait(INTERRUPT_GRACE_SECONDS):
            return
        session.console.say("the cell ignores the interrupt: killing the kernel")
        self._signal_kernel(signal.SIGKILL)
        if not self.ended.wait(KILL_GRACE_SECONDS):
            os._exit(conclude(session, judge(session, None)))

    def _signal_kernel(self, signum: int) -> None:
        kernel = self.session.kernel
        if kernel and kernel.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(kernel.pid, signum)


def define_manager(session: Session) -> Any:
    """The manager of papermill that tells the session what happens to which cell."""
    from papermill.engines import NotebookExecutionManager

    class Manager(NotebookExecutionManager):  # type: ignore[misc]
        def save(self, **kwargs: Any) -> None:
            # The last save is ours to make: papermill's marks cells completed that never ran.
            if self.end_time is None:
                session.save()
            self.last_save_time = self.now()

        def autosave_cell(self) -> None:
            if session.unsaved:
                super().autosave_cell()

        def cell_start(self, cell: Any, cell_index: int, **kwargs: Any) -> None:
            session.cell_started(cell_index)
            super().cell_start(cell, cell_index, **kwargs)

        def cell_exception(self, cell: Any, cell_index: int, **kwargs: Any) -> None:
            error = kwargs["exception"]
            if getattr(error, "ename", "") == "SystemExit" and error.evalue in ("", "0", "None"):
                return
            super().cell_exception(cell, cell_index=cell_index, **kwargs)
            session.cell_failed(error)

        def cell_complete(self, cell: Any, cell_index: int, **kwargs: Any) -> None:
            super().cell_complete(cell, cell_index=cell_index, **kwargs)
            session.cell_ended()

    return Manager


def define_client(session: Session) -> Any:
    """The notebook client of papermill that autosaves, and does not lose a dead kernel's cell."""
    from nbclient.exceptions import CellExecutionError
    from nbclient.util import run_sync
    from papermill.clientwrap import PapermillNotebookClient

    class Client(PapermillNotebookClient):  # type: ignore[misc]
        def start_new_kernel(self, **kwargs: Any) -> None:
            session.check()
            # Our own pipe: jupyter_client would close its own amid our reading.
            ours, kernels = os.pipe()
            session.console.follow(ours)
            try:
                super().start_new_kernel(stdout=kernels, stderr=kernels, **kwargs)
            finally:
                os.close(kernels)
            session.kernel = self.km.provisioner.process

        def papermill_execute_cells(self) -> None:
            super().papermill_execute_cells()
            session.finished = not session.failure and not session.stop_reason

        async def execute_and_save(self, cell: Any, cell_index: int, **kwargs: Any) -> Any:
            saving = asyncio.ensure_future(self.autosave())
            try:
                return await self.async_execute_cell(cell, cell_index, **kwargs)
            except CellExecutionError:
                raise
            except Exception as error:
                self.nb_man.cell_exception(cell, cell_index=cell_index, exception=error)
                raise
            finally:
                saving.cancel()

        execute_cell = run_sync(execute_and_save)

        async def autosave(self) -> None:
            while True:
                await asyncio.sleep(AUTOSAVE_SECONDS)
                self.nb_man.autosave_cell()

        def process_message(self, *args: Any, **kwargs: Any) -> Any:
            session.unsaved = True
            return super().process_message(*args, **kwargs)

        def log_output_message(self, output: Any) -> None:
            session.console.show(output)

    return Client


def define_engine(session: Session) -> Any:
    """The engine of papermill that runs with our manager and client."""
    from papermill.engines import NBClientEngine

    new_manager, new_client = define_manager(session), define_client(session)

    class Engine(NBClientEngine):  # type: ignore[misc]
        @classmethod
        def execute_notebook(cls, nb: Any, kernel_name: str, **kwargs: Any) -> Any:
            manager = new_manager(nb, progress_bar=False, autosave_cell_every=AUTOSAVE_SECONDS)
            # Older versions of papermill execute a copy.
            session.notebook = manager.nb
            # As it was given: a notebook with a NaN in its metadata is no JSON.
            about = manager.nb.metadata["papermill"]
            about["parameters"] = {**about.get("parameters", {}), **session.config.parameters}
            manager.notebook_start()
            try:
                new_client(
                    manager,
                    kernel_name=kernel_name,
                    startup_timeout=KERNEL_START_SECONDS,
                    log_output=True,
                ).execute()
            finally:
                manager.notebook_complete()
            return manager.nb

    return Engine


def choose_kernel(notebook: dict[str, Any], available: dict[str, str]) -> str:
    """The kernel to execute a notebook with; raises Refused.

    Args:
        notebook: what asks for a kernel, by name or by language.
        available: the language of each kernel that the image has, by name.
    """
    if not available:
        raise Refused("RunnerMissing", "the image has no Jupyter kernel; add ipykernel to it")
    language = _language(notebook)
    wanted = _kernelspec(notebook).get("name")
    name = wanted or ("python3" if language in ("python", "") else "")
    if name in available:
        return str(name)
    # Names such as conda-env-x are of the author's machine.
    pythons = [of for of, speaks in available.items() if speaks.lower() == "python"]
    if len(pythons) == 1 and (language == "python" or not (wanted or language)):
        return pythons[0]
    needed = f"the kernel {wanted}" if wanted else f"a kernel for {language or 'python'}"
    message = f"the notebook needs {needed}; the image has: {', '.join(sorted(available))}"
    raise Refused("NotebookInvalid", message)


def _available_kernels() -> dict[str, str]:
    from jupyter_client.kernelspec import KernelSpecManager

    specs = KernelSpecManager().get_all_specs()
    return {name: str(spec["spec"].get("language") or "") for name, spec in specs.items()}


def execute(session: Session) -> None:
    """Runs the notebook; raises Refused before the kernel starts, or what went wrong after."""
    config = session.config
    path = os.path.abspath(config.notebook)
    with contextlib.suppress(OSError):
        session.sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    notebook = load_notebook(path)
    declared = declared_parameters(path)
    problems = check_parameters(declared, config.parameters, config.policy)
    if problems:
        raise Refused("ParametersInvalid", "; ".join(problems))
    try:
        import papermill
        from papermill.engines import papermill_engines
        from papermill.iorw import load_notebook_node
    except Exception as error:
        message = f"papermill cannot be imported by {sys.executable}: {error}; add it to the image"
        raise Refused("RunnerMissing", message) from error
    papermill.log.logger.setLevel("ERROR")
    try:
        load_notebook_node(path)
    except Exception as error:
        raise Refused("NotebookInvalid", f"{path} is not a valid notebook: {error}") from error
    kernels = _available_kernels()
    session.kernel_name = choose_kernel(notebook, kernels)
    wanted = _kernelspec(notebook).get("name", session.kernel_name)
    if wanted != session.kernel_name:
        session.console.say(f"the image has no kernel {wanted}: running on {session.kernel_name}")
    session.read(notebook)
    papermill_engines.register("labfunctions", define_engine(session))
    papermill.execute_notebook(
        # papermill formats paths with the parameters: a brace must stay a brace.
        path.replace("{", "{{").replace("}", "}}"),
        None,
        parameters={**config.inject, **as_declared(declared, config.parameters)},
        engine_name="labfunctions",
        kernel_name=session.kernel_name,
        language=kernels[session.kernel_name],
    )


# --- the verdict ---------------------------------------------------------------------------------


def judge(session: Session, error: BaseException | None) -> Verdict:
    """How the execution ended, from what was seen and what was raised."""
    if session.failure:
        return session.failure
    if session.finished:
        return Verdict("Succeeded", f"all {len(session.source)} cells completed")
    if isinstance(error, Refused):
        return Verdict(error.reason, str(error))
    if session.stop_reason:
        return _stopped(session)
    return _broken(session, error)


def _broken(session: Session, error: BaseException | None) -> Verdict:
    kind = type(error).__name__
    if kind == "RuntimeError" and KERNEL_NOT_READY in str(error):
        # Whatever its status is: it was stopped for it.
        return Verdict("KernelDied", f"the kernel was not ready within {KERNEL_START_SECONDS} s")
    status = session.kernel.poll() if session.kernel else None
    if status is not None and kind in ("DeadKernelError", "RuntimeError"):
        return _dead_kernel(session, status)
    if session.kernel is None and kind == "PapermillException":
        return Verdict("NotebookInvalid", str(error))
    return Verdict("InternalError", f"{kind}: {error}", session.current)


def _stopped(session: Session) -> Verdict:
    where = session.where(session.stop_cell)
    message = {
        "Cancelled": f"stopped by SIGTERM at {where}",
        "TimedOut": f"ran longer than {session.config.timeout} s, at {where}",
        "CellTimedOut": f"{where} ran longer than {session.config.cell_timeout} s",
    }[session.stop_reason]
    return Verdict(session.stop_reason, message, session.stop_cell)


def _dead_kernel(session: Session, status: int) -> Verdict:
    how = f"status {status}"
    if status < 0:
        how = next((s.name for s in signal.Signals if s == -status), f"signal {-status}")
    where = session.where(session.current)
    if oom_kills() > session.oom_kills:
        message = f"the kernel ran out of memory and was killed at {where}"
        return Verdict("OutOfMemory", message, session.current)
    return Verdict("KernelDied", f"the kernel died ({how}) at {where}", session.current)


def describe(session: Session, verdict: Verdict, note: str) -> dict[str, Any]:
    """The verdict for the result file, with its cell as the author knows it."""
    cell = None
    if verdict.cell is not None:
        source = session.source[verdict.cell]
        line = session.mask.text(first_line(_source(source)))
        cell = {"index": verdict.cell, "id": source.get("id"), "source": line}
    message = "; ".join(filter(None, [verdict.message, note]))
    return {
        "reason": verdict.reason,
        "message": " ".join(session.mask.text(message).split()),
        "cell": cell,
        "exception": session.mask.value(verdict.exception),
        "progress": session.progress,
        "startedAt": session.started_at,
        "finishedAt": now(),
        "notebookSha256": session.sha256,
        "versions": {
            "python": platform.python_version(),
            "papermill": _version("papermill"),
            "kernel": session.kernel_name and f"{session.kernel_name} {_version('ipykernel')}",
        },
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def shorten(result: dict[str, Any], limit: int) -> dict[str, Any]:
    """The result with its long texts cut so that its JSON has fewer bytes than the limit."""
    short = result
    for keep in (1000, 500, 250, 100, 40, 10):
        if len(json.dumps(short)) < limit:
            break
        short = _cut(result, keep)
    return short


def _cut(value: Any, keep: int) -> Any:
    if isinstance(value, dict):
        exact = ("reason", "notebookSha256")
        return {k: inner if k in exact else _cut(inner, keep) for k, inner in value.items()}
    if isinstance(value, str) and len(value) > keep:
        return value[: keep - 3] + "..."
    return value


def termination_message(result: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """The result in the size that the kubelet takes; the values are null if they do not fit too."""
    whole = {**result, "results": results}
    if results and len(json.dumps(whole)) >= TERMINATION_LIMIT:
        size = len(json.dumps(results))
        whole = {**result, "results": None, "resultsBytes": size}
    return shorten(whole, TERMINATION_LIMIT)


def conclude(session: Session, verdict: Verdict) -> int:
    """Writes the verdict where the courier and the kubelet look for it; returns the exit code."""
    results, note = collect_results(session.notebook["cells"] if session.notebook else [])
    results = session.mask.value(results)
    result = describe(session, verdict, note)
    log = Path(os.environ.get("TERMINATION_LOG", "/dev/termination-log"))
    file = {**shorten(result, RESULT_LIMIT), "results": results}
    message = termination_message(result, results)
    for write in (
        lambda: write_atomically(session.out / "result.json", json.dumps(file)),
        lambda: log.write_text(json.dumps(message), "ascii"),
    ):
        # Where the notebook has filled its disk, the kubelet's still has room for the verdict.
        try:
            write()
        except OSError as error:
            session.console.say(f"the result could not be written: {error}")
    session.console.close(f"{verdict.reason}: {result['message']}")
    return EXIT_CODES[verdict.reason]


def finish(session: Session, error: BaseException | None) -> int:
    """Judges, makes the saved notebook tell the same, and writes the verdict."""
    verdict = judge(session, error)
    if session.notebook is not None:
        try:
            settle(session.notebook, reason=verdict.reason, message=verdict.message)
            session.save()
        except Exception as failed:
            message = f"the notebook could not be saved: {failed}; before that: {verdict.message}"
            verdict = Verdict("InternalError", message, verdict.cell, verdict.exception)
    return conclude(session, verdict)


def main() -> int:
    """Runs the notebook that the environment names; returns the exit code of its verdict."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    out = Path(os.environ.get("LABFUNCTIONS_DIR", "/labfunctions")) / "out"
    out.mkdir(parents=True, exist_ok=True)
    try:
        # Taken out: the kernel has no use for it.
        words, job = (os.environ.pop(name, "") for name in ("RUNNER_CONFIG", "RUNNER_JOB"))
        config, problem = Config.parse(words, job), None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        config, problem = Config("", {}, {}, "Strict", None, None), error
    session = Session(config, out, Mask(take_secrets(os.environ, config.mask)))
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: session.stop("Cancelled"))
    watchdog = Watchdog(session)
    watchdog.start()
    caught: BaseException | None = None
    try:
        if problem:
            raise ValueError(f"RUNNER_CONFIG cannot be read: {problem!r}")
        prepare_home()
        execute(session)
    except BaseException as error:
        caught = error
    watchdog.ended.set()
    return finish(session, caught)


if __name__ == "__main__":
    sys.exit(main())
