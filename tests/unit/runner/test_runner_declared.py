"""What a notebook declares."""

import json
from pathlib import Path
from typing import Any

import pytest

from labfunctions_operator.runner.notebook_run.declared import Declared, declared_parameters


def write_notebook(
    folder: Path, source: str | list[str] | None, *, language: str = "python"
) -> Path:
    cells: list[dict[str, Any]] = [{"cell_type": "markdown", "metadata": {}, "source": "# T"}]
    if source is not None:
        cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": source}
        cells.append(cell | {"outputs": [], "execution_count": None})
    metadata = {"language_info": {"name": language}}
    path = folder / "n.ipynb"
    document = {"nbformat": 4, "nbformat_minor": 4, "metadata": metadata, "cells": cells}
    path.write_text(json.dumps(document), "utf-8")
    return path


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("n = 100", Declared("n", "int", "100", "")),
        ("n = -1", Declared("n", "int", "-1", "")),
        ("rate = 1e-3  # how fast", Declared("rate", "float", "1e-3", "how fast")),
        ("flag = True", Declared("flag", "bool", "True", "")),
        ("names = ['a', 'b']", Declared("names", "list", "['a', 'b']", "")),
        ("tree = {'a': {'b': 1}}", Declared("tree", "dict", "{'a': {'b': 1}}", "")),
        ("x = None", Declared("x", "", "None", "")),
        ("x = load()", Declared("x", "", "load()", "")),
        ("x = float('nan')", Declared("x", "float", "float('nan')", "")),
        ("x: float = 1", Declared("x", "float", "1", "")),
        ("x: int | None = None", Declared("x", "int | None", "None", "")),
        ("x: 'Optional[int]' = 3", Declared("x", "'Optional[int]'", "3", "")),
        ("x = 1  # type: float  the slope", Declared("x", "float", "1", "the slope")),
        ('url = "http://h/?a=b&c=d"', Declared("url", "str", '"http://h/?a=b&c=d"', "")),
        ("größe = 1", Declared("größe", "int", "1", "")),
        ("xs = [\n  1,  # one\n]  # both", Declared("xs", "list", "[\n  1,  # one\n]", "both")),
        ("%matplotlib inline\n!ls\nn = 2", Declared("n", "int", "2", "")),
    ],
)  # fmt: skip
def test_a_declared_parameter(tmp_path: Path, source: str, want: Declared) -> None:
    assert declared_parameters(write_notebook(tmp_path, source)) == [want]


def test_every_assignment_of_the_cell_counts_and_the_last_of_a_name_wins(tmp_path: Path) -> None:
    path = write_notebook(
        tmp_path, ["a = 1\n", "b, c = 2, 3\n", "d = e = 'x'\n", "a = 2.5\n", "f()"]
    )
    declared = declared_parameters(path) or []
    assert [(d.name, d.type) for d in declared] == [
        ("a", "float"),
        ("b", ""),
        ("c", ""),
        ("d", "str"),
        ("e", "str"),
    ]


@pytest.mark.parametrize(
    ("source", "language", "want"),
    [(None, "python", []), ("", "python", []), ("x <- 1", "R", None), ("x = (", "python", None)],
)
def test_no_declaration_differs_from_an_unreadable_one(
    tmp_path: Path, source: str | None, language: str, want: list[Declared] | None
) -> None:
    assert declared_parameters(write_notebook(tmp_path, source, language=language)) == want
