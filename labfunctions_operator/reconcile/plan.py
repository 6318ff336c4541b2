"""What a reconciler decides: the only thing that passes from decisions to I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

Manifest = Mapping[str, Any]


class Key(NamedTuple):
    """Names one object that the engine reconciles."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Ref:
    """One object to delete; a uid guards against a newer object of the same name.

    Attributes:
        orphan: Whether its dependents stay.
    """

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str | None = None
    orphan: bool = False

    @classmethod
    def to(
        cls, api_version: str, kind: str, metadata: Mapping[str, Any], *, orphan: bool = False
    ) -> Self:
        """Name the very object with this metadata, or by name alone what was not read yet."""
        return cls(
            api_version=api_version,
            kind=kind,
            namespace=metadata.get("namespace", ""),
            name=metadata["name"],
            uid=metadata.get("uid"),
            orphan=orphan,
        )


@dataclass(frozen=True, kw_only=True)
class Event:
    """A Kubernetes Event about the reconciled object, for `kubectl describe`."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do for one object, in this order: delete, evict, apply, cancel, status, events.

    Attributes:
        delete: Children to delete, with their dependents.
        evict: Pods to ask away from their nodes; one that may not go yet stays.
        apply: Children to create or update by server-side apply.
        cancel: Runs to stop by their `spec.cancel`.
        status: The whole status wanted, or None to leave it; written only if it differs, and only
            onto the version of the object that was decided on: later decisions build on it, and
            another operator may be alive.
        events: Written once the status is.
        requeue_after: Seconds until this object is looked at again without any event.
    """

    delete: tuple[Ref, ...] = ()
    evict: tuple[Ref, ...] = ()
    apply: tuple[Manifest, ...] = ()
    cancel: tuple[Ref, ...] = ()
    status: Mapping[str, Any] | None = None
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What keeps an object from going on: a stable reason and one line for a person."""

    reason: str
    message: str
