"""The verdict as it is left for the courier and the kubelet."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from labfunctions_operator.runner.notebook_run.cell_state import settle
from labfunctions_operator.runner.notebook_run.judgement import judge
from labfunctions_operator.runner.notebook_run.notebook import source_of
from labfunctions_operator.runner.notebook_run.pod import now, write_atomically
from labfunctions_operator.runner.notebook_run.results import collect_results
from labfunctions_operator.runner.notebook_run.session import Session
from labfunctions_operator.runner.notebook_run.text import first_line
from labfunctions_operator.runner.notebook_run.verdict import EXIT_CODES, Verdict

TERMINATION_LIMIT = 4000
RESULT_LIMIT = 64 * 1024


def describe(session: Session, verdict: Verdict, note: str) -> dict[str, Any]:
    """The verdict for the result file, with its cell as the author knows it."""
    cell = None
    if verdict.cell is not None:
        source = session.source[verdict.cell]
        line = session.mask.text(first_line(source_of(source)))
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
