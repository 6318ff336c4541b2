"""A message as each medium takes it: escaped, mentioning nobody, and within its limits."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

from labfunctions_operator.api.labels import API_VERSION, GROUP
from labfunctions_operator.desired.message import Link, Message, cut, one_line

_SIGNS = {"Succeeded": "✅", "Failed": "❌", "Missed": "⏰", "Recovered": "✅"}
_COLOURS = {"Succeeded": 0x2EB67D, "Failed": 0xE01E5A, "Missed": 0xECB22E, "Recovered": 0x2EB67D}
# Breaks a word for programs, and not for readers.
_JOINER = "\u2060"
_MENTION = re.compile(r"@(?=everyone|here|channel|[0-9!&<])", re.IGNORECASE)
_MARKDOWN = re.compile(r"([\\`*_~|>#\[\]()<:-])")
# For one text within a block.
_SLACK_LIMIT = 3000
# Discord counts the whole embed, too.
_DISCORD_LIMIT = 6000
_DESCRIPTION_LIMIT = 4096
# What is said in place of a link is shorter.
_TOO_LONG_LIMIT = 100


def subject(message: Message) -> str:
    """Return one line without anything that could begin another header."""
    return one_line(f"[{message.namespace}] {message.title}", 200)


def plain(message: Message) -> str:
    """Return the message as plain text."""
    parts = [message.title]
    if message.text:
        parts.append(message.text)
    else:
        width = max((len(name) for name, _ in message.facts), default=0) + 2
        facts = "\n".join(f"{name + ':':<{width}}{value}" for name, value in message.facts)
        parts += [message.summary, facts]
        if message.tail:
            parts.append("Last lines of output:\n" + "\n".join(f"  {x}" for x in message.tail))
    parts.append(
        "\n".join(f"{link.label}: {link.url}{_until(link.expires)}" for link in message.links)
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def mail(message: Message, *, sender: str, to: list[str], now: datetime) -> EmailMessage:
    """Return a mail; its id is the same for every try.

    Args:
        message: What it says.
        sender: The address of From, with or without a name.
        to: Addresses.
        now: Its date.

    Raises:
        ValueError: An address is none.
    """
    built = EmailMessage(policy=SMTP)
    built["From"] = sender
    built["To"] = ", ".join(to)
    built["Subject"] = subject(message)
    built["Date"] = now
    # A time's colons may not stand in it.
    built["Message-ID"] = f"<{message.id.replace(':', '')}@{GROUP}>"
    built["Auto-Submitted"] = "auto-generated"
    built.set_content(plain(message))
    return built


def slack(message: Message) -> dict[str, Any]:
    """Return text and blocks for Slack's chat.postMessage or an incoming webhook."""
    sign = _SIGNS[message.event]
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _plain_text(f"{sign} {message.title}", 150)}
    ]
    if message.text:
        blocks.append({"type": "section", "text": _plain_text(message.text)})
    else:
        if message.summary:
            blocks.append({"type": "section", "text": _plain_text(message.summary)})
        for five in (message.facts[:5], message.facts[5:10]):
            if five:
                blocks.append({"type": "section", "fields": [*_table(five)]})
        if message.tail:
            tail = _last_lines(_slack_code, message.tail, _SLACK_LIMIT)
            blocks.append({"type": "section", "text": _mrkdwn(tail)})
    if message.links:
        links = [_mrkdwn(_whole(_slack_link, link, _SLACK_LIMIT)) for link in message.links]
        blocks.append({"type": "context", "elements": links})
    fallback = _fitting(_slack, f"{sign} {subject(message)} — {message.summary}", 1000)
    return {"text": fallback, "blocks": blocks, "unfurl_links": False, "unfurl_media": False}


def discord(message: Message) -> dict[str, Any]:
    """Return a Discord webhook's body with one embed."""
    embed: dict[str, Any] = {
        "title": _fitting(_discord, f"{_SIGNS[message.event]} {message.title}", 256),
        "color": _COLOURS[message.event],
        "timestamp": message.time or None,
        "footer": {"text": cut(f"LabFunctions · {message.namespace}", 200)},
    }
    body, facts, tail = message.summary, message.facts, message.tail
    if message.text:
        body, facts, tail = message.text, (), ()
    embed["fields"] = [
        {"name": name, "value": _fitting(_discord, value, 900), "inline": len(value) <= 40}
        for name, value in facts
    ]
    body = _fitting(_discord, body, 2000)
    room = _DESCRIPTION_LIMIT - len(body) - _TOO_LONG_LIMIT * len(message.links)
    links: list[str] = []
    for link in message.links:
        links.append(_whole(_discord_link, link, room))
        room -= len(links[-1])
    code = _last_lines(_discord_code, tail, room)
    embed["description"] = "\n".join(part for part in (body, code, *links) if part)
    while embed["fields"] and _embed_size(embed) > _DISCORD_LIMIT:
        embed["fields"].pop()
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}


def json_body(message: Message) -> dict[str, Any]:
    """Return the message for a program."""
    said = {} if not message.text else {"text": message.text}
    return {
        "id": message.id,
        "title": message.title,
        **message.document,
        "runs": list(message.runs) or ([message.run] if message.run else []),
        "links": [
            {"label": link.label, "url": link.url, "expires": link.expires}
            for link in message.links
        ],
        **said,
    }


def cloud_event(message: Message) -> dict[str, Any]:
    """Return a CloudEvents 1.0 event in structured JSON."""
    kind, name = ("runs", message.run) if message.run else ("workflows", message.workflow)
    return {
        "specversion": "1.0",
        "id": message.id,
        "source": f"/apis/{API_VERSION}/namespaces/{message.namespace}/{kind}/{name}",
        "type": f"io.labfunctions.run.{message.event.lower()}",
        "subject": message.workflow or message.run,
        **({"time": message.time} if message.time else {}),
        "datacontenttype": "application/json",
        "data": json_body(message),
    }


def _until(expires: str | None) -> str:
    return f" (works until {expires})" if expires else ""


def _plain_text(text: str, limit: int = _SLACK_LIMIT) -> dict[str, Any]:
    return {"type": "plain_text", "text": _fitting(_slack, text, limit), "emoji": False}


def _mrkdwn(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _table(facts: Iterable[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Slack sets fields in two columns; what users wrote is no markup in plain text."""
    for name, value in facts:
        yield _mrkdwn(f"*{name}*")
        yield _plain_text(cut(value, 380))


def _slack(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MENTION.sub("@" + _JOINER, text)


def _slack_url(url: str) -> str:
    return _bare_url(url).replace("&", "&amp;").replace("|", "%7C")


def _bare_url(url: str) -> str:
    """Keep a URL from ending the markup around it."""
    for sign, quoted in ((" ", "%20"), ("<", "%3C"), (">", "%3E"), ("(", "%28"), (")", "%29")):
        url = url.replace(sign, quoted)
    return url


def _slack_link(link: Link) -> str:
    if not link.url.startswith("http"):
        return f"{_slack(link.label)}: `{_slack(link.url)}`"
    return f"<{_slack_url(link.url)}|{_slack(link.label)}>{_until(link.expires)}"


def _slack_code(lines: Sequence[str]) -> str:
    return "```\n" + "\n".join(_slack(_code(x)) for x in lines) + "\n```"


def _discord(text: str) -> str:
    return _MENTION.sub("@" + _JOINER, _MARKDOWN.sub(r"\\\1", text))


def _discord_link(link: Link) -> str:
    if not link.url.startswith("http"):
        return f"{_discord(link.label)}: {_discord(link.url)}"
    return f"[{_discord(link.label)}]({_bare_url(link.url)}){_until(link.expires)}"


def _discord_code(lines: Sequence[str]) -> str:
    return "```\n" + "\n".join(_code(x) for x in lines) + "\n```"


def _whole(write: Callable[[Link], str], link: Link, limit: int) -> str:
    """Write a link, or say that it does not fit: half of an address leads nowhere."""
    written = write(link)
    return written if len(written) <= limit else f"{link.label}: the link is too long to be shown"


def _last_lines(write: Callable[[Sequence[str]], str], lines: Sequence[str], limit: int) -> str:
    """Write as many of the last lines as fit."""
    while lines and len(write(lines)) > limit:
        lines = lines[1:]
    return write(lines) if lines else ""


def _code(line: str) -> str:
    return _MENTION.sub("@" + _JOINER, line.replace("```", f"`{_JOINER}`{_JOINER}`"))


def _fitting(escape: Callable[[str], str], text: str, limit: int) -> str:
    """Cut a text so that it fits once it is escaped, and no escape is cut in two."""
    room = limit
    while len(escaped := escape(cut(text, room))) > limit:
        room -= max(1, (len(escaped) - limit) // 6)
    return escaped


def _embed_size(embed: dict[str, Any]) -> int:
    fields = sum(len(f["name"]) + len(f["value"]) for f in embed["fields"])
    return len(embed["title"]) + len(embed["description"]) + len(embed["footer"]["text"]) + fields
