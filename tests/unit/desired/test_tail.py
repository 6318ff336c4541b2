"""The last lines that a notebook printed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfunctions_operator.desired.tail import tail_of


def stream(text: Any) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": text}


ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "no\nwine", "traceback": []}


def notebook(*cells: Any) -> bytes:
    return json.dumps({"cells": [{"cell_type": "code", "outputs": c} for c in cells]}).encode()


@pytest.mark.parametrize(
    ("cells", "lines"),
    [
        ([], []),
        ([[]], []),
        ([[stream("a\nb\n")]], ["a", "b"]),
        ([[stream(["a\n", "b"])], [stream("c")]], ["c"]),
        ([[stream("a")], [stream("b"), ERROR], [stream("c")]], ["b", "ValueError: no", "wine"]),
        ([[stream("10%\r50%\r100%\r\ndone")]], ["100%", "done"]),
        ([[stream("\x1b[31mred\x1b[0m\n\n")]], ["red"]),
        ([[{"output_type": "execute_result", "data": {"text/plain": "42"}}]], ["42"]),
        ([[{"output_type": "display_data", "data": {"image/png": "x"}}]], []),
        ([[stream("\n".join(map(str, range(100))))]], [str(n) for n in range(60, 100)]),
    ],
)
def test_lines(cells: Any, lines: list[str]) -> None:
    assert tail_of(notebook(*cells)) == lines


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["cells", "outputs", "output_type", "text", "data", "text/plain"]),
            inner,
            max_size=4,
        )
    ),
)


@given(json_values)
def test_whatever_is_stored_there(value: Any) -> None:
    assert isinstance(tail_of(json.dumps({"cells": [value]}).encode()), list)
    assert isinstance(tail_of(json.dumps(value).encode()), list)


def test_what_is_no_json() -> None:
    assert tail_of(b"") == tail_of(b"\xff") == tail_of(b"[" * 100_000) == []
