"""Messages to Slack, by a bot's token or by an incoming webhook."""

import logging
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from labfunctions_operator.errors import Transient
from labfunctions_operator.providers.notify.gate import Gate, Undeliverable
from labfunctions_operator.providers.notify.web import (
    Post,
    failure,
    open_session,
    retry_after,
    send,
    transient,
)

# Slack's words for what passes; every other error needs somebody to change something.
_PASSING = frozenset(
    {
        "ratelimited",
        "rate_limited",
        "internal_error",
        "fatal_error",
        "service_unavailable",
        "request_timeout",
        "team_added_to_org",
        "message_limit_exceeded",
    }
)
# It would log requests and answers on its own terms.
_SILENT = logging.getLogger("labfunctions.slack")
_SILENT.setLevel(logging.CRITICAL)


async def post_to_channel(
    body: dict[str, Any], *, token: str, channel: str, base_url: str, gate: Gate
) -> None:
    """Post a message as a bot.

    Args:
        body: Text and blocks.
        token: The bot's.
        channel: A name or an id.
        base_url: Of Slack's Web API, with a slash at its end.
        gate: Where may be called.

    Raises:
        Undeliverable: Slack's word for it, such as channel_not_found or invalid_auth.
        Transient: It may be taken later.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    gate.check(host, parts.port or (443 if parts.scheme == "https" else 80))
    async with open_session(gate) as session:
        client = AsyncWebClient(
            token=token,
            base_url=base_url,
            session=session,
            retry_handlers=[],
            logger=_SILENT,
        )
        try:
            await client.chat_postMessage(channel=channel, **body, link_names=False, parse="none")
        except SlackApiError as error:
            raise _refusal(error) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise transient(error, host) from None
        except (SlackClientError, ValueError, AttributeError):
            # The SDK takes for granted that an answer is an object.
            raise Transient(f"{host}: no answer of Slack's") from None


def _refusal(error: SlackApiError) -> Exception:
    answer: Any = error.response
    data = getattr(answer, "data", None)
    # Without words of Slack's it is aiohttp's response: something else has answered.
    status = int(getattr(answer, "status_code", None) or getattr(answer, "status", None) or 502)
    headers = getattr(answer, "headers", {})
    word = str(data.get("error", "")) if isinstance(data, dict) else ""
    if not word:
        return failure(502 if status < 300 else status, headers)
    if word in _PASSING or status == 429 or status >= 500:
        return Transient(f"Slack says {word}", retry_after=retry_after(headers))
    return Undeliverable(f"Slack says {word[:100]}")


async def post_to_webhook(body: dict[str, Any], *, url: str, gate: Gate) -> None:
    """Post a message to an incoming webhook, which answers with plain words.

    Raises:
        Undeliverable: The webhook is gone, or takes no such message.
        Transient: It may be taken later.
    """
    await send(Post(url=url, body=body), gate)
