"""The values that a notebook returns."""

from typing import Any

import pytest

from labfunctions_operator.runner.notebook_run.results import RESULT_MIME, collect_results


def displays(*contents: Any) -> dict[str, Any]:
    outputs = [
        {"output_type": "display_data", "data": {RESULT_MIME: content}, "metadata": {}}
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
