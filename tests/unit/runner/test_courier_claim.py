"""A courier that has to ask what it may do, against a real HTTP server in the operator's place."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from loopback import serving

from labfunctions_operator.runner import config, progress
from labfunctions_operator.runner import courier as module
from labfunctions_operator.runner.config import Config
from labfunctions_operator.runner.courier import NOTEBOOK, RESULT, Courier

JOB = "report-29453520"


class Operator:
    """Answers claims, and takes in what is uploaded; `answers` are given before it grants.

    It is the store as well, which takes no URL but those of the last grant: `spend` ends them.
    """

    def __init__(self) -> None:
        self.url = ""
        self.age = 0
        self.deaf = False
        self.refused = (403, "<Code>AccessDenied</Code><Message>Request has expired</Message>")
        self.asked: list[Any] = []
        self.progress: list[Any] = []
        self.objects: dict[str, bytes] = {}
        self.answers: list[tuple[int, str]] = []

    def grant(self) -> str:
        uploads = {n: f"{self.url}/{n}?age={self.age}&secret" for n in (NOTEBOOK, RESULT)}
        urls = {"report": f"{self.url}/report", "renew": f"{self.url}/renew?signature=secret"}
        return json.dumps({"uploads": uploads, **urls, "checkpointSeconds": 0.05})

    def spend(self) -> None:
        """Let all URLs end that were signed so far."""
        self.age += 1


@pytest.fixture
def operator() -> Iterator[Operator]:
    made = Operator()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.startswith("/report"):
                made.progress.append(body)
                return self.answer(204)
            made.asked.append(body)
            status, text = made.answers.pop(0) if made.answers else (200, made.grant())
            return self.answer(status, text)

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if made.deaf or f"age={made.age}&" not in self.path:
                return self.answer(*made.refused)
            made.objects[self.path.split("?")[0].strip("/")] = content
            return self.answer(200)

        def answer(self, status: int, text: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with serving(Handler) as made.url:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "BACKOFF_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(module, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(progress, "TICK_SECONDS", 0.01)


def make(operator: Operator, root: Path, *, granted: bool = False) -> Courier:
    text = json.dumps({"claim": f"{operator.url}/claim?signature=secret", "checkpointSeconds": 30})
    module.install(root)
    told = Config.parse(operator.grant() if granted else text, JOB)
    return Courier(told, root, root / "termination-log")


def account(courier: Courier) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(courier.termination_log.read_text())
    return read


def save(courier: Courier) -> None:
    (courier.out / NOTEBOOK).write_text("{}")
    (courier.out / RESULT).write_text("{}")


def test_it_asks_by_the_name_of_its_job_and_then_serves_as_ever(
    operator: Operator, tmp_path: Path
) -> None:
    courier = make(operator, tmp_path)
    thread = threading.Thread(target=courier.run)
    thread.start()
    save(courier)
    (courier.out / "progress.json").write_text('{"cell": 1, "cells": 2}')
    deadline = time.monotonic() + 3
    while not (operator.progress and NOTEBOOK in operator.objects):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    courier.stop()
    thread.join()
    assert operator.asked == [{"job": JOB}]
    assert set(operator.objects) == {NOTEBOOK, RESULT}
    assert account(courier)["error"] is None


@pytest.mark.parametrize(
    "answer",
    [(404, ""), (503, ""), (403, ""), (200, "<html>"), (200, "[]"), (200, '{"uploads": 1}')],
)
def test_whatever_the_answer_it_asks_again_while_the_notebook_runs(
    operator: Operator, tmp_path: Path, answer: tuple[int, str]
) -> None:
    courier = make(operator, tmp_path)
    operator.answers = [answer]
    save(courier)
    assert courier.claim(1.0)
    courier.checkpoint(1.0)
    assert operator.objects == {}
    assert courier.claim(1.001) is None
    assert len(operator.asked) == 1, "its turn has not come"
    assert courier.claim(2.0) is None
    courier.checkpoint(2.0)
    assert set(operator.objects) == {NOTEBOOK}


def test_at_the_end_it_waits_for_an_operator_that_comes_back(
    operator: Operator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    courier = make(operator, tmp_path)
    operator.answers = [(503, "")] * 4
    save(courier)
    courier.finish(time.monotonic() + 3)
    assert len(operator.asked) == 5
    assert set(operator.objects) == {NOTEBOOK, RESULT}
    assert account(courier)["error"] is None
    assert "secret" not in capsys.readouterr().out


def test_an_operator_that_stays_away_costs_the_outputs_and_it_says_so(tmp_path: Path) -> None:
    nobody = Operator()
    nobody.url = "http://127.0.0.1:1"
    courier = make(nobody, tmp_path)
    save(courier)
    courier.finish(time.monotonic() + 0.2)
    told = account(courier)
    assert told["uploads"] == {}
    assert told["error"].startswith("the operator did not say where the results go: ")


def test_how_far_a_killed_runner_came_is_reported_once_it_is_known_where_to(
    operator: Operator, tmp_path: Path
) -> None:
    courier = make(operator, tmp_path)
    (courier.out / NOTEBOOK).write_text("{}")
    (courier.out / "progress.json").write_text('{"cell": 1, "cells": 2}')
    courier.stop()
    courier.finish(time.monotonic() + 2)
    assert operator.progress == [{"progress": {"cell": 1, "cells": 2}}]


def test_nothing_saved_needs_no_answer(operator: Operator, tmp_path: Path) -> None:
    courier = make(operator, tmp_path)
    courier.finish(time.monotonic() + 2)
    assert operator.asked == []
    assert account(courier)["error"] == "nothing was saved, so nothing was uploaded"


@pytest.mark.parametrize(
    "refused",
    [
        (403, "<Code>AccessDenied</Code><Message>Request has expired</Message>"),
        (400, "<Code>ExpiredToken</Code><Message>The provided token has expired.</Message>"),
    ],
)
def test_urls_that_have_ended_are_replaced_while_the_notebook_runs_and_at_its_end(
    operator: Operator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    refused: tuple[int, str],
) -> None:
    monkeypatch.setattr(module, "RENEWAL_SECONDS", 0.0)
    operator.refused = refused
    courier = make(operator, tmp_path, granted=True)
    save(courier)
    operator.spend()
    courier.checkpoint(1.0)
    assert set(operator.objects) == {NOTEBOOK}
    (courier.out / NOTEBOOK).write_text('{"more": 1}')
    operator.spend()
    courier.finish(time.monotonic() + 2)
    assert operator.objects == {NOTEBOOK: b'{"more": 1}', RESULT: b"{}"}
    assert account(courier)["error"] is None
    assert operator.asked == [{}, {}]
    assert "secret" not in capsys.readouterr().out


def test_a_store_that_refuses_every_url_is_not_asked_about_again_and_again(
    operator: Operator, tmp_path: Path
) -> None:
    courier = make(operator, tmp_path, granted=True)
    operator.deaf = True
    save(courier)
    for now in range(5):
        courier.checkpoint(float(now))
    courier.finish(time.monotonic() + 2)
    assert operator.asked == [{}]
    assert account(courier)["error"] == (
        "notebook.ipynb could not be uploaded: the answer was 403 AccessDenied: Request has expired"
    )


def test_at_the_end_other_urls_are_waited_for_as_long_as_there_is_time(
    operator: Operator, tmp_path: Path
) -> None:
    courier = make(operator, tmp_path, granted=True)
    operator.spend()
    operator.answers = [(503, ""), (200, "<html>"), (503, "")]
    save(courier)
    courier.finish(time.monotonic() + 3)
    assert len(operator.asked) == 4
    assert set(operator.objects) == {NOTEBOOK, RESULT}
    assert account(courier)["error"] is None


def test_an_operator_that_signs_no_other_url_has_the_last_word(
    operator: Operator, tmp_path: Path
) -> None:
    courier = make(operator, tmp_path, granted=True)
    operator.spend()
    operator.answers = [(409, "")]
    save(courier)
    courier.finish(time.monotonic() + 3)
    assert operator.asked == [{}]
    assert account(courier)["error"] == (
        "notebook.ipynb could not be uploaded: the answer was 403 AccessDenied: Request has expired"
        "; no other URL was signed: the answer was 409 Conflict"
    )


def test_a_courier_that_a_cron_jobs_pod_has_can_ask_again(
    operator: Operator, tmp_path: Path
) -> None:
    courier = make(operator, tmp_path)
    assert courier.claim(1.0) is None
    operator.spend()
    save(courier)
    courier.finish(time.monotonic() + 2)
    assert operator.asked == [{"job": JOB}, {}]
    assert set(operator.objects) == {NOTEBOOK, RESULT}
