"""Cells, and an execution that has them, without a kernel."""

from pathlib import Path
from typing import Any

from labfunctions_operator.runner.notebook_run.config import Config
from labfunctions_operator.runner.notebook_run.mask import Mask
from labfunctions_operator.runner.notebook_run.session import Session


def code(source: str = "x", *tags: str, **papermill: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"tags": list(tags)}
    if papermill:
        metadata["papermill"] = papermill
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": []}


def markdown(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": source, "metadata": {}}


def stream(text: str | list[str], name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def session(tmp_path: Path, **limits: float) -> Session:
    config = Config("n.ipynb", {}, {"WFID": "w"}, "Strict", limits.get("run"), limits.get("cell"))
    made = Session(config, tmp_path, Mask([]))
    made.read({"cells": [code("a", "parameters"), code("# b\nboom()")]})
    return made
