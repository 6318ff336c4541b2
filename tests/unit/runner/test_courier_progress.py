"""What a courier reports, to a real HTTP server that an operator is behind, or nobody."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from loopback import serving

from labfunctions_operator.runner import progress
from labfunctions_operator.runner.notebook_run.pod import write_atomically


class Operator:
    """Takes reports in at the seconds of the notebook's clock; `answers` come before 204s."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = ""
        self.seconds = 0.0
        self.end = 0.0
        self.cells: dict[float, int] = {}
        self.heard: list[tuple[float, int]] = []
        self.answers: list[int] = []

    def follow(self, cells: dict[float, int], *, until: float) -> list[tuple[float, int]]:
        """Let a notebook reach cells at times; return when which reports came."""
        self.cells, self.end = dict(cells), until
        self.sleep(0)
        progress.follow(self.url, self.path, lambda: self.seconds >= self.end, self.sleep)
        return self.heard

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        for when in sorted(self.cells):
            if when <= self.seconds:
                words = {"cell": self.cells.pop(when), "cells": 3, "name": "n"}
                write_atomically(self.path, json.dumps(words))


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    made = Operator(tmp_path / "progress.json")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.heard.append((made.seconds, body["progress"]["cell"]))
            self.send_response(made.answers.pop(0) if made.answers else 204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with serving(Handler) as made.url:
        yield made


def test_a_change_is_reported_at_once_and_then_not_too_often(operator: Operator) -> None:
    heard = operator.follow({2: 1, 3: 2, 20: 3}, until=40)
    assert heard == [(2, 1), (12.5, 2), (23, 3)]


@pytest.mark.parametrize("answer", [403, 404, 503])
def test_what_was_not_heard_is_said_again(operator: Operator, answer: int) -> None:
    operator.answers = [answer] * 3
    assert operator.follow({0: 1}, until=60) == [(0, 1), (10.5, 1), (21, 1), (31.5, 1)]


def test_nobody_there_is_no_reason_to_stop(operator: Operator) -> None:
    operator.url, url = "http://127.0.0.1:1", operator.url
    assert operator.follow({0: 1}, until=20) == []
    operator.url = url
    assert operator.follow({}, until=40)[0] == (21, 1)


def test_a_long_cell_is_told_of_each_minute_as_the_operator_may_have_forgotten_it(
    operator: Operator,
) -> None:
    heard = operator.follow({0: 1}, until=300)
    assert {cell for _, cell in heard} == {1}
    waits = {after - before for (before, _), (after, _) in pairwise(heard)}
    assert waits == {60.0}
