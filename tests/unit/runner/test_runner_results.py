"""The values that a notebook returns, and where they fit."""

import json
from typing import Any

import pytest

from labfunctions_operator.runner import runner
from labfunctions_operator.runner.runner import collect_results, termination_message


def displays(*contents: Any) -> dict[str, Any]:
    outputs = [
        {"output_type": "display_data", "data": {runner.RESULT_MIME: content}, "metadata": {}}
        for content in contents
    ]
    stream = {"output_type": "stream", "name": "stdout", "text": "x"}
    return {"cell_type": "code", "source": "show()", "outputs": [stream, *outputs]}


def test_results_are_merged_key_by_key_in_the_order_of_display() -> None:
    cells = [
        displays({"a": 1, "b": {"x": 1}}, {"a": 2}),
        {"cell_type": "markdown", "source": "# T"},
        displays({"b": {"y": 2}, "ü": None}),
    ]
    assert collect_results(cells) == ({"a": 2, "b": {"y": 2}, "ü": None}, "")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([1], "it is no JSON object but of type list"),
        ("{}", "it is no JSON object but of type str"),
        (3, "it is no JSON object but of type int"),
        (None, "it is no JSON object but of type null"),
        ({"loss": [float("nan")]}, "it holds NaN or infinity, which JSON does not know"),
    ],
)
def test_what_is_no_result_is_refused_with_a_note_and_spoils_nothing(
    content: Any, why: str
) -> None:
    results, note = collect_results([displays({"a": 1}, content, {"b": 2})])
    assert results == {"a": 1, "b": 2}
    assert note == f"a displayed result was ignored: {why}, in the cell (show())"


def test_many_refused_results_make_one_note() -> None:
    assert collect_results([displays(*[[1]] * 500)])[1].endswith("(show()), and 499 more")


def filled(size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A result and values whose termination message has so many bytes."""
    result = {"reason": "Succeeded", "message": "all"}
    empty = len(json.dumps({**result, "results": {"a": ""}}))
    return result, {"a": "x" * (size - empty)}


def test_values_that_just_fit_are_in_the_termination_message() -> None:
    result, results = filled(runner.TERMINATION_LIMIT - 1)
    message = termination_message(result, results)
    assert message == {**result, "results": results}
    assert len(json.dumps(message)) == runner.TERMINATION_LIMIT - 1


def test_values_that_do_not_fit_are_counted_and_nothing_else_is_cut() -> None:
    result, results = filled(runner.TERMINATION_LIMIT)
    message = termination_message(result, results)
    assert message == {**result, "results": None, "resultsBytes": len(json.dumps(results))}


def test_values_never_cost_the_verdict_a_text_and_none_are_not_counted() -> None:
    result = {"reason": "NotebookError", "message": "x" * 3980}
    with_values = termination_message(result, {"accuracy": 0.98})
    assert with_values["results"] is None
    assert with_values["resultsBytes"] == len('{"accuracy": 0.98}')
    without = termination_message(result, {})
    assert without["results"] == {}
    assert "resultsBytes" not in without
    for message in (with_values, without):
        assert len(json.dumps(message)) < runner.TERMINATION_LIMIT
