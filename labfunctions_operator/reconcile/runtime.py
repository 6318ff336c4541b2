"""What a runtime of a Project needs next: an image that exists, or the build Job that makes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from labfunctions_operator.api.project import Project, Runtime, RuntimeStatus, Version
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.desired.build_job import (
    BuildInputs,
    build_build_job,
    build_builder_secret,
)
from labfunctions_operator.desired.dockerfile import (
    base_image,
    render_dockerfile,
    requirement_files,
)
from labfunctions_operator.desired.names import build_job_name, digest
from labfunctions_operator.reconcile.build import BuildOutcome
from labfunctions_operator.reconcile.plan import Manifest, Problem, Ref
from labfunctions_operator.reconcile.source import SourceSnapshot
from labfunctions_operator.settings import Settings

RETRY_FIRST = timedelta(minutes=1)
RETRY_CAP = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class RuntimeStep:
    """What one runtime needs: its next state, and what brings it there."""

    status: RuntimeStatus
    apply: tuple[Manifest, ...] = ()
    delete: tuple[Ref, ...] = ()
    requeue_after: float | None = None


def runtime_step(
    project: Project,
    runtime: Runtime,
    *,
    source: SourceSnapshot | None,
    certificate: Mapping[str, str],
    builds: Sequence[BuildOutcome],
    versions: Sequence[Version],
    settings: Settings,
    now: datetime,
) -> RuntimeStep:
    """Decide what one runtime needs.

    Args:
        project: Whose runtime it is.
        runtime: As the spec has it.
        source: The Project's source as last read, if it was.
        certificate: For the shared builder; empty for builders of their own.
        builds: The build Jobs of all runtimes.
        versions: All images that were built, oldest first.
        settings: The operator's.
        now: The time.
    """
    old = next((s for s in project.status.runtimes if s.name == runtime.name), None)
    if runtime.image:
        return RuntimeStep(
            status=RuntimeStatus(name=runtime.name, phase="Ready", image=runtime.image)
        )
    before = _with_news(old or RuntimeStatus(name=runtime.name, phase="Pending"), project, versions)
    if source is None or project.spec.suspend:
        return RuntimeStep(status=before)
    inputs = build_inputs(runtime, source)
    if isinstance(inputs, Problem):
        since = before.failed_since or rfc3339(now)
        return RuntimeStep(
            status=before.but(phase="Failed", message=inputs.message, failed_since=since)
        )
    if before.failed_hash != inputs.inputs_hash:
        before = before.but(failures=0, failed_hash=None, failed_since=None)
    wanted = (runtime.name, inputs.inputs_hash)
    version = next((v for v in versions if (v.runtime, v.inputs_hash) == wanted), None)
    if version:
        return RuntimeStep(status=_ready(version))
    mine = [b for b in builds if b.runtime == runtime.name]
    name = build_job_name(project.metadata.name, runtime.name, inputs.inputs_hash)
    failed = next((b for b in mine if b.job == name and b.error is not None), None)
    if failed:
        return _failed(project, failed, inputs, before, now)
    active = next((b for b in mine if not b.is_over), None)
    if active:
        message = f"building {active.commit[:12]}: {active.step}"
        return RuntimeStep(status=before.but(phase="Building", message=message))
    message = f"building {inputs.commit[:12]}: waiting for the pod to be created"
    status = before.but(phase="Building", message=message)
    job = build_build_job(project, runtime, inputs, settings)
    if settings.builder.mode == "shared":
        return RuntimeStep(status=status, apply=(build_builder_secret(project, certificate), job))
    return RuntimeStep(status=status, apply=(job,))


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
        failed_since=before.failed_since,
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
) -> RuntimeStep:
    """Keep the last good image, say what is wrong, and try again later: a registry may be back."""
    counted = before.failed_hash == inputs.inputs_hash and before.phase == "Failed"
    failures = before.failures if counted else before.failures + 1
    finished = build.finished or rfc3339(now)
    status = before.but(
        phase="Failed",
        message=build.error,
        failures=failures,
        failed_hash=inputs.inputs_hash,
        failed_since=before.failed_since or finished,
    )
    wait = min(RETRY_FIRST * 2 ** min(failures - 1, 10), RETRY_CAP)
    left = parse_time(finished) + wait - now
    if left > timedelta(0):
        return RuntimeStep(status=status, requeue_after=left.total_seconds())
    job = {"namespace": project.metadata.namespace, "name": build.job, "uid": build.uid}
    return RuntimeStep(status=status, delete=(Ref.to("batch/v1", "Job", job),))
