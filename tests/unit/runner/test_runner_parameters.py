"""What a notebook declares and what may be given to it."""

import ast
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from labfunctions_operator.runner import runner
from labfunctions_operator.runner.runner import (
    Declared,
    Refused,
    as_declared,
    check_parameters,
    declared_parameters,
)


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


@pytest.mark.parametrize(
    ("type_", "value", "got"),
    [
        ("int", "ten", 'str "ten"'),
        ("int", 1.5, "float 1.5"),
        ("int", True, "bool true"),
        ("int", None, "null"),
        ("float", "1", 'str "1"'),
        ("int", "NaN", 'str "NaN"'),
        ("float", "nan", 'str "nan"'),
        ("bool", 1, "int 1"),
        ("str", 5, "int 5"),
        ("str", "é" * 0 or ["é"], 'list ["é"]'),
        ("list", {"a": 1}, 'dict {"a": 1}'),
        ("List[int]", "x", 'str "x"'),
        ("typing.Dict[str, int]", [1], "list [1]"),
        ("int | str", 1.5, "float 1.5"),
        ("Union[int, None]", "x", 'str "x"'),
        ("Optional[float]", "x", 'str "x"'),
        ("'int'", "x", 'str "x"'),
        ("str", list(range(99)), f"list {json.dumps(list(range(99)))[:77]}..."),
    ],
)
def test_an_ill_typed_value_is_named_with_its_path(type_: str, value: Any, got: str) -> None:
    declared = [Declared("p", type_, "…", "")]
    want = [f"parameters.p: expected {type_}, got {got}"]
    assert check_parameters(declared, {"p": value}, "Strict") == want
    assert check_parameters(declared, {"p": value}, "Permissive") == []


@pytest.mark.parametrize(
    ("type_", "default", "value"),
    [
        ("int", "1", 2**63 - 1),
        ("int", "None", None),
        ("int", "1", -(2**63)),
        ("float", "1.0", 3),
        ("float", "1.0", math.nan),
        ("float", "1.0", -math.inf),
        ("float", "1.0", "NaN"),
        ("float | None", "None", "-Infinity"),
        ("str", "''", "quote \" ' back\\slash {brace} \n 🚀"),
        ("Optional[int]", "3", None),
        ("int | None", "3", None),
        ("Union[int, str]", "3", "x"),
        ("list[list[int]]", "[]", [[1], [2]]),
        ("Dict[str, int]", "{}", {"a": {"b": [None]}}),
        ("np.ndarray", "1", [1]),
        ("Optional[np.ndarray]", "1", "anything"),
        ("Literal['a']", "'a'", 5),
        ("tuple", "(1, 2)", [1, 2]),
        ("not a type", "1", 5),
        ("", "f()", {"x": 1}),
    ],
)
def test_a_fitting_value_or_an_unknown_type_passes(type_: str, default: str, value: Any) -> None:
    assert check_parameters([Declared("p", type_, default, "")], {"p": value}, "Strict") == []


@pytest.mark.parametrize(
    ("type_", "value", "want"),
    [
        ("float", 3, 3.0),
        ("float", 2.5, 2.5),
        ("float", "NaN", math.nan),
        ("float", "Infinity", math.inf),
        ("Optional[float]", "-Infinity", -math.inf),
        ("float", True, True),
        ("float", None, None),
        ("float", 10**400, 10**400),
        ("int | float", 2**53 + 1, 2**53 + 1),
        ("float | str", "NaN", "NaN"),
        ("str", "NaN", "NaN"),
        ("", "NaN", "NaN"),
        ("int", 3, 3),
        ("list[float]", [1, "NaN"], [1, "NaN"]),
    ],
)
def test_what_json_cannot_write_arrives_as_declared(type_: str, value: Any, want: Any) -> None:
    given = {"p": value, "undeclared": value}
    got = as_declared([Declared("p", type_, "1", "")], given)
    assert repr(got) == repr({"p": want, "undeclared": value})
    assert as_declared(None, given) == given


def test_an_unknown_parameter_is_refused_with_what_there_is() -> None:
    declared = [Declared("n_estimators", "int", "1", ""), Declared("depth", "int", "1", "")]
    assert check_parameters(declared, {"n_estimator": 1, "foo": 2}, "Strict") == [
        "parameters.n_estimator: the notebook declares no such parameter; "
        "it declares: n_estimators, depth; did you mean n_estimators?",
        "parameters.foo: the notebook declares no such parameter; it declares: n_estimators, depth",
    ]
    assert check_parameters(declared, {"foo": 2}, "Permissive") == []


def test_a_notebook_without_parameters_takes_none_unless_it_cannot_be_read() -> None:
    assert check_parameters([], {"foo": 2}, "Strict")[0].startswith(
        "parameters.foo: the notebook declares no parameters"
    )
    assert check_parameters([], {"foo": 2}, "Permissive") == []
    assert check_parameters(None, {"foo": 2}, "Strict") == []


def test_what_is_always_injected_is_never_unknown() -> None:
    assert check_parameters([], {"NOW": "2026-01-01T00:00:00Z", "WFID": "w"}, "Strict") == []


@pytest.mark.parametrize("name", ["x; import os", "a b", "", "1x", "class", "x\n"])
def test_a_name_that_is_no_name_never_reaches_the_cell(name: str) -> None:
    for policy in ("Strict", "Permissive"):
        problems = check_parameters(None, {name: 1}, policy)
        assert problems == [f"parameters.{name}: is not a name that a notebook can assign to"]


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
        declared_parameters(path)
    assert refused.value.reason == "NotebookInvalid"


def test_a_missing_notebook_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "analysis.ipynb").touch()
    with pytest.raises(Refused, match=r"did you mean analysis\.ipynb\?") as refused:
        declared_parameters(tmp_path / "analyses.ipynb")
    assert refused.value.reason == "NotebookNotFound"


def test_a_folder_is_not_a_notebook(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is a directory"):
        declared_parameters(tmp_path)


def test_the_runner_is_python_3_8_and_imports_the_standard_library_alone() -> None:
    tree = ast.parse(Path(runner.__file__).read_text("utf-8"), feature_version=(3, 8))
    modules = {
        alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names
    }
    modules |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in modules} <= sys.stdlib_module_names
