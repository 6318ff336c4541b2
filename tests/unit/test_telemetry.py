"""What a line of the log says, and what it never says."""

import asyncio
import json
import logging
from typing import Any

import pytest
from objects import make_object

from labfunctions_operator.telemetry import JsonFormatter, speak_of

logger = logging.getLogger("labfunctions_operator.test")
RUN = {"kind": "Run", "namespace": "team", "name": "first", "generation": 3}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.handler.setFormatter(JsonFormatter())
    caplog.set_level(logging.INFO)
    return lambda: [json.loads(line) for line in caplog.text.splitlines()]


async def test_line_is_about_the_object_that_its_task_speaks_of(lines: Any) -> None:
    async def child() -> None:
        logger.warning("from a task of its own")

    async def reconcile() -> None:
        speak_of(make_object("Run", "first", {}, generation=3))
        logger.info("status: %s -> %s", "Starting", "Running", extra={"action": "status"})
        await asyncio.create_task(child())

    await asyncio.create_task(reconcile())
    logger.info("of nobody")
    first, second, last = lines()
    assert RUN.items() <= first.items()
    assert (first["message"], first["action"]) == ("status: Starting -> Running", "status")
    assert (first["level"], first["logger"]) == ("info", "labfunctions_operator.test")
    assert RUN.items() <= second.items()
    assert not RUN.keys() & last.keys()


async def test_line_that_names_an_object_is_about_that_one(lines: Any) -> None:
    logger.info("m", extra={"object": {"kind": "Run", "namespace": "team", "name": "second"}})
    [line] = lines()
    assert (line["kind"], line["namespace"], line["name"]) == ("Run", "team", "second")
    assert "object" not in line


@pytest.mark.parametrize(
    "text",
    [
        "GET https://user:s3cret@git.test/wine.git",
        "GET https://s3cret@git.test/wine.git",
        "PUT http://store/k?X-Amz-Signature=s3cret&X-Amz-Date=1",
        "PUT http://store/k?X-Amz-Credential=s3cret%2F2026",
        "POST http://operator/v1/reports/a/b?signature=s3cret",
        "Authorization: Bearer s3cret",
    ],
)
def test_secret_in_an_error_is_masked(lines: Any, text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError as error:
        logger.exception("cannot: %s", error)
    [line] = lines()
    assert "s3cret" not in json.dumps(line)
    assert line["message"].count("[masked]") == 1
    assert "Traceback" in line["exception"]
    assert line["message"].split("[masked]")[0] in f"cannot: {text}"
