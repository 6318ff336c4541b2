"""Messages by mail, to the SMTP server that a Secret names."""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Literal, cast

import aiosmtplib

from labfunctions_operator.errors import Transient
from labfunctions_operator.providers.notify.gate import Gate, Partly, Undeliverable

TIMEOUT = 20.0
_PORTS = {"starttls": 587, "implicit": 465, "none": 25}


@dataclass(frozen=True, kw_only=True)
class SmtpServer:
    """Where to hand mail in.

    Attributes:
        host: Its name, which its certificate must bear.
        port: TCP.
        tls: `starttls` (always, not only if offered), `implicit`, or `none`.
        sender: The From address.
        username: None to hand in without one.
        password: Belongs to it.
        authority: A PEM certificate to trust in place of the system's.
    """

    host: str
    port: int
    tls: Literal["starttls", "implicit", "none"]
    sender: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    authority: str | None = None

    @classmethod
    def of(cls, secret: Mapping[str, str]) -> "SmtpServer":
        """Read a Secret.

        Raises:
            Undeliverable: A key is missing, or its value cannot be used.
        """
        for key in ("host", "from"):
            if not secret.get(key):
                raise Undeliverable(f"the Secret has no key {key}")
        tls = secret.get("tls", "starttls")
        if tls not in _PORTS:
            raise Undeliverable("the Secret's key tls is none of starttls, implicit, none")
        port = secret.get("port") or str(_PORTS[tls])
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise Undeliverable("the Secret's key port is no port")
        if tls == "none" and secret.get("password"):
            raise Undeliverable("a password is sent only with tls: starttls or implicit")
        return cls(
            host=secret["host"],
            port=int(port),
            tls=cast(Literal["starttls", "implicit", "none"], tls),
            sender=secret["from"],
            username=secret.get("username") or None,
            password=secret.get("password") or None,
            authority=secret.get("ca.crt") or None,
        )


async def hand_in(
    message: EmailMessage, server: SmtpServer, gate: Gate, only: Sequence[str] = ()
) -> None:
    """Hand a mail in for all of its recipients, or only for some.

    Raises:
        Undeliverable: The server will never take it, for at least one of them.
        Partly: It may be taken later for some of them.
        Transient: It may be taken later.
    """
    connection = await gate.connect(server.host, server.port)
    context = _context(server)
    client = aiosmtplib.SMTP(
        hostname=server.host,
        port=None,
        sock=connection,
        timeout=TIMEOUT,
        use_tls=server.tls == "implicit",
        start_tls=server.tls == "starttls",
        tls_context=context,
        username=server.username,
        password=server.password,
        local_hostname="labfunctions",
    )
    try:
        async with client:
            answers, _ = await client.send_message(message, recipients=only or None)
            codes = {address: answer.code for address, answer in answers.items()}
    except aiosmtplib.SMTPRecipientsRefused as error:
        codes = {refused.recipient: refused.code for refused in error.recipients}
    except aiosmtplib.SMTPException as error:
        raise _failure(error, server) from None
    except ssl.SSLError as error:
        raise Undeliverable(f"{server.host}: TLS: {error.reason or 'refused'}") from None
    except (OSError, TimeoutError) as error:
        raise Transient(f"{server.host}: {type(error).__name__}") from None
    if codes:
        raise _refusal(codes, server)


def _context(server: SmtpServer) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=server.authority)
    except (ssl.SSLError, ValueError):
        raise Undeliverable("the Secret's key ca.crt is no certificate") from None


def _refusal(codes: Mapping[str, int], server: SmtpServer) -> Exception:
    """Tell the recipients that are refused for now (4xx, as by greylisting) from the others."""
    later = sorted(address for address, code in codes.items() if code < 500)
    never = sorted(address for address, code in codes.items() if code >= 500)

    def said(addresses: Sequence[str]) -> str:
        shown = [f"{address} ({codes[address]})" for address in addresses]
        return f"{server.host} refuses {', '.join(shown)[:300]}" if shown else ""

    if later:
        return Partly(said(later), later=later, never=said(never))
    return Undeliverable(said(never))


def _failure(error: aiosmtplib.SMTPException, server: SmtpServer) -> Exception:
    """Tell what passes (4xx, a broken connection) from what does not (5xx)."""
    code = getattr(error, "code", 0)
    said = f"{server.host} answered {code}" if code else f"{server.host}: {type(error).__name__}"
    if code >= 500 or isinstance(error, aiosmtplib.SMTPNotSupported):
        return Undeliverable(said)
    return Transient(said)
