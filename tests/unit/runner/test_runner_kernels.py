"""Which kernel a notebook runs with."""

from typing import Any

import pytest

from labfunctions_operator.runner.notebook_run.errors import Refused
from labfunctions_operator.runner.notebook_run.kernels import choose_kernel

PYTHON = {"python3": "python"}
MORE = {"python3": "python", "pypy": "python", "ir": "R"}


def asks(name: str | None = None, language: str | None = None, info: str | None = None) -> Any:
    spec = {key: value for key, value in (("name", name), ("language", language)) if value}
    about: dict[str, Any] = {"kernelspec": spec} if spec else {}
    return {"metadata": about | ({"language_info": {"name": info}} if info else {}), "cells": []}


@pytest.mark.parametrize(
    ("notebook", "available", "want"),
    [
        (asks(), PYTHON, "python3"),
        (asks("ir", "R"), MORE, "ir"),
        (asks("conda-env-x", "python"), PYTHON, "python3"),
        (asks("conda-env-x", info="python"), PYTHON | {"ir": "R"}, "python3"),
        (asks("conda-env-x", info="ipython"), {"mine": "Python"}, "mine"),
        (asks(info="python"), {"mine": "python"}, "mine"),
        (asks(), {"mine": "python", "ir": "R"}, "mine"),
    ],
)
def test_the_kernel_of_a_notebook(notebook: Any, available: dict[str, str], want: str) -> None:
    assert choose_kernel(notebook, available) == want


@pytest.mark.parametrize(
    ("notebook", "available", "message"),
    [
        (asks("ir", "R"), PYTHON, "needs the kernel ir; the image has: python3"),
        (asks("ir"), PYTHON, "needs the kernel ir; the image has: python3"),
        (asks("env", "python"), {"b": "python", "a": "python"}, "kernel env; the image has: a, b"),
        (asks("env", "python"), {"ir": "R"}, "needs the kernel env; the image has: ir"),
        (asks(info="julia"), PYTHON, "needs a kernel for julia; the image has: python3"),
        (asks(), {"ir": "R"}, "needs a kernel for python; the image has: ir"),
    ],
)
def test_a_kernel_that_cannot_be_chosen(
    notebook: Any, available: dict[str, str], message: str
) -> None:
    with pytest.raises(Refused, match=message) as refused:
        choose_kernel(notebook, available)
    assert refused.value.reason == "NotebookInvalid"


def test_an_image_without_kernels() -> None:
    with pytest.raises(Refused) as refused:
        choose_kernel(asks(), {})
    assert refused.value.reason == "RunnerMissing"
