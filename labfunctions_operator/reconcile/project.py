"""What a Project needs next: its source resolved, and one build at a time for each runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from labfunctions_operator.api.conditions import set_condition
from labfunctions_operator.api.project import (
    Project,
    ProjectStatus,
    Runtime,
    RuntimeStatus,
    SourceStatus,
    Version,
)
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.api.types import Condition
from labfunctions_operator.desired.build_job import (
    BuildInputs,
    build_build_job,
    build_builder_secret,
    image_repository,
)
from labfunctions_operator.desired.dockerfile import (
    base_image,
    render_dockerfile,
    requirement_files,
)
from labfunctions_operator.desired.names import build_job_name, digest
from labfunctions_operator.reconcile.build import BuildOutcome, read_build
from labfunctions_operator.reconcile.plan import Manifest, Plan, Problem, Ref
from labfunctions_operator.reconcile.source import SourceSnapshot, SourceView
from labfunctions_operator.settings import Settings

READY = "Ready"
SOURCE_READY = "SourceReady"
IMAGES_READY = "ImagesReady"

RETRY_FIRST = timedelta(minutes=1)
RETRY_CAP = timedelta(hours=1)

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


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What one runtime needs: its next state, and what brings it there."""

    status: RuntimeStatus
    apply: tuple[Manifest, ...] = ()
    delete: tuple[Ref, ...] = ()
    requeue_after: float | None = None


def reconcile_project(
    project: Project, seen: ProjectObserved, settings: Settings, now: datetime
) -> Plan:
    """Decide what a Project needs next, from what exists now."""
    mine = [job for job in seen.jobs if _is_owned_by(job, project)]
    builds = [build for job in mine if (build := read_build(job, seen.pods))]
    versions = _versions(project, builds, settings)
    steps = [
        _step(
            project,
            runtime,
            seen=seen,
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


def build_inputs(runtime: Runtime, source: SourceSnapshot) -> BuildInputs | Problem:
    """Work out what an image is made of; the same inputs give the same hash."""
    if runtime.dockerfile:
        text = source.files.get(runtime.dockerfile)
        if text is None:
            return Problem(
                reason="DockerfileNotFound",
                message=f"{runtime.dockerfile} is not in the source at {source.commit[:12]}",
            )
    elif runtime.requirements and runtime.requirements not in source.files:
        return Problem(
            reason="RequirementsNotFound",
            message=f"{runtime.requirements} is not in the source at {source.commit[:12]}",
        )
    else:
        text = render_dockerfile(runtime, source.files)
    # Files that other runtimes are made of do not concern this one.
    paths = (runtime.dockerfile,) if runtime.dockerfile else requirement_files(runtime)
    files = {path: source.files[path] for path in paths if path in source.files}
    inputs_hash = digest(text, files, source.tree, base_image(runtime))
    return BuildInputs(
        commit=source.commit, tree=source.tree, dockerfile=text, inputs_hash=inputs_hash
    )


def _is_owned_by(job: Object, project: Project) -> bool:
    owners = job["metadata"].get("ownerReferences", [])
    return any(owner.get("uid") == project.metadata.uid for owner in owners)


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


def _step(
    project: Project,
    runtime: Runtime,
    *,
    seen: ProjectObserved,
    builds: Sequence[BuildOutcome],
    versions: Sequence[Version],
    settings: Settings,
    now: datetime,
) -> _Step:
    old = next((s for s in project.status.runtimes if s.name == runtime.name), None)
    if runtime.image:
        return _Step(status=RuntimeStatus(name=runtime.name, phase="Ready", image=runtime.image))
    before = _with_news(old or RuntimeStatus(name=runtime.name, phase="Pending"), project, versions)
    source = seen.source.snapshot
    if source is None or project.spec.suspend:
        return _Step(status=before)
    inputs = build_inputs(runtime, source)
    if isinstance(inputs, Problem):
        return _Step(status=before.but(phase="Failed", message=inputs.message))
    if before.failed_hash != inputs.inputs_hash:
        before = before.but(failures=0, failed_hash=None)
    wanted = (runtime.name, inputs.inputs_hash)
    version = next((v for v in versions if (v.runtime, v.inputs_hash) == wanted), None)
    if version:
        return _Step(status=_ready(version))
    mine = [b for b in builds if b.runtime == runtime.name]
    name = build_job_name(project.metadata.name, runtime.name, inputs.inputs_hash)
    failed = next((b for b in mine if b.job == name and b.error is not None), None)
    if failed:
        return _failed(project, failed, inputs, before, now)
    active = next((b for b in mine if not b.is_over), None)
    if active:
        message = f"building {active.commit[:12]}: {active.step}"
        return _Step(status=before.but(phase="Building", message=message))
    message = f"building {inputs.commit[:12]}: waiting for the pod to be created"
    status = before.but(phase="Building", message=message)
    job = build_build_job(project, runtime, inputs, settings)
    if settings.builder.mode == "shared":
        return _Step(status=status, apply=(build_builder_secret(project, seen.certificate), job))
    return _Step(status=status, apply=(job,))


def _with_news(
    before: RuntimeStatus, project: Project, versions: Sequence[Version]
) -> RuntimeStatus:
    """Take up an image that was built since, even if newer code has overtaken it meanwhile."""
    newest = next((v for v in reversed(versions) if v.runtime == before.name), None)
    if newest is None or newest in project.status.versions:
        return before
    return _ready(newest).but(
        phase=before.phase,
        message=before.message,
        failures=before.failures,
        failed_hash=before.failed_hash,
    )


def _ready(version: Version) -> RuntimeStatus:
    return RuntimeStatus(
        name=version.runtime,
        phase="Ready",
        image=version.image,
        inputs_hash=version.inputs_hash,
        commit=version.commit,
        tree=version.tree,
        built_at=version.built_at,
    )


def _failed(
    project: Project,
    build: BuildOutcome,
    inputs: BuildInputs,
    before: RuntimeStatus,
    now: datetime,
) -> _Step:
    """Keep the last good image, say what is wrong, and try again later: a registry may be back."""
    counted = before.failed_hash == inputs.inputs_hash and before.phase == "Failed"
    failures = before.failures if counted else before.failures + 1
    status = before.but(
        phase="Failed",
        message=build.error,
        failures=failures,
        failed_hash=inputs.inputs_hash,
    )
    wait = min(RETRY_FIRST * 2 ** min(failures - 1, 10), RETRY_CAP)
    left = parse_time(build.finished or rfc3339(now)) + wait - now
    if left > timedelta(0):
        return _Step(status=status, requeue_after=left.total_seconds())
    ref = Ref(
        api_version="batch/v1",
        kind="Job",
        namespace=project.metadata.namespace,
        name=build.job,
        uid=build.uid,
    )
    return _Step(status=status, delete=(ref,))


def _source_status(
    project: Project, source: SourceSnapshot | None, now: datetime
) -> SourceStatus | None:
    old = project.status.source
    if source is None:
        return old
    ref = project.spec.source.git.ref
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
    if source.problem:
        return False, source.problem.reason, source.problem.message
    if source.snapshot and status.source:
        s = status.source
        return True, "Resolved", f"{s.ref} is {s.commit[:12]}: {s.message}"
    before = next((c for c in project.status.conditions if c.type == SOURCE_READY), None)
    if before and before.observed_generation == project.metadata.generation:
        # After a restart nothing was read yet: what was known holds until something else is.
        value = {"True": True, "False": False}.get(before.status)
        return value, before.reason, before.message
    return None, "Resolving", f"resolving {project.spec.source.git.ref}"


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
