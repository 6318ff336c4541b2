"""A folder like a Run pod's, and the runner in it as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labfunctions_operator.runner import archive

INJECT = {"WFID": "wf", "EXECID": "ex", "NOW": "2026-01-01T00:00:00Z", "SCHEDULED_AT": None}


def code(source: str, *tags: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "source": source,
        "metadata": {"tags": list(tags)},
        "outputs": [],
        "execution_count": None,
    }


def markdown(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": source, "metadata": {}}


@dataclass
class Ended:
    """What a runner left behind."""

    code: int
    log: str
    out: Path
    seconds: float

    @property
    def result(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.out / "result.json").read_text())
        return read

    @property
    def message(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.out.parent / "termination-log").read_text())
        return read

    @property
    def notebook(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.out / "notebook.ipynb").read_text())
        return read

    def states(self) -> list[str]:
        return [cell["metadata"]["papermill"]["status"] for cell in self.notebook["cells"]]

    def text(self, index: int) -> str:
        outputs = self.notebook["cells"][index]["outputs"]
        return "".join(o.get("text", "") + o.get("ename", "") for o in outputs)


class Pod:
    """A folder like the pod's, and the runner in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out = root / "out"
        self.environment: dict[str, str] = {}
        self.python = [sys.executable]
        self.runner = archive.install(root / "bin")

    def write(self, *cells: dict[str, Any], name: str = "n.ipynb", **metadata: Any) -> str:
        metadata = metadata or {"kernelspec": {"name": "python3", "display_name": "Python"}}
        cells = tuple(cell | {"id": f"id{index}"} for index, cell in enumerate(cells))
        document = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
        (self.root / name).parent.mkdir(exist_ok=True)
        (self.root / name).write_text(json.dumps(document))
        return name

    def run(
        self, config: Any = None, *, during: Callable[[subprocess.Popen[str]], None] | None = None
    ) -> Ended:
        if isinstance(config, dict | None):
            config = {"notebook": "n.ipynb", "inject": INJECT, **(config or {})}
        environment = {
            **os.environ,
            "LABFUNCTIONS_DIR": str(self.root),
            "TERMINATION_LOG": str(self.root / "termination-log"),
            "RUNNER_CONFIG": json.dumps(config),
            **self.environment,
        }
        # With it, ipykernel does not capture what is written past Python.
        environment.pop("PYTEST_CURRENT_TEST", None)
        started = time.monotonic()
        with subprocess.Popen(
            [*self.python, str(self.runner)],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            if during:
                during(process)
                started = time.monotonic()
            log, _ = process.communicate()
        print(log)
        ended = Ended(process.returncode, log, self.out, time.monotonic() - started)
        if (self.out / "result.json").exists():
            assert (self.root / "termination-log").stat().st_size < 4000
            assert ended.message["reason"] == ended.result["reason"]
            assert ended.message["versions"] == ended.result["versions"]
        return ended

    def wait_for(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not what():
            assert time.monotonic() < deadline, "it never came"
            time.sleep(0.05)

    def saved(self) -> str:
        path = self.out / "notebook.ipynb"
        if not path.exists():
            return ""
        cells = json.loads(path.read_text())["cells"]
        return json.dumps([cell.get("outputs") for cell in cells])

    def stop_when_saved(self, text: str) -> Callable[[subprocess.Popen[str]], None]:
        def stop(process: subprocess.Popen[str]) -> None:
            self.wait_for(lambda: text in self.saved())
            process.send_signal(signal.SIGTERM)

        return stop
