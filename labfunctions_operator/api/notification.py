"""Who is told what about Runs: targets, and what became of each message."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator, model_validator

from labfunctions_operator.api.schedule import Timestamp
from labfunctions_operator.api.types import LocalRef, Model

Event = Literal["Succeeded", "Failed", "Missed", "Recovered"]
MEDIA = ("slack", "discord", "webhook", "email")
TARGETS_LIMIT = 10
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
# One address each, with nothing that could become a header or a second recipient.
ADDRESS_PATTERN = r"^[^\s,;:<>()\[\]\"\\@]+@[A-Za-z0-9.-]+$"


class Slack(Model):
    """A Slack channel: by a bot's token, or by an incoming webhook."""

    secret_ref: LocalRef | None = None
    """A Secret with the bot's `token`; it needs the scope chat:write."""
    channel: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\s<>]+$")] | None = None
    """The channel's name or id; goes with secretRef."""
    webhook_secret_ref: LocalRef | None = None
    """A Secret with the `url` of an incoming webhook, which has a channel of its own."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.secret_ref is None) == (self.webhook_secret_ref is None):
            raise ValueError("give secretRef and channel, or webhookSecretRef")
        if (self.secret_ref is None) != (self.channel is None):
            raise ValueError("channel goes with secretRef, and secretRef needs it")
        return self


class Discord(Model):
    """A Discord channel."""

    webhook_secret_ref: LocalRef
    """A Secret with the `url` of the channel's webhook."""


class Webhook(Model):
    """An HTTP server that takes POST requests."""

    url: Annotated[str, Field(max_length=2048)] | None = None
    """Where to, if the address itself is no secret."""
    secret_ref: LocalRef | None = None
    """A Secret with the `url`."""
    headers_secret_ref: LocalRef | None = None
    """A Secret whose keys are the names of headers to send, such as Authorization."""
    format: Literal["Json", "CloudEvents"] = "Json"
    """The body: JSON of ours, or CloudEvents 1.0 in structured mode (default Json)."""

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is not None:
            check_url(url)
        return url

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.url is None) == (self.secret_ref is None):
            raise ValueError("give url or secretRef")
        return self


class Email(Model):
    """Mail to some people."""

    smtp_secret_ref: LocalRef
    """A Secret with `host`, `from`, and where needed `port`, `username`, `password`, `tls`."""
    to: Annotated[
        list[Annotated[str, Field(max_length=254, pattern=ADDRESS_PATTERN)]],
        Field(min_length=1, max_length=20),
    ]


class Target(Model):
    """Where a message goes: exactly one medium, or only a name that the Project has no target for.

    Unlike what users write (`Entry`), a stored target may hold fields of a newer version.
    """

    name: Annotated[str, Field(max_length=40, pattern=NAME_PATTERN)] | None = None
    slack: Slack | None = None
    discord: Discord | None = None
    webhook: Webhook | None = None
    email: Email | None = None

    @property
    def media(self) -> list[str]:
        """Return the names of the media given."""
        return [medium for medium in MEDIA if getattr(self, medium) is not None]

    @property
    def identity(self) -> str:
        """Tell targets apart; by its name a target is the same as when it is written out."""
        return json.dumps(self.but(name=None).wire() or self.wire(), sort_keys=True)

    def __str__(self) -> str:
        """Name it for a person; never the address, which may be a secret."""
        return self.name or " and ".join(self.media)


_RULES = (
    (
        " + ".join(f"(has(self.{medium}) ? 1 : 0)" for medium in MEDIA) + " == 1",
        f"give exactly one of {', '.join(MEDIA)}",
    ),
    (
        "!has(self.slack) || has(self.slack.secretRef) != has(self.slack.webhookSecretRef)",
        "slack: give secretRef and channel, or webhookSecretRef",
    ),
    (
        "!has(self.slack) || has(self.slack.secretRef) == has(self.slack.channel)",
        "slack: channel goes with secretRef, and secretRef needs it",
    ),
    (
        "!has(self.webhook) || has(self.webhook.url) != has(self.webhook.secretRef)",
        "webhook: give url or secretRef",
    ),
)


class NamedTarget(Target):
    """A target of a Project, which others name."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": rule, "message": message} for rule, message in _RULES
            ]
        }
    )
    name: Annotated[str, Field(max_length=40, pattern=NAME_PATTERN)]

    @model_validator(mode="after")
    def _one_medium(self) -> Self:
        if len(self.media) != 1:
            raise ValueError(f"give exactly one of {', '.join(MEDIA)}")
        return self


class Entry(Target):
    """A target as users write it: a name of one of the Project's targets, or a whole target."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict):
            _refuse_unknown(value)
        return value

    @model_validator(mode="after")
    def _one_medium(self) -> Self:
        if len(self.media) > 1 or not (self.media or self.name):
            raise ValueError(f"give exactly one of {', '.join(MEDIA)}, or a name")
        return self


_MODELS: Mapping[str, type[Model]] = {
    "slack": Slack,
    "discord": Discord,
    "webhook": Webhook,
    "email": Email,
}


def _refuse_unknown(value: Mapping[str, Any]) -> None:
    """Do what the API server does elsewhere, as the schema leaves entries open."""
    _only(value, ("name", *MEDIA))
    for medium, model in _MODELS.items():
        if isinstance(inner := value.get(medium), dict):
            _only(inner, [f.alias or n for n, f in model.model_fields.items()], f"{medium}.")


def _only(value: Mapping[str, Any], fields: Iterable[str], prefix: str = "") -> None:
    for name in value:
        if name not in fields:
            raise ValueError(f"{prefix}{name} is unknown; the fields are {', '.join(fields)}")


def _open(schema: dict[str, Any]) -> None:
    schema.clear()
    schema["x-kubernetes-preserve-unknown-fields"] = True
    schema["description"] = (
        "The name of one of the Project's notificationTargets, or one of "
        "slack{secretRef, channel | webhookSecretRef}, discord{webhookSecretRef}, "
        "webhook{url | secretRef, headersSecretRef, format}, email{smtpSecretRef, to}."
    )


# A name or an object: structural schemas have no such union, so the schema leaves it open.
Entries = Annotated[
    list[Annotated[Entry, Field(json_schema_extra=_open)]], Field(max_length=TARGETS_LIMIT)
]


class Notifications(Model):
    """Who is told how Runs end."""

    on_success: Entries = []
    """Told of each Run that succeeds."""
    on_failure: Entries = []
    """Told of each Run that fails, after its last attempt."""
    on_recovered: Entries = []
    """Told of the first Run that succeeds after one of the same Workflow has failed."""
    group_seconds: Annotated[int, Field(ge=0, le=86400)] = 0
    """Wait this long for more alike, and tell of them in one message (default 0)."""


class WorkflowNotifications(Notifications):
    """Who is told how Runs end, and of those that the schedule did not make."""

    on_missed: Entries = []
    """Told of ticks of the schedule that got no Run: the first of several in turn."""


class Template(Model):
    """Replaces the text of messages; Jinja, run in a sandbox with little time and memory."""

    title: Annotated[str, Field(max_length=1024)] | None = None
    text: Annotated[str, Field(max_length=8192)] | None = None


class NotifyPlan(Model):
    """What was in force when a Run was started: whole targets, so that nothing is looked up later.

    A target with a name alone stands for one that the Project does not have.
    """

    on_success: list[Target] = []
    on_failure: list[Target] = []
    on_recovered: list[Target] = []
    group_seconds: int = 0
    template: Template | None = None


class Delivery(Model):
    """One message to one target."""

    event: Event
    target: Target
    state: Literal["Pending", "Sent", "Failed"] = "Pending"
    message: str | None = None
    """Why it could not be sent."""
    time: str | None = None
    """When it was sent or given up."""
    not_before: Timestamp | None = None
    """Held back until then, to be one message with what follows."""


class MissedDelivery(Delivery):
    """One message to one target about ticks of a schedule that got no Run."""

    event: Literal["Missed"] = "Missed"
    due: Timestamp
    """When the last of them was due."""
    count: int = 1
    """How many they are."""
    reason: str
    """That of the Event."""
    cause: str
    """Why they got no Run, in one line."""
    time: Timestamp | None = None


def check_url(url: str) -> None:
    """Refuse what is not an http(s) URL with a host.

    Raises:
        ValueError: It is none; the message never holds the URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("is not an http or https URL with a host")
    if parts.username is not None or any(c.isspace() or ord(c) < 32 for c in url):
        raise ValueError("has credentials or spaces; credentials belong in headersSecretRef")
