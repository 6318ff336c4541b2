"""What the API server's refusals mean to us."""

import json
import re
from collections.abc import Mapping
from typing import Any

from labfunctions_operator.errors import Denied, Drifted, InvalidSpec, NotFound, Transient

# Server-side apply answers 500, without a reason, for a manifest that does not fit its type.
_ILL_TYPED = ("failed to create typed patch object", "failed to convert new object")
_QUOTED_FIELD = re.compile(r'unknown field "([^"]+)"|Go struct field \w+\.(\S+)|: \.(\S+): ')


class Conflict(Transient):
    """The object changed, or is not the one that was meant."""


class AlreadyExists(Conflict):
    """An object of that name is there already."""


class Gone(Transient):
    """The version to continue from is no longer kept: list anew."""


class TooManyRequests(Transient):
    """Not now; of an eviction: a disruption budget forbids it."""


def failure_of(
    what: str, code: int, body: bytes, headers: Mapping[str, str] | None = None
) -> Exception:
    """Return the exception that stands for a response of the API server.

    Args:
        what: The request, as a person would name it.
        code: HTTP status code, 400 or more.
        body: A metav1.Status in JSON, or whatever a proxy on the way has sent.
        headers: Of the response, for Retry-After.
    """
    status = _parse_status(body)
    detail = str(status.get("message") or "")
    if code == 429:
        detail = " ".join([detail, *_causes(status)]).strip()
    message = f"{what}: {detail or 'no reason given'} ({code})"
    if code in (400, 422) or (code == 500 and detail.startswith(_ILL_TYPED)):
        return InvalidSpec(_field_of(status), detail or message)
    if code in (401, 403):
        return Denied(message)
    if code == 404:
        return NotFound(message)
    if code == 409 and _is_held_by_others(status):
        return Drifted(message)
    if code == 409:
        exists = status.get("reason") == "AlreadyExists"
        return AlreadyExists(message) if exists else Conflict(message)
    if code == 410:
        return Gone(message)
    kind = TooManyRequests if code == 429 else Transient
    return kind(message, retry_after=_retry_after(headers or {}))


def _parse_status(body: bytes) -> dict[str, Any]:
    try:
        status = json.loads(body)
    except ValueError:
        return {"message": body[:200].decode(errors="replace").strip()}
    return status if isinstance(status, dict) else {}


def _causes(status: Mapping[str, Any]) -> list[str]:
    """Return what the causes say, as which disruption budget it is."""
    causes = (status.get("details") or {}).get("causes") or []
    return [str(cause["message"]) for cause in causes if cause.get("message")]


def _is_held_by_others(status: Mapping[str, Any]) -> bool:
    causes = (status.get("details") or {}).get("causes") or []
    return any(cause.get("reason") == "FieldManagerConflict" for cause in causes)


def _field_of(status: Mapping[str, Any]) -> str:
    causes = (status.get("details") or {}).get("causes") or []
    for cause in causes:
        if cause.get("field"):
            return str(cause["field"])
    match = _QUOTED_FIELD.search(str(status.get("message") or ""))
    return next(group for group in match.groups() if group) if match else "spec"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None
