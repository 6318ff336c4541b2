"""A server that takes messages: as Slack, Discord and any webhook would, or as a test tells it."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.providers.provider_servers import free_port

from .api import until


@dataclass(frozen=True)
class Letter:
    path: str
    headers: dict[str, str]
    body: Any


class Inbox:
    """Answers 200 to everything, but for the paths that are told otherwise; takes mail, too."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self.mails: list[EmailMessage] = []
        self.smtp = Controller(self, hostname="127.0.0.1", port=free_port())
        self.status: dict[str, int] = {}
        self._held: dict[str, threading.Event] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def mail_host(self) -> str:
        return f"127.0.0.1:{self.smtp.port}"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=default)
        self.mails.append(mail)  # type: ignore[arg-type]
        return "250 taken"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def hook(self, path: str, **fields: Any) -> dict[str, Any]:
        """Return a target, as in a manifest."""
        return {"webhook": {"url": f"{self.url}/{path}", **fields}}

    def start(self) -> None:
        self._thread.start()
        self.smtp.start()

    def stop(self) -> None:
        self.reset()
        self.smtp.stop()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def reset(self) -> None:
        for event in self._held.values():
            event.set()
        self._held.clear()
        self.letters.clear()
        self.mails.clear()
        self.status.clear()

    def hold(self, path: str) -> None:
        """Take requests to a path, and answer none until they are released."""
        self._held[path] = threading.Event()

    def release(self, path: str) -> None:
        self._held.pop(path).set()

    def to(self, path: str) -> list[Letter]:
        return [letter for letter in self.letters if letter.path == f"/{path}"]

    def receive(self, path: str, count: int = 1, seconds: float = 60) -> list[Letter]:
        """Wait until so many requests to a path have come."""

        def enough() -> list[Letter] | None:
            found = self.to(path)
            return found if len(found) >= count else None

        return until(enough, f"{count} messages to /{path}", seconds=seconds)

    def _answer(self, path: str) -> tuple[int, Callable[[], None]]:
        held = self._held.get(path)
        wait = (lambda: held.wait(60)) if held else (lambda: True)
        return self.status.get(path, 200), lambda: wait() and None

    def _handler(inbox) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                path = self.path.split("?")[0]
                status, wait = inbox._answer(path.lstrip("/"))
                inbox.letters.append(Letter(path, dict(self.headers), json.loads(body)))
                wait()
                try:
                    self._say(status)
                except OSError:
                    return  # whoever asked is gone

            def _say(self, status: int) -> None:
                self.send_response(status)
                answer = json.dumps({"ok": status == 200, "error": "channel_not_found"}).encode()
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
