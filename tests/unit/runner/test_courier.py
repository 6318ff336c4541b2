"""The courier against a real HTTP server that fails in the ways stores do."""

import json
import stat
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from loopback import serving

from labfunctions_operator.runner import archive, config, page, progress, transfer
from labfunctions_operator.runner import courier as module
from labfunctions_operator.runner.config import Config
from labfunctions_operator.runner.courier import HTML, NOTEBOOK, RESULT, Courier

S3_DENIED = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"


class Store:
    """What was put and posted; `answers` are given before the store works again."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.order: list[str] = []
        self.types: dict[str, str] = {}
        self.posts: list[Any] = []
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = []
        self.url = ""


def refuse(code: int, body: str = "") -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body.encode())
        handler.close_connection = True

    return answer


def hang(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.6)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            if made.answers:
                made.answers.pop(0)(self)
                return
            name = self.path.split("?")[0].strip("/")
            made.objects[name] = self.rfile.read(int(self.headers["Content-Length"]))
            made.types[name] = self.headers["Content-Type"]
            made.order.append(name)
            self.send_response(200)
            self.send_header("ETag", f'"etag-{len(made.order)}"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            made.posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            refuse(503 if len(made.posts) == 1 else 204)(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with serving(Handler) as made.url:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "BACKOFF_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(module, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(progress, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(transfer, "PUT_TIMEOUT_SECONDS", 0.3)


def make(store: Store, root: Path, *, html: bool = False, report: bool = False) -> Courier:
    names = [NOTEBOOK, RESULT, *([HTML] if html else [])]
    uploads = {name: f"{store.url}/{name}?X-Amz-Signature=secret" for name in names}
    told = Config(uploads, f"{store.url}/report" if report else None, 0.05)
    module.install(root)
    return Courier(told, root, root / "termination-log")


def notebook(*states: str) -> str:
    cells = [
        {
            "cell_type": "code",
            "id": f"c{index}",
            "source": "x",
            "outputs": [],
            "execution_count": None,
            "metadata": {"papermill": {"status": state, "start_time": None}},
        }
        for index, state in enumerate(states)
    ]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells})


def account(courier: Courier) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(courier.termination_log.read_text())
    return read


def soon() -> float:
    return time.monotonic() + 2


def test_the_runner_is_in_place_before_the_pod_is_ready(tmp_path: Path) -> None:
    module.install(tmp_path)
    assert (tmp_path / "bin" / "runner.pyz").read_bytes() == archive.zipped(archive.sources())
    assert [path.name for path in (tmp_path / "bin").iterdir()] == ["runner.pyz"]
    assert stat.S_ISDIR((tmp_path / "out").stat().st_mode)
    assert (tmp_path / "ready").exists()
    module.install(tmp_path)


def test_a_courier_that_is_killed_has_told_what_it_stored(store: Store, tmp_path: Path) -> None:
    courier = make(store, tmp_path)
    (courier.out / NOTEBOOK).write_text(notebook("running"))
    courier.checkpoint(time.monotonic())
    told = account(courier)
    assert list(told["uploads"]) == [NOTEBOOK]
    assert told["error"] == "the pod ended before the last upload was done"


def test_the_last_upload_takes_all_in_order_and_accounts_for_it(
    store: Store, tmp_path: Path
) -> None:
    courier = make(store, tmp_path)
    text = notebook("completed")
    (courier.out / NOTEBOOK).write_text(text)
    (courier.out / RESULT).write_text("{}")
    courier.finish(soon())
    assert store.order == [NOTEBOOK, RESULT]
    assert store.objects[NOTEBOOK] == text.encode()
    assert store.types == {NOTEBOOK: "application/x-ipynb+json", RESULT: "application/json"}
    assert account(courier) == {
        "uploads": {
            NOTEBOOK: {"etag": "etag-1", "bytes": len(text)},
            RESULT: {"etag": "etag-2", "bytes": 2},
        },
        "error": None,
    }


def test_a_checkpoint_is_made_at_once_then_on_change_and_not_too_often(
    store: Store, tmp_path: Path
) -> None:
    courier = make(store, tmp_path)
    courier.checkpoint(0)
    assert store.order == []
    (courier.out / NOTEBOOK).write_text("1")
    courier.checkpoint(1)
    courier.checkpoint(2)
    assert store.order == [NOTEBOOK]
    (courier.out / NOTEBOOK).write_text("22")
    courier.checkpoint(1.01)
    assert store.objects[NOTEBOOK] == b"1"
    courier.checkpoint(1.06)
    assert store.objects[NOTEBOOK] == b"22"


def test_a_notebook_that_a_checkpoint_took_is_not_sent_again(store: Store, tmp_path: Path) -> None:
    courier = make(store, tmp_path)
    (courier.out / NOTEBOOK).write_text("1")
    (courier.out / RESULT).write_text("{}")
    courier.checkpoint(0)
    courier.finish(soon())
    assert store.order == [NOTEBOOK, RESULT]
    assert account(courier)["uploads"][NOTEBOOK]["etag"] == "etag-1"


@pytest.mark.parametrize(
    "answer",
    [refuse(500), refuse(503), refuse(429), refuse(408), hang, hang_up],
    ids=["500", "503", "429", "408", "hang", "hang up"],
)
def test_an_outage_is_outlived_in_a_checkpoint_and_at_the_end(
    store: Store, tmp_path: Path, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    courier = make(store, tmp_path)
    (courier.out / NOTEBOOK).write_text("1")
    (courier.out / RESULT).write_text("{}")
    store.answers = [answer]
    courier.checkpoint(1)
    assert store.order == []
    assert 1 < courier.next_checkpoint < 1.06
    store.answers = [answer, answer]
    courier.finish(time.monotonic() + 4)
    assert store.order == [NOTEBOOK, RESULT]
    assert account(courier)["error"] is None


def test_a_store_that_is_not_there_ends_with_the_deadline(store: Store, tmp_path: Path) -> None:
    courier = make(store, tmp_path)
    courier.config.uploads[NOTEBOOK] = "http://127.0.0.1:1/x?X-Amz-Signature=secret"
    (courier.out / NOTEBOOK).write_text("1")
    (courier.out / RESULT).write_text("{}")
    courier.finish(time.monotonic() + 0.1)
    assert store.order == [RESULT]
    error = account(courier)["error"]
    assert error.startswith("notebook.ipynb: ")
    assert "refused; no time is left" in error


def test_a_refusal_is_final_and_says_what_the_store_said_but_never_the_url(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    courier = make(store, tmp_path, html=True)
    (courier.out / NOTEBOOK).write_bytes(b"x" * 30_000_000)
    (courier.out / RESULT).write_text("{}")
    store.answers = [refuse(403, S3_DENIED)]
    courier.finish(soon())
    assert store.order == [RESULT]
    assert account(courier)["error"] == (
        "notebook.ipynb could not be uploaded: the answer was 403 AccessDenied: Request has expired"
    )
    assert "secret" not in capsys.readouterr().out


def test_a_runner_that_was_killed_leaves_no_claim_of_completion(
    store: Store, tmp_path: Path
) -> None:
    courier = make(store, tmp_path)
    (courier.out / NOTEBOOK).write_text(notebook("running", "completed", "pending"))
    courier.checkpoint(0)
    courier.finish(soon())
    assert store.order == [NOTEBOOK, NOTEBOOK]
    cells = json.loads(store.objects[NOTEBOOK])["cells"]
    states = [cell["metadata"]["papermill"]["status"] for cell in cells]
    assert states == ["failed", "pending", "pending"]
    assert cells[0]["outputs"][0]["ename"] == "Interrupted"


def test_a_broken_notebook_is_uploaded_as_it_is(store: Store, tmp_path: Path) -> None:
    courier = make(store, tmp_path)
    (courier.out / NOTEBOOK).write_text("{half")
    courier.finish(soon())
    assert store.objects == {NOTEBOOK: b"{half"}


def test_nothing_saved_is_said_and_a_verdict_alone_is_uploaded(
    store: Store, tmp_path: Path
) -> None:
    nothing = make(store, tmp_path / "a")
    nothing.finish(soon())
    assert account(nothing) == {
        "uploads": {},
        "error": "nothing was saved, so nothing was uploaded",
    }
    verdict = make(store, tmp_path / "b")
    (verdict.out / RESULT).write_text("{}")
    verdict.finish(soon())
    assert store.order == [RESULT]
    assert account(verdict)["error"] is None


def test_a_page_that_cannot_be_rendered_never_fails_the_upload(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(page, "RENDER_LIMIT_BYTES", 10)
    courier = make(store, tmp_path, html=True)
    (courier.out / NOTEBOOK).write_text(notebook("completed"))
    (courier.out / RESULT).write_text("{}")
    courier.finish(soon())
    assert store.order == [NOTEBOOK, RESULT]
    assert account(courier)["error"] is None
    assert "more than 10" in capsys.readouterr().out


def test_a_page_that_the_store_refuses_never_fails_the_upload(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def render(notebook: Path, page: Path) -> None:
        page.write_text("<html>")
        store.answers = [refuse(403)]

    monkeypatch.setattr(module, "render", render)
    courier = make(store, tmp_path, html=True)
    (courier.out / NOTEBOOK).write_text(notebook("completed"))
    courier.finish(soon())
    assert store.order == [NOTEBOOK]
    assert account(courier)["error"] is None


def test_how_far_a_runner_came_that_was_killed_is_reported_at_last(
    store: Store, tmp_path: Path
) -> None:
    courier = make(store, tmp_path, report=True)
    (courier.out / NOTEBOOK).write_text(notebook("running"))
    (courier.out / "progress.json").write_text(json.dumps({"cell": 2, "cells": 3}))
    courier.finish(soon())
    assert store.posts == [{"progress": {"cell": 2, "cells": 3}}]


def test_it_serves_until_it_is_told_to_stop(store: Store, tmp_path: Path) -> None:
    courier = make(store, tmp_path)
    thread = threading.Thread(target=courier.run)
    thread.start()
    (courier.out / NOTEBOOK).write_text("1")
    while not store.order:
        time.sleep(0.01)
    (courier.out / NOTEBOOK).write_text("22")
    (courier.out / RESULT).write_text("{}")
    courier.stop()
    thread.join()
    assert store.objects == {NOTEBOOK: b"22", RESULT: b"{}"}


def test_a_configuration_that_cannot_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("TERMINATION_LOG", str(log))
    monkeypatch.setenv("COURIER_CONFIG", "{}")
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    assert module.main() == 1
    assert json.loads(log.read_text())["error"].startswith("COURIER_CONFIG cannot be read")
