"""Messages to any HTTP server, as JSON or as CloudEvents."""

import re
from collections.abc import Mapping
from typing import Any

from labfunctions_operator.providers.notify.gate import Gate, Undeliverable
from labfunctions_operator.providers.notify.web import Post, send

JSON = "application/json"
CLOUD_EVENTS = "application/cloudevents+json; charset=utf-8"
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE = re.compile(r"[\t\x20-\x7e]{0,4096}")
# What makes a request one: not the user's to set.
_OURS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection"})


async def post(
    body: dict[str, Any], *, url: str, headers: Mapping[str, str], content_type: str, gate: Gate
) -> None:
    """Post a message.

    Raises:
        Undeliverable: The server will never take it, or a header is none.
        Transient: It may be taken later.
    """
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value) or name.lower() in _OURS:
            raise Undeliverable(f"the Secret's key {name[:100]!r} cannot be sent as a header")
    request = Post(url=url, body=body, content_type=content_type, secret_headers=headers)
    await send(request, gate)
