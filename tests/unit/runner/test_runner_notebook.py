"""A notebook's file and its cells as their author wrote them."""

from pathlib import Path

import pytest
from executions import code, markdown

from labfunctions_operator.runner.notebook_run.errors import Refused
from labfunctions_operator.runner.notebook_run.notebook import (
    cell_names,
    load_notebook,
    source_indexes,
)


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
    ("content", "message"),
    [
        ("{", "is not a notebook"),
        ("[]", "it has no nbformat"),
        ("{}", "it has no nbformat"),
        ('{"nbformat": 4}', "its cells are not a list of cells"),
        ('{"nbformat": 4, "cells": [1]}', "its cells are not a list of cells"),
        ("[" * 100_000, "is not a notebook"),
        ("\x00\x01", "is not a notebook"),
    ],
)
def test_a_file_that_is_no_notebook(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.ipynb"
    path.write_text(content)
    with pytest.raises(Refused, match=message) as refused:
        load_notebook(path)
    assert refused.value.reason == "NotebookInvalid"


def test_a_missing_notebook_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "analysis.ipynb").touch()
    with pytest.raises(Refused, match=r"did you mean analysis\.ipynb\?") as refused:
        load_notebook(tmp_path / "analyses.ipynb")
    assert refused.value.reason == "NotebookNotFound"


def test_a_folder_is_not_a_notebook(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is a directory"):
        load_notebook(tmp_path)
