"""Servers on loopback that take messages, and misbehave as a test tells them."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def answer(status: int = 200, body: Any = "ok", **headers: str) -> Reply:
    """Answer at once; a body that is no text is JSON."""
    kind = "text/plain" if isinstance(body, str) else "application/json; charset=utf-8"
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    named = {"Content-Type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}}

    async def reply(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}"]
        lines += [f"{name}: {value}" for name, value in named.items()]
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + data)

    return reply


def slow(seconds: float) -> Reply:
    async def reply(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await answer()(writer)

    return reply


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def broken(status: int, *headers: str) -> Reply:
    """Answer with a body that ends too early."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} X", "Content-Length: 1000", *headers, "", "ok"]
        writer.write("\r\n".join(lines).encode())

    return reply


async def close_at_once(writer: asyncio.StreamWriter) -> None:
    pass


async def endless(writer: asyncio.StreamWriter) -> None:
    """Answer without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        writer.write(b" " * 65536)
        await writer.drain()


@dataclass
class HttpServer:
    """Takes any request; replies as scripted, and with the last reply from then on."""

    port: int = 0
    scheme: str = "http"
    replies: list[Reply] = field(default_factory=lambda: [answer()])
    requests: list[Request] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split(" ")
            pairs = [line.split(": ", 1) for line in head[1:] if line]
            headers = {name.lower(): value for name, value in pairs}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append(Request(method, path, headers, body))
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            await reply(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def http_server(
    *replies: Reply, context: ssl.SSLContext | None = None
) -> AsyncIterator[HttpServer]:
    served = HttpServer(scheme="https" if context else "http")
    if replies:
        served.replies = list(replies)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await served.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class SmtpServer:
    """Keeps the mails it is handed, and refuses what a test tells it to."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)
    data_answer: str = "250 taken"
    users: list[str] = field(default_factory=list)
    are_encrypted: list[bool] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def handle_RCPT(
        self, _: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if refusal := self.refuse.get(address):
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        if self.data_answer.startswith("250"):
            mail = message_from_bytes(envelope.content, policy=default)
            self.mails.append(mail)  # type: ignore[arg-type]
            self.recipients.append(envelope.rcpt_tos)
            assert server.transport is not None
            self.are_encrypted.append(bool(server.transport.get_extra_info("ssl_object")))
        return self.data_answer

    def authenticate(self, server: Any, session: Any, envelope: Any, way: str, data: Any) -> Any:
        assert isinstance(data, LoginPassword)
        self.users.append(data.login.decode())
        return AuthResult(success=data.password == b"right", handled=False)


@asynccontextmanager
async def smtp_server(
    context: ssl.SSLContext | None = None, *, implicit: bool = False
) -> AsyncIterator[SmtpServer]:
    served = SmtpServer()
    ends: list[asyncio.Event] = []

    class Protocol(SMTP):
        def connection_lost(self, error: Exception | None) -> None:
            super().connection_lost(error)
            self.end.set()

    def connect() -> SMTP:
        starttls = {} if context is None or implicit else {"tls_context": context}
        protocol = Protocol(
            served,
            authenticator=served.authenticate,
            auth_require_tls=False,
            hostname="test",
            loop=asyncio.get_running_loop(),
            **starttls,
        )
        protocol.end = asyncio.Event()
        ends.append(protocol.end)
        return protocol

    loop = asyncio.get_running_loop()
    server = await loop.create_server(connect, "127.0.0.1", 0, ssl=context if implicit else None)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for end in ends:
            await end.wait()
