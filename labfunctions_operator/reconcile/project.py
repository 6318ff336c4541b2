"""What a Project needs next: its source resolved, and one build at a time for each runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from labfunctions_operator.api.conditions import find_condition, set_condition
from labfunctions_operator.api.project import (
    Project,
    ProjectStatus,
    RuntimeStatus,
    SourceStatus,
    Version,
)
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.api.types import Condition
from labfunctions_operator.desired.build_job import image_repository
from labfunctions_operator.reconcile.attempt import is_owned_by
from labfunctions_operator.reconcile.build import BuildOutcome, read_build
from labfunctions_operator.reconcile.plan import Plan
from labfunctions_operator.reconcile.runtime import runtime_step
from labfunctions_operator.reconcile.source import SourceSnapshot, SourceView
from labfunctions_operator.settings import Settings

READY = "Ready"
SOURCE_READY = "SourceReady"
IMAGES_READY = "ImagesReady"

Object = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ProjectObserved:
    """What exists around a Project.

    Attributes:
        source: Its source as last read.
        jobs: Jobs with its label, whoever owns them: Runs have theirs among them.
        pods: The pods of those Jobs.
        certificate: The client certificate for the shared builder; empty for builders of their own.
    """

    source: SourceView = field(default_factory=SourceView)
    jobs: Sequence[Object] = field(default=())
    pods: Sequence[Object] = field(default=())
    certificate: Mapping[str, str] = field(default_factory=dict)


def reconcile_project(
    project: Project, seen: ProjectObserved, settings: Settings, now: datetime
) -> Plan:
    """Decide what a Project needs next, from what exists now."""
    mine = [job for job in seen.jobs if is_owned_by(job, project.metadata.uid)]
    builds = [build for job in mine if (build := read_build(job, seen.pods))]
    versions = _versions(project, builds, settings)
    steps = [
        runtime_step(
            project,
            runtime,
            source=seen.source.snapshot,
            certificate=seen.certificate,
            builds=builds,
            versions=versions,
            settings=settings,
            now=now,
        )
        for runtime in project.spec.effective_runtimes
    ]
    status = ProjectStatus(
        observed_generation=project.metadata.generation,
        source=_source_status(project, seen.source.snapshot, now),
        runtimes=[step.status for step in steps],
        versions=_remembered(
            versions, [step.status for step in steps], project.spec.versions_history_limit
        ),
        conditions=project.status.conditions,
    )
    status = _with_conditions(project, status, seen.source, now)
    waits = [step.requeue_after for step in steps if step.requeue_after is not None]
    return Plan(
        apply=tuple(manifest for step in steps for manifest in step.apply),
        delete=tuple(ref for step in steps for ref in step.delete),
        status=status.wire(),
        requeue_after=min(waits, default=None),
    )


def _versions(
    project: Project, builds: Sequence[BuildOutcome], settings: Settings
) -> list[Version]:
    """Return all that was built: what status says, and what Jobs ended with since."""
    _, pull = image_repository(project, settings)
    known = {(v.runtime, v.inputs_hash): v for v in project.status.versions}
    for build in builds:
        if build.digest is None or (build.runtime, build.inputs_hash) in known:
            continue
        known[build.runtime, build.inputs_hash] = Version(
            runtime=build.runtime,
            image=f"{pull}@{build.digest}",
            inputs_hash=build.inputs_hash,
            commit=build.commit,
            tree=build.tree,
            built_at=build.finished or "",
        )
    return sorted(known.values(), key=_age)


def _remembered(
    versions: Sequence[Version], runtimes: Sequence[RuntimeStatus], limit: int
) -> list[Version]:
    """Return the newest versions, and those in use however old: else they were built again."""
    used = {(r.name, r.inputs_hash) for r in runtimes if r.inputs_hash}
    is_used = [(v.runtime, v.inputs_hash) in used for v in versions]
    kept = sorted(zip(is_used, versions, strict=True), key=lambda pair: (pair[0], _age(pair[1])))
    return sorted((v for _, v in kept[-max(limit, sum(is_used)) :]), key=_age)


def _age(version: Version) -> tuple[str, str, str]:
    return version.built_at, version.runtime, version.inputs_hash


def _source_status(
    project: Project, source: SourceSnapshot | None, now: datetime
) -> SourceStatus | None:
    git, old = project.spec.git, project.status.source
    if git is None:
        return None
    if source is None:
        return old
    ref = git.ref
    if old and (old.commit, old.ref) == (source.commit, ref):
        return old
    return SourceStatus(
        ref=ref,
        commit=source.commit,
        author=source.author,
        message=source.message,
        resolved_at=rfc3339(now),
    )


def _with_conditions(
    project: Project, status: ProjectStatus, source: SourceView, now: datetime
) -> ProjectStatus:
    conditions = status.conditions

    def put(type: str, value: bool | None, reason: str, message: str) -> Condition:
        nonlocal conditions
        conditions = set_condition(
            conditions,
            type=type,
            status=value,
            reason=reason,
            message=message,
            generation=project.metadata.generation,
            now=now,
        )
        return next(c for c in conditions if c.type == type)

    first = put(SOURCE_READY, *_source_condition(project, status, source))
    second = put(IMAGES_READY, *_images_condition(status))
    if project.spec.suspend:
        put(READY, False, "Suspended", "spec.suspend is set: neither ref nor images are followed")
    elif first.status == "True" and second.status == "True":
        put(READY, True, "Ready", second.message)
    else:
        worst = first if first.status != "True" else second
        value = None if worst.status == "Unknown" else False
        put(READY, value, worst.reason, worst.message)
    return status.but(conditions=conditions)


def _source_condition(
    project: Project, status: ProjectStatus, source: SourceView
) -> tuple[bool | None, str, str]:
    if project.spec.git is None:
        return True, "NoSource", "there is none: every image is ready made"
    if source.problem:
        return False, source.problem.reason, source.problem.message
    if source.snapshot and status.source:
        s = status.source
        return True, "Resolved", f"{s.ref} is {s.commit[:12]}: {s.message}"
    before = find_condition(project.status.conditions, SOURCE_READY)
    if before and before.observed_generation == project.metadata.generation:
        # After a restart nothing was read yet: what was known holds until something else is.
        value = {"True": True, "False": False}.get(before.status)
        return value, before.reason, before.message
    return None, "Resolving", f"resolving {project.spec.git.ref}"


def _images_condition(status: ProjectStatus) -> tuple[bool | None, str, str]:
    for phase, value, reason in (
        ("Failed", False, "ImageBuildFailed"),
        ("Building", None, "ImageBuilding"),
        ("Pending", None, "ImagePending"),
    ):
        for runtime in status.runtimes:
            if runtime.phase == phase:
                kept = " (the last good image stays in use)" if runtime.image else ""
                message = runtime.message or "waiting for the source"
                return value, reason, f"image {runtime.name}: {message}{kept}"
    names = ", ".join(r.name for r in status.runtimes)
    return True, "Built", f"ready to run: {names}"
