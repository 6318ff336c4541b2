"""Cells, metadata and verdicts, without a kernel."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from labfunctions_operator.runner import runner
from labfunctions_operator.runner.runner import (
    Config,
    Mask,
    Refused,
    Session,
    cell_names,
    first_line,
    judge,
    oom_kills,
    reap_orphans,
    settle,
    shorten,
    source_indexes,
    strip_ansi,
)


def code(source: str = "x", *tags: str, **papermill: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"tags": list(tags)}
    if papermill:
        metadata["papermill"] = papermill
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": []}


def markdown(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": source, "metadata": {}}


@pytest.mark.parametrize(
    ("tags", "injects", "want"),
    [
        ([[], ["parameters"], []], True, [0, 1, None, 2]),
        ([[], []], True, [None, 0, 1]),
        ([["parameters"], ["injected-parameters"], []], True, [0, None, 2]),
        ([["injected-parameters"], ["parameters"]], True, [None, 1]),
        (
            [["papermill-error-cell-tag"], ["parameters"], ["papermill-error-cell-tag"], []],
            True,
            [1, None, 3],
        ),
        ([["parameters"], []], False, [0, 1]),
        ([], True, [None]),
    ],
    ids=["after", "top", "replaced", "replaced at the top", "markers", "none", "empty"],
)
def test_the_index_of_an_executed_cell_in_the_source(
    tags: list[list[str]], injects: bool, want: list[int | None]
) -> None:
    assert source_indexes([code("x", *of) for of in tags], injects=injects) == want


def test_a_cell_is_named_by_the_heading_above_or_its_first_line() -> None:
    cells = [
        markdown("Intro\n## Load *data*\ntext"),
        code("import os"),
        code("\n# Train the model\nfit()"),
        markdown("just text"),
        code("y" * 200),
        code(""),
    ]
    assert cell_names(cells) == [
        "Load *data*",
        "Load *data*",
        "Train the model",
        "just text",
        "y" * 80,
        "",
    ]


@pytest.mark.parametrize(
    ("source", "want"),
    [("# why\n\n  x = 1\ny", "x = 1"), ("# only", "# only"), ("", ""), ("\n\n", "")],
)
def test_the_first_line_that_does_something(source: str, want: str) -> None:
    assert first_line(source) == want


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


def session(tmp_path: Path, **limits: float) -> Session:
    config = Config("n.ipynb", {}, {"WFID": "w"}, "Strict", limits.get("run"), limits.get("cell"))
    made = Session(config, tmp_path, Mask([]))
    made.read({"cells": [code("a", "parameters"), code("# b\nboom()")]})
    return made


class Dead(Exception):
    pass


Dead.__name__ = "DeadKernelError"


def test_a_limit_that_passes_is_known_by_its_name(tmp_path: Path) -> None:
    assert session(tmp_path).overdue() == ""
    late = session(tmp_path, run=5, cell=2)
    late.cell_started(0)
    assert late.overdue() == ""
    late.cell_started_at = time.monotonic() - 3
    assert late.overdue() == "CellTimedOut"
    late.started -= 6
    assert late.overdue() == "TimedOut"
    late.cell_ended()
    late.started += 6
    assert late.overdue() == ""


def test_a_stop_is_blamed_on_the_cell_that_was_running_and_nothing_starts_after(
    tmp_path: Path,
) -> None:
    stopped = session(tmp_path, cell=2)
    stopped.cell_started(2)
    stopped.stop("CellTimedOut")
    stopped.stop("Cancelled")
    with pytest.raises(runner.Stopped):
        stopped.cell_started(0)
    verdict = judge(stopped, runner.Stopped("CellTimedOut"))
    assert verdict.reason == "CellTimedOut"
    assert verdict.cell == 1
    assert verdict.message == "cell 2 of 2 (boom()) ran longer than 2 s"


def test_what_happened_first_is_the_verdict(tmp_path: Path) -> None:
    raised = session(tmp_path)
    raised.cell_started(2)
    error: Any = Exception()
    error.ename, error.evalue = "ValueError", "\x1b[31mbad\x1b[0m"
    raised.cell_failed(error)
    raised.stop("Cancelled")
    verdict = judge(raised, None)
    assert (verdict.reason, verdict.cell) == ("NotebookError", 1)
    assert verdict.exception == {"name": "ValueError", "message": "bad"}
    done = session(tmp_path)
    done.finished = True
    done.stop("Cancelled")
    assert judge(done, Dead()).reason == "Succeeded"


@pytest.mark.parametrize(("more", "want"), [(0, "KernelDied"), (1, "OutOfMemory")])
def test_a_dead_kernel_is_out_of_memory_if_the_counter_rose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int, want: str
) -> None:
    dead = session(tmp_path)
    dead.cell_started(2)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as kernel:
        kernel.send_signal(signal.SIGKILL)
        kernel.wait()
        dead.kernel = kernel
    monkeypatch.setattr(runner, "oom_kills", lambda: dead.oom_kills + more)
    verdict = judge(dead, Dead())
    assert (verdict.reason, verdict.cell) == (want, 1)
    assert ("SIGKILL" in verdict.message) == (more == 0)


def test_anything_else_before_and_after_the_kernel_starts(tmp_path: Path) -> None:
    assert judge(session(tmp_path), Refused("NotebookNotFound", "x")).reason == "NotebookNotFound"
    verdict = judge(session(tmp_path), OSError(28, "No space left on device"))
    assert verdict.reason == "InternalError"
    assert "No space left" in verdict.message


@pytest.mark.parametrize(
    ("file", "text", "want"),
    [
        ("memory.events", "low 0\noom 3\noom_kill 2\n", 2),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", 1),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", 0),
        ("other", "", 0),
    ],
    ids=["v2", "v1", "old v1", "none"],
)
def test_oom_kills_of_both_cgroups(tmp_path: Path, file: str, text: str, want: int) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert oom_kills(tmp_path) == want


@pytest.mark.parametrize("character", ["a", "é", "🚀", "\x00"])
def test_the_termination_message_fits_and_is_json(character: str) -> None:
    long = character * 50_000
    result = {
        "reason": "ParametersInvalid",
        "notebookSha256": "f" * 64,
        "message": long,
        "cell": {"index": 2, "id": "a", "source": long[:200]},
        "exception": {"name": long, "message": long},
        "progress": {"cell": 3, "cells": 4, "name": long[:80]},
    }
    short = shorten(result, runner.TERMINATION_LIMIT)
    assert len(json.dumps(short)) < 4000
    assert short["cell"]["index"] == 2
    assert (short["reason"], short["notebookSha256"]) == ("ParametersInvalid", "f" * 64)
    assert shorten({"a": "b"}, 4000) == {"a": "b"}


def test_colours_are_stripped() -> None:
    assert strip_ansi("\x1b[0;31mred\x1b[0m\x1b[K ok") == "red ok"


def test_orphans_are_reaped_but_never_the_kernel() -> None:
    with subprocess.Popen(["sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE) as kernel:
        orphan = os.posix_spawn("/bin/true", ["true"], {})
        _wait_until_ended(orphan)
        reap_orphans(kernel.pid)
        assert not _is_child(orphan)
        kernel.communicate()
    with subprocess.Popen(["sh", "-c", "exit 7"]) as kernel:
        _wait_until_ended(kernel.pid)
        reap_orphans(kernel.pid)
        assert kernel.wait() == 7


def _wait_until_ended(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _is_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def test_a_kernel_that_takes_too_long_to_start_is_no_fault_of_ours(tmp_path: Path) -> None:
    slow = session(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as kernel:
        slow.kernel = kernel
        late = RuntimeError("Kernel didn't respond in 120 seconds")
        verdict = judge(slow, late)
        kernel.kill()
    assert (verdict.reason, verdict.message) == (
        "KernelDied",
        "the kernel was not ready within 120 s",
    )
    assert judge(slow, late) == verdict, "it was killed for it"
