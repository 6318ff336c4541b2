"""Sends files to the URLs that the operator signed, and says which failures are worth a retry."""

import contextlib
import http.client
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

PUT_TIMEOUT_SECONDS = 30
REPORT_TIMEOUT_SECONDS = 5
# Three signed URLs and the names around them are a tenth of this.
ANSWER_LIMIT_BYTES = 64 * 1024
CONTENT_TYPES = {
    ".ipynb": "application/x-ipynb+json",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
}


# What stores other than AWS say with status 400, and AWS where a signer's own credentials ended.
EXPIRED_CODE = "ExpiredToken"


class Refusal(Exception):
    """The store answered, and will answer the same again."""


class Expired(Refusal):
    """The store does not take this URL, or takes it no longer; another one may do."""


class Outage(Exception):
    """The store did not answer, or not well: try again later."""


@dataclass(frozen=True)
class Receipt:
    """What the store has of a file."""

    etag: str
    bytes: int


def put(url: str, path: Path) -> Receipt:
    """Uploads one file; raises Expired, Refusal, Outage, or OSError if the file cannot be read."""
    with path.open("rb") as body:
        size = os.fstat(body.fileno()).st_size
        # An open file without a length would be sent chunked, which S3 refuses.
        headers = {"Content-Length": str(size), "Content-Type": CONTENT_TYPES[path.suffix]}
        answer, _ = _send("PUT", url, body, headers, PUT_TIMEOUT_SECONDS)
    return Receipt(etag=answer.get("ETag", "").strip('"'), bytes=size)


def post(url: str, body: dict[str, Any]) -> str:
    """Posts JSON and returns the answer's text; raises Refusal or Outage."""
    headers = {"Content-Type": "application/json"}
    _, text = _send("POST", url, json.dumps(body).encode(), headers, REPORT_TIMEOUT_SECONDS)
    return text


def _send(
    method: str, url: str, body: IO[bytes] | bytes, headers: dict[str, str], timeout: float
) -> tuple[http.client.HTTPMessage, str]:
    """The response's headers and text. No message names the URL: its signature is a credential."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    new_connection = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = new_connection(parts.netloc, timeout=timeout)
    try:
        # A store that refuses may answer and hang up before it has read the whole file.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, urlunsplit(("", "", *parts[2:4], "")), body, headers)
        response = connection.getresponse()
        text = response.read(ANSWER_LIMIT_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise Outage(str(error) or type(error).__name__) from None
    finally:
        connection.close()
    if response.status in (408, 429) or response.status >= 500:
        raise Outage(_explain(response, text))
    if response.status == 403 or (response.status == 400 and EXPIRED_CODE in text):
        raise Expired(_explain(response, text))
    if response.status >= 300:
        raise Refusal(_explain(response, text))
    return response.headers, text


def _explain(response: http.client.HTTPResponse, text: str) -> str:
    found = [re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("Code", "Message")]
    why = ": ".join(match[1].strip() for match in found if match) or response.reason
    return f"the answer was {response.status} {why}"
