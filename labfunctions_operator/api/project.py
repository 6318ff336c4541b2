"""Project: a git repository and the images (runtimes) built from it."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from labfunctions_operator.api.notification import NamedTarget, Template, WorkflowNotifications
from labfunctions_operator.api.times import DURATION_PATTERN, parse_duration
from labfunctions_operator.api.types import (
    Condition,
    LocalRef,
    Metadata,
    Model,
    NodeGroupName,
    Passthrough,
)

NAME_LIMIT = 40
NO_SOURCE = "source is required, unless every runtime has an image"

IMAGE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$"
APT_PATTERN = r"^[a-z0-9][a-z0-9+.:-]*(=[A-Za-z0-9.+:~-]+)?$"
# Git's own rules forbid more; these keep a ref or a path from being read as an option or a script.
REF_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._/+@#=-]*$"
PRINTABLE_PATTERN = r"^[^\x00-\x1f\x7f]*$"
URL_PATTERN = r"^(https?://|ssh://|[A-Za-z0-9_][A-Za-z0-9._-]*@)[^\s]+$"

AptPackage = Annotated[str, Field(pattern=APT_PATTERN, max_length=128)]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]


class GitSource(Model):
    """Where the project's code lives."""

    url: Annotated[str, Field(pattern=URL_PATTERN, max_length=2048)]
    """An https, http or ssh URL; credentials belong in secretRef, never here."""
    ref: Annotated[str, Field(pattern=REF_PATTERN, max_length=255)] = "main"
    """A branch, a tag or a full commit id (default main)."""
    path: Annotated[str, Field(max_length=1024)] = "."
    """The folder of the repository that goes into the image (default: all of it)."""
    secret_ref: LocalRef | None = None
    """A Secret with username and password, a token, or ssh-privatekey and known_hosts."""
    interval: Annotated[str, Field(pattern=DURATION_PATTERN, max_length=16)] = "1m"
    """How often the ref is resolved anew (default 1m)."""

    @field_validator("path")
    @classmethod
    def _stay_inside(cls, path: str) -> str:
        return inner_path(path)

    @field_validator("interval")
    @classmethod
    def _positive(cls, interval: str) -> str:
        parse_duration(interval)
        return interval


class Source(Model):
    """Where the project comes from."""

    git: GitSource


class User(Model):
    """Who the notebook runs as."""

    uid: Annotated[int, Field(ge=1, le=65533)] = 1089
    gid: Annotated[int, Field(ge=1, le=65533)] = 1090


class Gpu(Model):
    """Which CUDA the gpu template starts from."""

    cuda: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+){1,2}$")] = "12.8.1"
    cudnn: bool = True


class Build(Model):
    """How the image is built."""

    resources: Passthrough | None = None
    """Requests and limits of the build container."""
    timeout_seconds: Annotated[int, Field(ge=30, le=86400)] = 3600
    """After this the build is stopped and fails (default 3600)."""
    cache: bool = False
    """Also keep a layer cache in the registry, for builders without a cache of their own."""


class Runtime(Model):
    """One image of the project: ready made, from a Dockerfile, or generated."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
    image: Annotated[str, Field(pattern=IMAGE_PATTERN, max_length=512)] | None = None
    """A ready-made image: nothing is built."""
    dockerfile: Annotated[str, Field(max_length=512)] | None = None
    """A Dockerfile in the source, relative to its path."""
    template: Literal["cpu", "gpu"] = "cpu"
    """What a generated image starts from (default cpu)."""
    base_image: Annotated[str, Field(pattern=IMAGE_PATTERN, max_length=512)] | None = None
    """Replaces the template's base image; it must have apt or Python with venv."""
    python: Annotated[str, Field(pattern=r"^3\.[0-9]{1,2}$")] = "3.11"
    """Python's version, where the base image follows it (default 3.11)."""
    build_packages: Annotated[list[AptPackage], Field(max_length=100)] = []
    """apt packages needed only while requirements are installed."""
    packages: Annotated[list[AptPackage], Field(max_length=100)] = []
    """apt packages of the final image."""
    requirements: Annotated[str, Field(max_length=512)] | None = None
    """The requirements file (default requirements.txt, where there is one)."""
    user: User = User()
    """Who the notebook runs as (default 1089:1090)."""
    gpu: Gpu = Gpu()
    env: Annotated[
        dict[EnvName, Annotated[str, Field(pattern=PRINTABLE_PATTERN, max_length=4096)]],
        Field(max_length=100),
    ] = {}
    """Environment of the image; never for secrets, which anyone with the image can read."""
    build: Build = Build()

    @field_validator("dockerfile", "requirements")
    @classmethod
    def _stay_inside(cls, path: str | None) -> str | None:
        return None if path is None else inner_path(path)

    @model_validator(mode="after")
    def _one_origin(self) -> "Runtime":
        if self.image and self.dockerfile:
            raise ValueError("image and dockerfile exclude each other")
        return self


class Registry(Model):
    """Where the project's images go, if not to the operator's registry."""

    repository: Annotated[str, Field(pattern=IMAGE_PATTERN, max_length=255)]
    secret_ref: LocalRef | None = None
    """A Secret of type kubernetes.io/dockerconfigjson, for push and pull."""
    insecure: bool = False


class Retention(Model):
    """How long the store keeps what Runs leave there: both limits hold, where both are given."""

    days: Annotated[int, Field(ge=1, le=36500)] | None = None
    """Delete the results of Runs that ended longer ago than this."""
    keep_last: Annotated[int, Field(ge=1, le=100000)] | None = None
    """Never delete those of this many last Runs of each Workflow."""

    @model_validator(mode="after")
    def _some_limit(self) -> "Retention":
        if self.days is None and self.keep_last is None:
            raise ValueError("give days, keepLast or both")
        return self


class ProjectOutputs(Model):
    """What becomes of the results."""

    retention: Retention | None = None
    """What the store need not keep (default: it keeps everything)."""


class Defaults(Model):
    """What Workflows of the project get where they say nothing."""

    resources: Passthrough | None = None
    timeout_seconds: Annotated[int, Field(ge=1, le=2592000)] | None = None
    service_account_name: str | None = None
    notifications: WorkflowNotifications | None = None
    """Who is told how Runs end."""
    node_group: NodeGroupName | None = None


class ProjectSpec(Model):
    """What a user wants of a Project."""

    source: Source | None = None
    """Where the project's code lives; not needed where every runtime has a ready-made image."""
    runtimes: Annotated[list[Runtime], Field(max_length=16)] = []
    """The images of the project; none means one generated image named default."""
    registry: Registry | None = None
    outputs: ProjectOutputs = ProjectOutputs()
    defaults: Defaults = Defaults()
    notification_targets: Annotated[list[NamedTarget], Field(max_length=20)] = []
    """Where messages go, for Workflows to name."""
    notification_template: Template | None = None
    """Replaces the text of messages."""
    suspend: bool = False
    """Stop following the ref and building; what is built stays usable."""
    versions_history_limit: Annotated[int, Field(ge=1, le=100)] = 10
    """How many built versions status remembers (default 10)."""

    @model_validator(mode="after")
    def _something_to_build_from(self) -> "ProjectSpec":
        if self.source is None and not all(r.image for r in self.effective_runtimes):
            raise ValueError(NO_SOURCE)
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> "ProjectSpec":
        names = [runtime.name for runtime in self.runtimes]
        if len(names) != len(set(names)):
            raise ValueError("two runtimes have the same name")
        names = [target.name for target in self.notification_targets]
        if len(names) != len(set(names)):
            raise ValueError("two notificationTargets have the same name")
        return self

    @property
    def git(self) -> GitSource | None:
        """The repository, where there is one."""
        return self.source.git if self.source else None

    @property
    def effective_runtimes(self) -> tuple[Runtime, ...]:
        """The runtimes asked for, or the one every project has."""
        return tuple(self.runtimes) or (Runtime(name="default"),)


class SourceStatus(Model):
    """The commit that the ref means now."""

    ref: str
    commit: str
    author: str
    message: str
    resolved_at: str
    """When this commit was first seen."""


class RuntimeStatus(Model):
    """One image as it stands."""

    name: str
    phase: Literal["Pending", "Building", "Ready", "Failed"]
    message: str = ""
    image: str | None = None
    """The image that the next Run uses, by digest."""
    inputs_hash: str | None = None
    """What that image was built from: sha256 over all that goes in."""
    commit: str | None = None
    tree: str | None = None
    """The git tree of the source folder in that image."""
    built_at: str | None = None
    failures: int = 0
    """Builds of the wanted inputs that failed in a row."""
    failed_hash: str | None = None
    """The inputs that those failures are about."""
    failed_since: str | None = None
    """When the first of them was, or a file of the image was found missing."""


class Version(Model):
    """One image that was built."""

    runtime: str
    image: str
    inputs_hash: str
    commit: str
    tree: str
    built_at: str


class ProjectStatus(Model):
    """What the operator knows of a Project."""

    observed_generation: int | None = None
    source: SourceStatus | None = None
    runtimes: list[RuntimeStatus] = []
    versions: list[Version] = []
    conditions: list[Condition] = []


class Project(Model):
    """A git repository and the images built from it."""

    metadata: Metadata
    spec: ProjectSpec
    status: ProjectStatus = ProjectStatus()


def inner_path(path: str) -> str:
    """Normalize a path that must stay inside the source.

    Raises:
        ValueError: It is absolute, leaves the source, or holds unusual characters.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts:
        raise ValueError(f"{path!r} leaves the source; use a path inside the repository")
    normal = "/".join(parts) or "."
    if any(ord(c) < 32 or c in "\\\"'`$\x7f" for c in path) or normal.startswith("-"):
        raise ValueError(f"{path!r} has characters that a path may not have here")
    return normal
