"""HTTP to servers that nobody here knows: checked addresses, bounded time and answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from labfunctions_operator.api.notification import check_url
from labfunctions_operator.errors import Transient
from labfunctions_operator.providers.notify.gate import CONNECT_TIMEOUT, Gate, Undeliverable

TIMEOUT = 15.0
ANSWER_LIMIT = 64 * 1024
REDIRECTS = 3
RETRY_AFTER_LIMIT = 3600.0
USER_AGENT = "labfunctions-operator"

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LATER = frozenset({408, 425, 429})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server answered; of a refusal also the first line."""

    status: int
    headers: Mapping[str, str]
    detail: str


class _BoundedResponse(aiohttp.ClientResponse):
    """Reads an answer only so far: what is longer is cut."""

    async def read(self) -> bytes:
        if self._body is None:
            self._body = await _read(self.content)
            self.close()
        return self._body


async def _read(content: aiohttp.StreamReader) -> bytes:
    read = bytearray()
    while len(read) < ANSWER_LIMIT and (chunk := await content.read(ANSWER_LIMIT - len(read))):
        read += chunk
    return bytes(read)


def open_session(gate: Gate) -> aiohttp.ClientSession:
    """Return a session for one message, which connects only where the gate lets it."""
    return aiohttp.ClientSession(
        connector=gate.connector(),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT, sock_connect=CONNECT_TIMEOUT),
        response_class=_BoundedResponse,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
        trust_env=False,
    )


@dataclass(frozen=True, kw_only=True)
class Post:
    """A request to send.

    Attributes:
        url: Where to; it may hold a secret.
        body: Written as JSON.
        content_type: Of the body.
        secret_headers: Sent only to the host of `url`, whatever it redirects to.
    """

    url: str
    body: Any
    content_type: str = "application/json"
    secret_headers: Mapping[str, str] = field(default_factory=dict)


async def send(post: Post, gate: Gate) -> None:
    """Send a request, following the redirects that keep it what it is.

    Only the status counts: who has said that it took a message must not get it again because of
    what followed.

    Raises:
        Undeliverable: An address is refused, or the server will never take it.
        Transient: It may be taken later.
    """
    url = _checked(post.url, "the URL")
    first = _origin(url)
    body = json.dumps(post.body).encode()
    try:
        async with open_session(gate) as session:
            for _ in range(REDIRECTS + 1):
                headers = {"Content-Type": post.content_type}
                if _origin(url) == first:
                    headers = {**post.secret_headers, **headers}
                answer = await _once(session, gate, url, body, headers)
                if answer.status < 300:
                    return
                if answer.status >= 400:
                    raise failure(answer.status, answer.headers, answer.detail)
                url = _next(url, answer)
    except aiohttp.InvalidURL:
        raise Undeliverable("the URL is not one") from None
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise transient(error, urlsplit(url).hostname or "") from None
    raise Undeliverable("the server redirects too often")


async def _once(
    session: aiohttp.ClientSession, gate: Gate, url: str, body: bytes, headers: Mapping[str, str]
) -> Answer:
    host, port = _origin(url)[1:]
    gate.check(host, port)
    async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
        detail = await _detail(response) if response.status >= 400 else ""
        return Answer(status=response.status, headers=response.headers.copy(), detail=detail)


async def _detail(response: aiohttp.ClientResponse) -> str:
    try:
        return _first_line(await response.read())
    except (aiohttp.ClientError, TimeoutError, OSError):
        return ""


def failure(status: int, headers: Mapping[str, str], detail: str = "") -> Exception:
    """Return the exception that stands for a refusal."""
    said = f"the server answered {status}" + (f": {detail}" if detail else "")
    if status in _LATER or status >= 500:
        return Transient(said, retry_after=retry_after(headers))
    return Undeliverable(said)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait, if it does; an hour at most."""
    text = headers.get("Retry-After", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), RETRY_AFTER_LIMIT) if seconds == seconds else None  # noqa: PLR0124


def transient(error: Exception, host: str) -> Transient:
    """Say what went wrong on the way, never where exactly: the URL may hold a token."""
    why = type(error).__name__
    if isinstance(error, TimeoutError):
        why = "no answer in time"
    elif isinstance(error, aiohttp.ClientConnectorError):
        why = error.os_error.strerror or "cannot connect"
    return Transient(f"{host}: {why}")


def _checked(url: str, what: str) -> str:
    try:
        check_url(url)
    except ValueError as error:
        raise Undeliverable(f"{what} {error}") from None
    return url


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]


def _next(url: str, answer: Answer) -> str:
    """Follow only what keeps the request a POST; other redirects would lose the message."""
    place = answer.headers.get("Location", "")
    if answer.status not in (307, 308) or not place:
        raise Undeliverable(f"the server answered {answer.status}; only 307 and 308 are followed")
    target = _checked(urljoin(url, place), "the redirect's URL")
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
        raise Undeliverable("the server redirects from https to http")
    return target


def _first_line(body: bytes) -> str:
    text = body[:1000].decode(errors="replace").strip()
    line = text.splitlines()[0] if text else ""
    return "".join(c for c in line if c.isprintable())[:200]
