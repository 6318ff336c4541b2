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
import io
import json
import keyword
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
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

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
AUTOSAVE_SECONDS = 5
KERNEL_START_SECONDS = 120
TICK_SECONDS = 0.2
INTERRUPT_GRACE_SECONDS = 5
KILL_GRACE_SECONDS = 10
ERROR_MARKER_TAG = "papermill-error-cell-tag"


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


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def _tags(cell: dict[str, Any]) -> list[str]:
    return list((cell.get("metadata") or {}).get("tags") or [])


def _language(notebook: dict[str, Any]) -> str:
    metadata = notebook.get("metadata") or {}
    info, spec = metadata.get("language_info") or {}, metadata.get("kernelspec") or {}
    return str(info.get("name") or spec.get("language") or "python").lower()


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
    if _language(notebook) not in ("python", "ipython"):
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
        policy: Strict refuses what the notebook does not declare, Permissive takes it.
    """
    by_name = {parameter.name: parameter for parameter in declared or []}
    problems = []
    for name, value in given.items():
        if not name.replace(".", "_").isidentifier() or keyword.iskeyword(name):
            problems.append(f"parameters.{name}: is not a name that a notebook can assign to")
        elif name in by_name:
            problems.extend(_type_problem(by_name[name], value))
        elif declared is not None and policy == "Strict" and name not in INJECTED:
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
    got = "None" if value is None else _TYPES.get(type(value), "")
    if got in accepted:
        return []
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    what = "null" if value is None else f"{got} {shown}"
    return [f"parameters.{parameter.name}: expected {parameter.type}, got {what}"]


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

    @classmethod
    def parse(cls, text: str) -> Config:
        """Reads the configuration from JSON."""
        raw = json.loads(text)
        return cls(
            notebook=raw["notebook"],
            parameters=raw.get("parameters") or {},
            inject=raw.get("inject") or {},
            policy=raw.get("parametersPolicy") or "Strict",
            timeout=raw.get("timeoutSeconds"),
            cell_timeout=raw.get("cellTimeoutSeconds"),
        )


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

    def __init__(self, config: Config, out: Path) -> None:
        self.config = config
        self.out = out
        self.started = time.monotonic()
        self.started_at = now()
        self.oom_kills = oom_kills()
        self.source: list[dict[str, Any]] = []
        self.names: list[str] = []
        self.order: list[int | None] = []
        self.notebook: Any = None
        self.kernel: subprocess.Popen[bytes] | None = None
        self.kernel_name = ""
        self.current: int | None = None
        self.cell_started_at: float | None = None
        self.progress: dict[str, Any] | None = None
        self.unsaved = False
        self.midline = False
        self.failure: Verdict | None = None
        self.finished = False
        self.stop_reason = ""
        self.stop_cell: int | None = None

    def read(self, notebook: dict[str, Any]) -> None:
        """Learns the cells as their author numbered them."""
        self.source = notebook["cells"]
        self.names = cell_names(self.source)
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
            self.say(f"[{number}/{cells}] {name}")

    def cell_ended(self) -> None:
        """The running cell has ended, one way or the other."""
        self.cell_started_at = None

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
        """Writes the notebook as it is now."""
        write_atomically(self.out / "notebook.ipynb", json.dumps(self.notebook, indent=1))
        self.unsaved = False

    def say(self, line: str) -> None:
        """Prints a line of our own between the notebook's output."""
        print("\n" * self.midline + line, flush=True)
        self.midline = False

    def log(self, output: dict[str, Any]) -> None:
        """Shows a cell's output in the container's log as it comes."""
        text = "".join(output.get("text") or (output.get("data") or {}).get("text/plain") or "")
        if output["output_type"] == "error":
            text = strip_ansi("\n".join(output["traceback"]))
        if output["output_type"] != "stream":
            text += "\n"
        stream = sys.stderr if output.get("name") == "stderr" else sys.stdout
        stream.write(text)
        stream.flush()
        self.midline = bool(text) and not text.endswith("\n")


def strip_ansi(text: str) -> str:
    """The text without terminal colours."""
    return re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text)


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
        print(f"{session.stop_reason}: interrupting the kernel", flush=True)
        self._signal_kernel(signal.SIGINT)
        if self.ended.wait(INTERRUPT_GRACE_SECONDS):
            return
        print("the cell ignores the interrupt: killing the kernel", flush=True)
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
            super().start_new_kernel(**kwargs)
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
            session.log(output)

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


def choose_kernel(notebook: dict[str, Any]) -> tuple[str, str]:
    """The kernel a notebook asks for, if the image has it, and the language it speaks."""
    from jupyter_client.kernelspec import KernelSpecManager

    specs = KernelSpecManager()
    available = sorted(specs.find_kernel_specs())
    if not available:
        raise Refused("RunnerMissing", "the image has no Jupyter kernel; add ipykernel to it")
    name = ((notebook.get("metadata") or {}).get("kernelspec") or {}).get("name")
    if not name and _language(notebook) in ("python", "ipython"):
        name = "python3"
    if name not in available:
        wanted = f"the kernel {name}" if name else f"a kernel for {_language(notebook)}"
        message = f"the notebook needs {wanted}; the image has: {', '.join(available)}"
        raise Refused("NotebookInvalid", message)
    return name, specs.get_kernel_spec(name).language


def execute(session: Session) -> None:
    """Runs the notebook; raises Refused before the kernel starts, or what went wrong after."""
    config = session.config
    path = os.path.abspath(config.notebook)
    notebook = load_notebook(path)
    problems = check_parameters(declared_parameters(path), config.parameters, config.policy)
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
    session.kernel_name, language = choose_kernel(notebook)
    session.read(notebook)
    papermill_engines.register("labfunctions", define_engine(session))
    papermill.execute_notebook(
        # papermill formats paths with the parameters: a brace must stay a brace.
        path.replace("{", "{{").replace("}", "}}"),
        None,
        parameters={**config.inject, **config.parameters},
        engine_name="labfunctions",
        kernel_name=session.kernel_name,
        language=language,
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


def describe(session: Session, verdict: Verdict) -> dict[str, Any]:
    """The result file: the verdict, with its cell as the author knows it."""
    cell = None
    if verdict.cell is not None:
        source = session.source[verdict.cell]
        line = first_line(_source(source))
        cell = {"index": verdict.cell, "id": source.get("id"), "source": line}
    return {
        "reason": verdict.reason,
        "message": " ".join(verdict.message.split()),
        "cell": cell,
        "exception": verdict.exception,
        "progress": session.progress,
        "startedAt": session.started_at,
        "finishedAt": now(),
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


def shorten(result: dict[str, Any], limit: int) -> str:
    """The result as JSON of fewer bytes than the limit, cutting its long texts."""
    text = json.dumps(result)
    for keep in (1000, 500, 250, 100, 40, 10):
        if len(text) < limit:
            break
        text = json.dumps(_cut(result, keep))
    return text


def _cut(value: Any, keep: int) -> Any:
    if isinstance(value, dict):
        return {key: _cut(inner, keep) for key, inner in value.items()}
    if isinstance(value, str) and len(value) > keep:
        return value[: keep - 3] + "..."
    return value


def conclude(session: Session, verdict: Verdict) -> int:
    """Writes the verdict where the courier and the kubelet look for it; returns the exit code."""
    result = describe(session, verdict)
    log = Path(os.environ.get("TERMINATION_LOG", "/dev/termination-log"))
    try:
        write_atomically(session.out / "result.json", shorten(result, 64 * 1024))
        log.write_text(shorten(result, TERMINATION_LIMIT), "ascii")
    except OSError as error:
        print(f"the result could not be written: {error}", flush=True)
    session.say(f"{verdict.reason}: {result['message']}")
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
        config, problem = Config.parse(os.environ.pop("RUNNER_CONFIG", "")), None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        config, problem = Config("", {}, {}, "Strict", None, None), error
    session = Session(config, out)
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
