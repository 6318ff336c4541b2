"""The Job that fetches one commit and builds one image of it, without privileges."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labfunctions_operator.api import labels
from labfunctions_operator.api.project import Project, Runtime
from labfunctions_operator.desired.names import (
    build_job_name,
    builder_secret_name,
    env_literal,
    owner_reference,
)
from labfunctions_operator.settings import Settings

BUILD_UID = 1000
SOURCE_CONTAINER = "source"
BUILD_CONTAINER = "build"
KEEP_SECONDS = 86400

_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@dataclass(frozen=True, kw_only=True)
class BuildInputs:
    """What one image is made of."""

    commit: str
    tree: str
    dockerfile: str
    inputs_hash: str


def image_repository(project: Project, settings: Settings) -> tuple[str, str]:
    """Return the image's name, without a tag, for pushing and for pulling."""
    if project.spec.registry:
        return project.spec.registry.repository, project.spec.registry.repository
    path = f"{project.metadata.namespace}/{project.metadata.name}"
    return (
        f"{settings.registry.push_repository}/{path}",
        f"{settings.registry.pull_repository}/{path}",
    )


def build_builder_secret(project: Project, certificate: Mapping[str, str]) -> dict[str, Any]:
    """Build the Secret with the client certificate for the shared builder.

    Args:
        project: Its owner.
        certificate: `ca.crt`, `tls.crt` and `tls.key`, as text.
    """
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(project, builder_secret_name(project.metadata.name)),
        "type": "Opaque",
        "stringData": dict(certificate),
    }


def build_build_job(
    project: Project, runtime: Runtime, inputs: BuildInputs, settings: Settings
) -> dict[str, Any]:
    """Build the Job for one image."""
    name = build_job_name(project.metadata.name, runtime.name, inputs.inputs_hash)
    metadata = _metadata(project, name)
    metadata["labels"][labels.RUNTIME] = runtime.name
    metadata["annotations"] = {
        labels.BUILD_ANNOTATION: json.dumps(
            {
                "runtime": runtime.name,
                "inputsHash": inputs.inputs_hash,
                "commit": inputs.commit,
                "tree": inputs.tree,
            },
            sort_keys=True,
        )
    }
    shared = settings.builder.mode == "shared"
    containers = [_source_container(project, inputs, settings)]
    if not shared:
        containers.append(_buildkitd_sidecar(settings))
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _pod_security(shared=shared),
        "initContainers": containers,
        "containers": [_build_container(project, runtime, inputs, settings)],
        "volumes": _volumes(project, settings),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": runtime.build.timeout_seconds,
            "ttlSecondsAfterFinished": KEEP_SECONDS,
            "template": {"metadata": {"labels": dict(metadata["labels"])}, "spec": pod},
        },
    }


def _metadata(project: Project, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": project.metadata.namespace,
        "labels": {
            **labels.common(project.metadata.name, labels.COMPONENT_BUILD),
            labels.PROJECT: project.metadata.name,
        },
        "ownerReferences": [owner_reference("Project", project.metadata)],
    }


def _pod_security(*, shared: bool) -> dict[str, Any]:
    security: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": BUILD_UID,
        "runAsGroup": BUILD_UID,
        "fsGroup": BUILD_UID,
    }
    if shared:
        return {**security, "seccompProfile": {"type": "RuntimeDefault"}}
    # Rootless BuildKit makes user and mount namespaces, which the default profiles forbid.
    return {
        **security,
        "seccompProfile": {"type": "Unconfined"},
        "appArmorProfile": {"type": "Unconfined"},
    }


def _source_container(project: Project, inputs: BuildInputs, settings: Settings) -> dict[str, Any]:
    git = project.spec.git
    assert git is not None, "there is something to build from"
    mounts = [_mount("workspace", "/workspace"), _mount("tmp", "/tmp")]
    if git.secret_ref:
        mounts.append({**_mount("git-secret", "/etc/git-secret"), "readOnly": True})
    return {
        "name": SOURCE_CONTAINER,
        "image": settings.images.builder,
        "command": ["fetch-source"],
        "env": _env(
            GIT_URL=git.url,
            GIT_REF=git.ref,
            GIT_COMMIT=inputs.commit,
            SOURCE_PATH=git.path,
            DOCKERFILE=inputs.dockerfile,
        ),
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "securityContext": _RESTRICTED,
        "volumeMounts": mounts,
    }


def _build_container(
    project: Project, runtime: Runtime, inputs: BuildInputs, settings: Settings
) -> dict[str, Any]:
    shared = settings.builder.mode == "shared"
    registry = project.spec.registry
    push, _ = image_repository(project, settings)
    mounts = [_mount("workspace", "/workspace"), _mount("tmp", "/tmp")]
    if shared:
        host = settings.builder.address
        mounts.append({**_mount("builder-tls", "/etc/buildkit-tls"), "readOnly": True})
    else:
        host = "unix:///run/buildkit/buildkitd.sock"
        mounts.append(_mount("buildkit-run", "/run/buildkit"))
    if registry and registry.secret_ref:
        mounts.append({**_mount("registry-secret", "/etc/registry-secret"), "readOnly": True})
    insecure = registry.insecure if registry else settings.registry.insecure
    container: dict[str, Any] = {
        "name": BUILD_CONTAINER,
        "image": settings.images.builder,
        "command": ["build-image"],
        "env": _env(
            BUILDKIT_HOST=host,
            IMAGE=push,
            TAG=f"{runtime.name}-{inputs.inputs_hash[:12]}",
            REGISTRY_INSECURE=str(insecure).lower(),
            CACHE=str(runtime.build.cache).lower(),
        ),
        "securityContext": _RESTRICTED,
        "volumeMounts": mounts,
        "resources": runtime.build.resources or {"requests": {"cpu": "50m", "memory": "64Mi"}},
    }
    return container


def _buildkitd_sidecar(settings: Settings) -> dict[str, Any]:
    return {
        "name": "buildkitd",
        "image": settings.images.builder,
        "restartPolicy": "Always",
        "command": ["run-buildkitd"],
        "env": _env(BUILDKITD_CONFIG=settings.builder.buildkitd_config),
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
        # newuidmap needs to gain the capabilities of its file.
        "securityContext": {"allowPrivilegeEscalation": True},
        "volumeMounts": [
            _mount("buildkit-run", "/run/buildkit"),
            _mount("buildkit-state", "/home/user/.local/share/buildkit"),
        ],
    }


def _volumes(project: Project, settings: Settings) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "workspace", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if settings.builder.mode == "shared":
        name = builder_secret_name(project.metadata.name)
        volumes.append({"name": "builder-tls", "secret": {"secretName": name}})
    else:
        volumes += [
            {"name": "buildkit-run", "emptyDir": {}},
            {"name": "buildkit-state", "emptyDir": {}},
        ]
    if project.spec.git and (secret := project.spec.git.secret_ref):
        volumes.append(
            {"name": "git-secret", "secret": {"secretName": secret.name, "defaultMode": 0o440}}
        )
    if project.spec.registry and (secret := project.spec.registry.secret_ref):
        volumes.append({"name": "registry-secret", "secret": {"secretName": secret.name}})
    return volumes


def _env(**values: str) -> list[dict[str, str]]:
    return [{"name": name, "value": env_literal(value)} for name, value in values.items()]


def _mount(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "mountPath": path}
