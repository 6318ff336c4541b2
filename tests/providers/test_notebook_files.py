"""Notebooks as they are found in repositories: good ones, odd ones, and files of that name."""

import hashlib
import io
import json
from typing import Any

import pytest

from labfunctions_operator.providers.notebooks import NOTEBOOK_LIMIT, read_notebook
from labfunctions_operator.reconcile.source import Notebook


def inspect(content: str | bytes | dict[str, Any]) -> Notebook:
    if isinstance(content, dict):
        content = json.dumps(content)
    raw = content.encode() if isinstance(content, str) else content
    return read_notebook(io.BytesIO(raw).read, len(raw))


def notebook(*sources: str, **metadata: Any) -> dict[str, Any]:
    cells = [
        {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": s, "outputs": []}
        for s in sources
    ]
    return {"nbformat": 4, "nbformat_minor": 4, "metadata": metadata, "cells": cells}


def test_parameters_and_language() -> None:
    document = notebook(
        "n_estimators: int = 50  # trees in the forest\nname = 'a=b'\n",
        language_info={"name": "Python"},
    )

    found = inspect(document)

    assert found.error is None
    assert found.language == "python"
    assert [tuple(d) for d in found.declared or ()] == [
        ("n_estimators", "int", "50", "trees in the forest"),
        ("name", "str", "'a=b'", ""),
    ]
    assert found.sha256 == hashlib.sha256(json.dumps(document).encode()).hexdigest()


def test_no_parameters_is_not_the_same_as_unknown_ones() -> None:
    assert inspect(notebook()).declared == ()
    assert inspect(notebook("x <- 1", kernelspec={"language": "R"})).declared is None
    assert inspect(notebook("x = = 1")).declared is None


def test_an_old_format_is_a_notebook() -> None:
    cell = {"cell_type": "code", "input": "1", "language": "python", "outputs": []}
    old = {
        "nbformat": 3,
        "nbformat_minor": 0,
        "metadata": {"name": ""},
        "worksheets": [{"cells": [cell], "metadata": {}}],
    }

    assert inspect(old).error is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "print('a script')",
        "[]",
        "{}",
        '{"nbformat": 4}',
        '{"nbformat": 4, "cells": [1]}',
        '{"nbformat": 2}',
        '{"nbformat": "4", "cells": []}',
        '{"nbformat": 4, "cells": [], "metadata": []}',
        '{"nbformat": 4, "cells": [], "metadata": {"kernelspec": "python"}}',
        '{"nbformat": 4, "cells": [{"source": "", "metadata": ["tags"]}]}',
        b"\xff\xfe\x00",
        "[" * 100_000,
    ],
)
def test_what_is_not_a_notebook(content: str | bytes) -> None:
    found = inspect(content)

    assert found.error is not None
    assert found.error.startswith("is not a notebook")
    assert "/tmp" not in found.error
    assert "\n" not in found.error
    assert found.declared == ()


def test_a_notebook_too_large_is_not_parsed() -> None:
    raw = b"x" * (NOTEBOOK_LIMIT + 1)

    found = inspect(raw)

    assert found.error == "is larger than 10 MiB; clear its outputs"
    assert found.sha256 == hashlib.sha256(raw).hexdigest()
