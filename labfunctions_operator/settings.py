"""The operator's configuration: one file, written by the Helm chart."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Section(BaseModel):
    # A misspelt key must fail at start, not be ignored for a year.
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


class Images(_Section):
    """Images of ours that run in users' namespaces."""

    courier: str
    builder: str


class Builder(_Section):
    """How images are built."""

    mode: Literal["shared", "perBuild"] = "shared"
    address: str = ""
    tls_dir: Path | None = None
    buildkitd_config: str = ""


class RegistrySettings(_Section):
    """Where images go when the Project names no registry.

    Attributes:
        push_repository: Prefix as builders reach it.
        pull_repository: Prefix as nodes reach it.
        insecure: Plain HTTP.
    """

    push_repository: str
    pull_repository: str
    insecure: bool = False


class StoreSettings(_Section):
    """The object store for executed notebooks."""

    endpoint: str = ""
    region: str = "us-east-1"
    bucket: str
    prefix: str = ""
    credentials_dir: Path | None = None


class Reports(_Section):
    """Where couriers report progress to."""

    url: str
    key_file: Path
    port: int = 8080


class MetricsSettings(_Section):
    """Where Prometheus reads from."""

    port: int = 9090


class NotificationSettings(_Section):
    """Where messages may go, and where they send their readers.

    Attributes:
        allowed_hosts: By namespace, `*` for all: `example.com`, `*.example.com` or `*` at public
            addresses, `host:port` at any.
        denied_cidrs: Addresses that do not count as public ones, such as a cluster's IPv6 ones.
        slack_url: Slack's Web API.
        console_url: Prefix of pages about Runs; without it, links are signed URLs.
        link_seconds: For how long a signed URL works; 0 for none.
    """

    allowed_hosts: dict[str, list[str]] = {"*": ["*"]}
    denied_cidrs: list[IPv4Network | IPv6Network] = []
    slack_url: str = "https://slack.com/api/"
    console_url: str = ""
    link_seconds: Annotated[int, Field(ge=0, le=604800)] = 86400


class Autoscaling(_Section):
    """Whether NodeGroups are sized, and how their place-holders step aside.

    Attributes:
        enabled: Without it a NodeGroup only says where Runs go; nodes are not even watched.
        priority_class: Of place-holder pods; its value must be below that of every Run.
    """

    enabled: bool = False
    priority_class: str = "labfunctions-placeholder"


class Settings(_Section):
    """Everything the operator is told."""

    namespace: str
    images: Images
    builder: Builder
    registry: RegistrySettings
    store: StoreSettings
    reports: Reports
    metrics: MetricsSettings = MetricsSettings()
    notifications: NotificationSettings = NotificationSettings()
    autoscaling: Autoscaling = Autoscaling()
    cache_dir: Path = Path("/var/cache/labfunctions")


def load_settings(path: Path) -> Settings:
    """Read the configuration file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not valid; the message names the field.
    """
    return Settings.model_validate(yaml.safe_load(path.read_text()))
