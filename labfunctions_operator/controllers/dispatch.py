"""One message from a Run to a server: written, then addressed with what a Secret holds."""

import asyncio
import base64
import binascii
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.message import EmailMessage
from functools import partial
from urllib.parse import quote, urlsplit

from labfunctions_operator.api.labels import API_VERSION
from labfunctions_operator.api.notification import (
    Email,
    Event,
    MissedDelivery,
    Slack,
    Target,
    Template,
    Webhook,
)
from labfunctions_operator.api.run import Outputs, Run
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.api.types import LocalRef
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.desired import render
from labfunctions_operator.desired.message import (
    Link,
    Message,
    clean,
    cut,
    missed_message,
    one_line,
    run_message,
)
from labfunctions_operator.desired.starter import creator, is_by_request
from labfunctions_operator.desired.tail import tail_of
from labfunctions_operator.errors import Denied, InvalidSpec, NotFound, Transient
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.providers.notify import discord, email, slack, webhook
from labfunctions_operator.providers.notify.gate import Gate, Undeliverable
from labfunctions_operator.providers.notify.template import Renderer
from labfunctions_operator.providers.store import Store, ends_with_credentials
from labfunctions_operator.settings import NotificationSettings

logger = logging.getLogger(__name__)

# Reading a larger notebook for its last lines is not worth it.
NOTEBOOK_LIMIT = 4 * 1024 * 1024
TEXT_LIMIT = 2800
LOOK_UPS = 4
# The store's own patience would cost the whole try.
TAIL_TIMEOUT = 10.0


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A message with an address on it.

    Attributes:
        host: The server that takes it.
        send: Sends it. It raises Undeliverable if it will never arrive, Transient if it may later.
    """

    host: str
    send: Callable[[], Awaitable[None]]


class Dispatch:
    """Writes messages, and addresses them.

    Args:
        client: Reads the Secrets that targets name.
        store: Holds what the links show.
        settings: Where messages may go.
        clock: The time now.
    """

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        settings: NotificationSettings,
        clock: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._store = store
        self._settings = settings
        self._clock = clock
        self._renderer = Renderer()
        # Of its own: a store that does not answer must not take the threads of all others.
        self._threads = ThreadPoolExecutor(LOOK_UPS, thread_name_prefix="notify-store")

    def close(self) -> None:
        """Begin no more look-ups."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def write(self, run: Run, event: Event, runs: Sequence[str], count: int) -> Message:
        """Write the message about a Run's end, or about several Runs alike.

        Args:
            run: It, or the first of them.
            event: As what it is told.
            runs: The names of all.
            count: How many they are.
        """
        links, tail = self._links(run), await self._tail(run)
        tool = await self._creator(run)
        message = run_message(run, event, tool=tool, links=links, tail=tail, runs=runs, count=count)
        plan = run.status.snapshot.notify if run.status.snapshot else None
        return await self._in_own_words(message, plan.template if plan else None)

    async def write_missed(
        self, workflow: Workflow, delivery: MissedDelivery, own: Template | None
    ) -> Message:
        """Write the message about ticks of a Workflow's schedule that got no Run.

        Args:
            workflow: Whose.
            delivery: Which, and why.
            own: How its Project words messages.
        """
        return await self._in_own_words(missed_message(workflow, delivery), own)

    async def _in_own_words(self, message: Message, own: Template | None) -> Message:
        """Let a Project's template replace title and text; where it fails, say that instead."""
        sources = {n: s for n in ("title", "text") if own and (s := getattr(own, n))}
        if not sources:
            return message
        variables = {**render.json_body(message), "facts": dict(message.facts)}
        try:
            said = await self._renderer.render(sources, variables)
        except Undeliverable as error:
            summary = f"{message.summary} ({error})"
            return replace(message, summary=one_line(summary, TEXT_LIMIT))
        text = cut(clean(said.get("text", "")).strip(), TEXT_LIMIT) or None
        title = one_line(said.get("title", ""), 150) or message.title
        return replace(message, title=title, text=text)

    async def _creator(self, run: Run) -> str | None:
        """Ask what created a Run, as the caches do not keep that."""
        if not is_by_request(run):
            return None
        meta = run.metadata
        try:
            found = await self._client.get(API_VERSION, "Run", meta.namespace, meta.name)
        except (Transient, Denied, NotFound):
            return None
        known = found["metadata"]
        return creator(known.get("managedFields") or ()) if known["uid"] == meta.uid else None

    async def address(
        self, namespace: str, target: Target, message: Message, only: Sequence[str] = ()
    ) -> Letter:
        """Look up where a message to a target of a namespace goes.

        Args:
            namespace: Whose Secrets are read.
            target: Where to.
            message: What is sent.
            only: The recipients of a mail that still lack it; all if there are none.

        Raises:
            Undeliverable: It will never arrive; says why.
            Transient, Denied: It may arrive later.
        """
        said = self._settings
        gate = Gate.of(said.allowed_hosts, namespace, said.denied_cidrs)
        if target.slack:
            return await self._to_slack(namespace, target.slack, message, gate)
        if target.discord:
            url = await self._value(namespace, target.discord.webhook_secret_ref, "url")
            body = render.discord(message)
            return _posted(url, partial(discord.post_to_webhook, body, url=url, gate=gate))
        if target.webhook:
            return await self._to_webhook(namespace, target.webhook, message, gate)
        if target.email:
            server, mail = await self._mail(namespace, target.email, message)
            return Letter(host=server.host, send=partial(email.hand_in, mail, server, gate, only))
        raise Undeliverable("the Project has no notification target of this name")

    async def _to_slack(
        self, namespace: str, target: Slack, message: Message, gate: Gate
    ) -> Letter:
        body = render.slack(message)
        if target.secret_ref:
            token = await self._value(namespace, target.secret_ref, "token")
            url, channel = self._settings.slack_url, target.channel or ""
            send = partial(
                slack.post_to_channel, body, token=token, channel=channel, base_url=url, gate=gate
            )
            return _posted(url, send)
        assert target.webhook_secret_ref
        url = await self._value(namespace, target.webhook_secret_ref, "url")
        return _posted(url, partial(slack.post_to_webhook, body, url=url, gate=gate))

    async def _to_webhook(
        self, namespace: str, target: Webhook, message: Message, gate: Gate
    ) -> Letter:
        url = target.url or ""
        if target.secret_ref:
            url = await self._value(namespace, target.secret_ref, "url")
        headers = {}
        if target.headers_secret_ref:
            secret = await self._secret(namespace, target.headers_secret_ref)
            headers = {name: value.strip() for name, value in secret.items()}
        is_event = target.format == "CloudEvents"
        send = partial(
            webhook.post,
            render.cloud_event(message) if is_event else render.json_body(message),
            url=url,
            headers=headers,
            content_type=webhook.CLOUD_EVENTS if is_event else webhook.JSON,
            gate=gate,
        )
        return _posted(url, send)

    async def _mail(
        self, namespace: str, target: Email, message: Message
    ) -> tuple[email.SmtpServer, EmailMessage]:
        secret = await self._secret(namespace, target.smtp_secret_ref)
        server = email.SmtpServer.of({k: v.strip() for k, v in secret.items()})
        try:
            now = self._clock()
            return server, render.mail(message, sender=server.sender, to=target.to, now=now)
        except (ValueError, IndexError):
            raise Undeliverable("the Secret's key from is no mail address") from None

    async def _value(self, namespace: str, ref: LocalRef, key: str) -> str:
        value = (await self._secret(namespace, ref)).get(key, "").strip()
        if not value:
            raise Undeliverable(f"Secret {ref.name} has no key {key}")
        return value

    async def _secret(self, namespace: str, ref: LocalRef) -> dict[str, str]:
        try:
            secret = await self._client.get("v1", "Secret", namespace, ref.name)
            data = secret.get("data") or {}
            return {name: base64.b64decode(value).decode() for name, value in data.items()}
        except (NotFound, InvalidSpec):
            raise Undeliverable(f"Secret {ref.name} does not exist in this namespace") from None
        except (binascii.Error, UnicodeDecodeError):
            raise Undeliverable(f"Secret {ref.name} holds what is not text") from None

    async def _tail(self, run: Run) -> list[str]:
        """Return what was printed last, unless the store does not say so in time."""
        uri = run.status.outputs.notebook if run.status.outputs else None
        key = self._store.key_of(uri) if uri else None
        if key is None:
            return []
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(TAIL_TIMEOUT):
                return await loop.run_in_executor(self._threads, self._read_tail, key)
        except (Transient, Denied, NotFound, TimeoutError) as error:
            why = str(error) or "the store does not answer in time"
            logger.warning("a message goes without its last lines of output: %s", why)
            return []

    def _read_tail(self, key: str) -> list[str]:
        return tail_of(self._store.get_short(key, NOTEBOOK_LIMIT) or b"")

    def _links(self, run: Run) -> list[Link]:
        if prefix := self._settings.console_url.rstrip("/"):
            path = f"{quote(run.metadata.namespace)}/{quote(run.metadata.name)}"
            return [Link(label="Run", url=f"{prefix}/runs/{path}")]
        found = run.status.outputs or Outputs()
        uris = (("Notebook", found.notebook), ("HTML", found.html))
        return [self._link(label, uri) for label, uri in uris if uri]

    def _link(self, label: str, uri: str) -> Link:
        life, key = self._settings.link_seconds, self._store.key_of(uri)
        if not life or key is None:
            return Link(label=label, url=uri)
        try:
            url = self._store.sign_get(key, expires=life)
        except (Transient, Denied):
            return Link(label=label, url=uri)
        until = None
        if not ends_with_credentials(url):
            until = rfc3339(self._clock() + timedelta(seconds=life))
        return Link(label=label, url=url, expires=until)


def _posted(url: str, send: Callable[[], Awaitable[None]]) -> Letter:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""  # whoever sends it says what is wrong
    return Letter(host=host, send=send)
