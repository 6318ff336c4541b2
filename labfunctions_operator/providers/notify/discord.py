"""Messages to a Discord channel's webhook."""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from labfunctions_operator.providers.notify.gate import Gate
from labfunctions_operator.providers.notify.web import Post, send


async def post_to_webhook(body: dict[str, Any], *, url: str, gate: Gate) -> None:
    """Post a message, and wait until Discord has taken it.

    Raises:
        Undeliverable: The webhook is gone, or takes no such message.
        Transient: It may be taken later.
    """
    parts = urlsplit(url)
    # Without it Discord answers before it knows whether it can take the message.
    query = urlencode(
        [*((k, v) for k, v in parse_qsl(parts.query) if k != "wait"), ("wait", "true")]
    )
    await send(Post(url=urlunsplit(parts._replace(query=query)), body=body), gate)
