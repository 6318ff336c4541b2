"""The verdict and the values, and where they fit."""

import json
from typing import Any

import pytest

from labfunctions_operator.runner.notebook_run.conclusion import (
    TERMINATION_LIMIT,
    shorten,
    termination_message,
)


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
    short = shorten(result, TERMINATION_LIMIT)
    assert len(json.dumps(short)) < 4000
    assert short["cell"]["index"] == 2
    assert (short["reason"], short["notebookSha256"]) == ("ParametersInvalid", "f" * 64)
    assert shorten({"a": "b"}, 4000) == {"a": "b"}


def filled(size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A result and values whose termination message has so many bytes."""
    result = {"reason": "Succeeded", "message": "all"}
    empty = len(json.dumps({**result, "results": {"a": ""}}))
    return result, {"a": "x" * (size - empty)}


def test_values_that_just_fit_are_in_the_termination_message() -> None:
    result, results = filled(TERMINATION_LIMIT - 1)
    message = termination_message(result, results)
    assert message == {**result, "results": results}
    assert len(json.dumps(message)) == TERMINATION_LIMIT - 1


def test_values_that_do_not_fit_are_counted_and_nothing_else_is_cut() -> None:
    result, results = filled(TERMINATION_LIMIT)
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
        assert len(json.dumps(message)) < TERMINATION_LIMIT
