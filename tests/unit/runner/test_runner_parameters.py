"""What may be given to a notebook, and as what it arrives."""

import json
import math
from typing import Any

import pytest

from labfunctions_operator.runner.notebook_run.declared import Declared
from labfunctions_operator.runner.notebook_run.parameters import as_declared, check_parameters


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
