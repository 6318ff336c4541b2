"""Mail, to a real SMTP server."""

import ssl
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from labfunctions_operator.desired.message import Message
from labfunctions_operator.desired.render import mail
from labfunctions_operator.errors import Transient
from labfunctions_operator.providers.notify import email
from labfunctions_operator.providers.notify.email import SmtpServer, hand_in
from labfunctions_operator.providers.notify.gate import Gate, Partly, Undeliverable
from tests.providers import notify_servers
from tests.providers.notify_servers import hang, http_server, smtp_server

MESSAGE = Message(
    id="u1.failed",
    event="Failed",
    namespace="team",
    workflow="report",
    run="report-1",
    time="2026-01-01T12:00:00Z",
    title="report failed: NotebookError\r\nBcc: everyone@example.com",
    summary="no wine left\n.\nQUIT é",
    document={},
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    folder: Path = tmp_path_factory.mktemp("smtp")
    made, key = folder / "crt", folder / "key"
    names = ["-subj", "/CN=mail", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    files = ["-nodes", "-keyout", key, "-out", made, "-days", "1"]
    subprocess.run([*command, *files, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    return context, made.read_text()


async def send(
    server: notify_servers.SmtpServer,
    *,
    to: list[str] | None = None,
    only: Sequence[str] = (),
    **secret: str,
) -> None:
    values = {
        "host": "127.0.0.1",
        "port": str(server.port),
        "from": "LabFunctions <robot@example.com>",
        "tls": "none",
        **{name.replace("_", "."): value for name, value in secret.items()},
    }
    target = SmtpServer.of(values)
    to = to or ["ada@example.com", "bob@example.com"]
    built = mail(MESSAGE, sender=target.sender, to=to, now=datetime.now(UTC))
    await hand_in(built, target, Gate((server.host,)), only)


async def test_one_mail_goes_to_all_recipients() -> None:
    async with smtp_server() as server:
        await send(server)
    [received] = server.mails
    assert server.recipients == [["ada@example.com", "bob@example.com"]]
    assert received["From"] == "LabFunctions <robot@example.com>"
    assert received["To"] == "ada@example.com, bob@example.com"
    assert received["Message-ID"] == "<u1.failed@labfunctions.io>"
    assert "no wine left\n.\nQUIT é" in received.get_content().replace("\r\n", "\n")


async def test_a_title_cannot_add_a_header() -> None:
    async with smtp_server() as server:
        await send(server)
    [received] = server.mails
    assert received["Bcc"] is None
    assert received["Subject"].endswith("report failed: NotebookError Bcc: everyone@example.com")


@pytest.mark.parametrize("implicit", [False, True])
async def test_mail_and_password_travel_encrypted(
    certificate: tuple[ssl.SSLContext, str], implicit: bool
) -> None:
    context, authority = certificate
    way = "implicit" if implicit else "starttls"
    async with smtp_server(context, implicit=implicit) as server:
        await send(server, tls=way, username="robot", password="right", ca_crt=authority)
        with pytest.raises(Undeliverable, match="answered 535"):
            await send(server, tls=way, username="robot", password="wrong", ca_crt=authority)
    assert server.are_encrypted == [True]
    assert set(server.users) == {"robot"}


async def test_a_certificate_that_nobody_knows_is_not_trusted(
    certificate: tuple[ssl.SSLContext, str],
) -> None:
    async with smtp_server(certificate[0]) as server:
        with pytest.raises((Undeliverable, Transient), match=r"127\.0\.0\.1"):
            await send(server, tls="starttls", username="robot", password="right")
    assert (server.users, server.mails) == ([], [])


async def test_encryption_that_is_asked_for_is_not_done_without() -> None:
    async with smtp_server() as server:
        with pytest.raises((Undeliverable, Transient)):
            await send(server, tls="starttls")
    assert server.mails == []


@pytest.mark.parametrize(
    ("refusal", "error"),
    [("550 no such person", Undeliverable), ("450 busy", Transient)],
)
async def test_who_is_refused_for_good_is_not_tried_again(
    refusal: str, error: type[Exception]
) -> None:
    async with smtp_server() as server:
        server.refuse = dict.fromkeys(("ada@example.com", "bob@example.com"), refusal)
        with pytest.raises(error, match=rf"refuses ada@example\.com .{refusal[:3]}.*bob@example"):
            await send(server)
    assert server.mails == []


async def test_one_refused_recipient_is_told_and_the_others_get_the_mail() -> None:
    async with smtp_server() as server:
        server.refuse = {"bob@example.com": "550 no such person"}
        with pytest.raises(Undeliverable, match=r"refuses bob@example\.com"):
            await send(server)
    assert server.recipients == [["ada@example.com"]]


async def test_a_recipient_refused_for_now_is_tried_again_alone() -> None:
    async with smtp_server() as server:
        server.refuse = {
            "bob@example.com": "550 no such person",
            "cy@example.com": "451 greylisted",
        }
        with pytest.raises(Partly) as refused:
            await send(server, to=["ada@example.com", "bob@example.com", "cy@example.com"])
        assert refused.value.later == ("cy@example.com",)
        assert refused.value.never == "127.0.0.1 refuses bob@example.com (550)"
        assert str(refused.value) == "127.0.0.1 refuses cy@example.com (451)"
        del server.refuse["cy@example.com"]
        await send(server, only=refused.value.later)
    assert server.recipients == [["ada@example.com"], ["cy@example.com"]]
    assert server.mails[0]["Message-ID"] == server.mails[1]["Message-ID"]


@pytest.mark.parametrize(
    ("said", "error"), [("552 too big", Undeliverable), ("451 later", Transient)]
)
async def test_a_mail_refused_as_a_whole(said: str, error: type[Exception]) -> None:
    async with smtp_server() as server:
        server.data_answer = said
        with pytest.raises(error, match=f"answered {said[:3]}"):
            await send(server)


async def test_a_server_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(email, "TIMEOUT", 0.3)
    async with http_server(hang) as silent:
        server = notify_servers.SmtpServer(port=silent.port)
        with pytest.raises(Transient):
            await send(server)


async def test_a_server_that_is_not_there_is_tried_again() -> None:
    async with smtp_server() as server:
        pass
    with pytest.raises(Transient, match="cannot be reached"):
        await send(server)


async def test_a_server_on_loopback_is_refused_unless_it_is_named() -> None:
    async with smtp_server() as server:
        target = SmtpServer.of(
            {"host": "127.0.0.1", "port": str(server.port), "from": "a@b.c", "tls": "none"}
        )
        built = mail(MESSAGE, sender="a@b.c", to=["ada@example.com"], now=datetime.now(UTC))
        with pytest.raises(Undeliverable, match="not a public address"):
            await hand_in(built, target, Gate(("*",)))
    assert server.mails == []


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ({}, "no key host"),
        ({"host": "a"}, "no key from"),
        ({"host": "a", "from": "b", "tls": "maybe"}, "tls is none of"),
        ({"host": "a", "from": "b", "port": "x"}, "is no port"),
        ({"host": "a", "from": "b", "port": "99999"}, "is no port"),
        ({"host": "a", "from": "b", "port": "²"}, "is no port"),
        ({"host": "a", "from": "b", "tls": "none", "password": "p"}, "only with tls"),
    ],
)
def test_a_secret_that_cannot_be_used(secret: dict[str, str], why: str) -> None:
    with pytest.raises(Undeliverable, match=why):
        SmtpServer.of(secret)


def test_a_password_is_not_shown() -> None:
    secret = {"host": "a", "from": "b", "username": "u", "password": "hush"}
    server = SmtpServer.of(secret)
    assert (server.port, server.tls) == (587, "starttls")
    assert "hush" not in repr(server)
