"""Which changes of a status are worth an Event: what no longer shows once the status moves on.

The ordinary way of a success is told by the status alone, since an Event is a write, too; so is a
wait that ends by itself: for an image, for a place in a queue or on a node, or for an object that
is applied a moment later.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from labfunctions_operator.reconcile.plan import Event, Plan

Status = Mapping[str, Any]

IMAGE_BUILT = "ImageBuilt"
IMAGE_BUILD_FAILED = "ImageBuildFailed"

# By kind and condition: reasons that somebody has to act upon.
_PROBLEMS: dict[tuple[str, str], frozenset[str]] = {
    ("Run", "Succeeded"): frozenset(
        {
            "InvalidSpec",
            "Forbidden",
            "ProjectInvalid",
            "WorkflowInvalid",
            "NodeGroupInvalid",
            "RuntimeNotFound",
            "ImageBuildFailed",
            "ImagePullFailed",
            "StartError",
            "PodRefused",
            "NameTaken",
        }
    ),
    ("Workflow", "Ready"): frozenset(
        {
            "InvalidSpec",
            "Forbidden",
            "ProjectInvalid",
            "RuntimeNotFound",
            "NotebookNotFound",
            "NotebookInvalid",
            "ParametersInvalid",
        }
    ),
    ("NodeGroup", "Ready"): frozenset({"InvalidSpec", "Forbidden", "PoolNotFound"}),
    ("Backfill", "Succeeded"): frozenset(
        {"InvalidSpec", "Forbidden", "WorkflowInvalid", "NameTaken"}
    ),
    ("Project", "Ready"): frozenset({"InvalidSpec", "Forbidden"}),
    ("Project", "SourceReady"): frozenset(
        {
            "RepositoryUnreachable",
            "AuthenticationFailed",
            "RefNotFound",
            "PathNotFound",
            "PathEscapes",
            "SourceTooLarge",
            "UrlNotAllowed",
            "SecretInvalid",
        }
    ),
    ("Project", "ImagesReady"): frozenset({IMAGE_BUILD_FAILED}),
}


@dataclass(frozen=True, kw_only=True)
class EndedBuild:
    """A build that ended: with an image, or else with an error."""

    runtime: str
    inputs_hash: str
    image: str | None = None
    error: str = ""


def with_story(plan: Plan, obj: Mapping[str, Any]) -> Plan:
    """Add to a plan the Events that its change of status is worth, unless it has them already."""
    if plan.status is None:
        return plan
    told = {event.reason for event in plan.events}
    events = tell(obj["kind"], obj.get("status") or {}, plan.status)
    return replace(plan, events=(*plan.events, *(e for e in events if e.reason not in told)))


def tell(kind: str, before: Status, after: Status) -> tuple[Event, ...]:
    """Say what is news in a status; the same status twice is none.

    A reason is told when it comes up, and once more for an edited spec that is no better: messages
    alone may change with each pass.
    """
    events = []
    if kind == "Project":
        events = [_of_build(build) for build in ended_builds(before, after)]
    for (of, type), reasons in _PROBLEMS.items():
        new, old = _condition(after, type), _condition(before, type)
        if of != kind or new.get("reason") not in reasons or not _is_news(old, new):
            continue
        if new["reason"] not in {event.reason for event in events}:
            events.append(_warning(new["reason"], new.get("message", "")))
    return tuple(events)


def _is_news(old: Status, new: Status) -> bool:
    if old.get("reason") != new["reason"]:
        return True
    is_edited = old.get("observedGeneration") != new.get("observedGeneration")
    return is_edited and old.get("message") != new.get("message")


def ended_builds(before: Status, after: Status) -> list[EndedBuild]:
    """Return the builds whose end one status of a Project tells and the other does not."""
    known = {(str(v.get("runtime")), str(v.get("inputsHash"))) for v in items(before, "versions")}
    ended = [
        EndedBuild(runtime=v["runtime"], inputs_hash=v["inputsHash"], image=v["image"])
        for v in items(after, "versions")
        if (v["runtime"], v["inputsHash"]) not in known
    ]
    failures = {str(r.get("name")): _failures(r) for r in items(before, "runtimes")}
    for runtime in items(after, "runtimes"):
        inputs, count = _failures(runtime)
        old, counted = failures.get(runtime["name"], (None, 0))
        if inputs and (inputs != old or count > counted):
            error = runtime.get("message", "")
            ended.append(EndedBuild(runtime=runtime["name"], inputs_hash=inputs, error=error))
    return ended


def items(status: Any, field: str) -> list[Status]:
    """Return the structures in a list; a status that is not ours may hold anything there."""
    found = status.get(field) if isinstance(status, Mapping) else None
    return [i for i in found if isinstance(i, Mapping)] if isinstance(found, list) else []


def _of_build(build: EndedBuild) -> Event:
    if build.image is None:
        return _warning(IMAGE_BUILD_FAILED, f"image {build.runtime}: {build.error}")
    message = f"image {build.runtime} is built: {build.image}"
    return Event(type="Normal", reason=IMAGE_BUILT, message=message)


def _failures(runtime: Status) -> tuple[str | None, int]:
    count = runtime.get("failures")
    return runtime.get("failedHash"), count if isinstance(count, int) else 0


def _warning(reason: str, message: str) -> Event:
    return Event(type="Warning", reason=reason, message=message)


def _condition(status: Status, type: str) -> Status:
    return next((c for c in items(status, "conditions") if c.get("type") == type), {})
