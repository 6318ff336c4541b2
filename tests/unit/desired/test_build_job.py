import json
from typing import Any

import pytest
from golden_files import assert_golden_yaml
from kubernetes_env import env_of
from objects import COMMIT, TREE, make_project, make_settings
from pod_security import violations

from labfunctions_operator.api.project import Project
from labfunctions_operator.desired.build_job import (
    BuildInputs,
    build_build_job,
    build_builder_secret,
    image_repository,
)
from labfunctions_operator.desired.dockerfile import render_dockerfile

FULL: dict[str, Any] = {
    "git": {"path": "notebooks", "ref": "v1.2", "secretRef": {"name": "git-login"}},
    "registry": {
        "repository": "registry.example.com/team/demo",
        "secretRef": {"name": "registry-login"},
    },
    "runtimes": [
        {
            "name": "gpu",
            "template": "gpu",
            "env": {"PRICE": "$(GIT_URL) $5"},
            "build": {
                "cache": True,
                "timeoutSeconds": 600,
                "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}},
            },
        }
    ],
}


def build(project: Project, mode: str = "shared") -> dict[str, Any]:
    runtime = project.spec.effective_runtimes[0]
    inputs = BuildInputs(
        commit=COMMIT,
        tree=TREE,
        dockerfile=render_dockerfile(runtime, {"requirements.txt": "pandas\n"}),
        inputs_hash="0a1b2c3d4e5f" + "0" * 52,
    )
    return build_build_job(project, runtime, inputs, make_settings(mode))


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def container(job: dict[str, Any], name: str) -> dict[str, Any]:
    pod = pod_of(job)
    [found] = [c for c in [*pod["initContainers"], *pod["containers"]] if c["name"] == name]
    return dict(found)


def mounted(job: dict[str, Any], name: str) -> set[str]:
    return {m["name"] for m in container(job, name)["volumeMounts"]}


@pytest.mark.parametrize(
    ("name", "spec", "mode"),
    [
        ("build-shared", {}, "shared"),
        ("build-shared-with-secrets", FULL, "shared"),
        ("build-per-build", {}, "perBuild"),
        ("build-per-build-with-secrets", FULL, "perBuild"),
    ],
)
def test_build_job_is_as_reviewed(name: str, spec: dict[str, Any], mode: str) -> None:
    assert_golden_yaml(name, build(make_project(**spec), mode))


def test_builder_secret_is_as_reviewed() -> None:
    certificate = {"ca.crt": "CA", "tls.crt": "CERTIFICATE", "tls.key": "KEY"}
    assert_golden_yaml("builder-secret", build_builder_secret(make_project(), certificate))


@pytest.mark.parametrize("spec", [{}, FULL])
def test_a_build_by_the_shared_builder_passes_the_restricted_profile(spec: dict[str, Any]) -> None:
    assert violations(pod_of(build(make_project(**spec)))) == []


def test_a_build_with_a_builder_of_its_own_asks_for_no_privilege() -> None:
    found = violations(pod_of(build(make_project(), "perBuild")))
    assert set(found) == {
        "appArmorProfile",
        "source: seccompProfile",
        "build: seccompProfile",
        "buildkitd: allowPrivilegeEscalation",
        "buildkitd: capabilities.drop",
        "buildkitd: seccompProfile",
    }


@pytest.mark.parametrize("mode", ["shared", "perBuild"])
def test_each_container_sees_its_own_secrets_only(mode: str) -> None:
    job = build(make_project(**FULL), mode)
    secrets = {v["name"] for v in pod_of(job)["volumes"] if "secret" in v}
    tls = {"builder-tls"} if mode == "shared" else set()
    assert secrets == {"git-secret", "registry-secret"} | tls
    assert mounted(job, "source") & secrets == {"git-secret"}
    assert mounted(job, "build") & secrets == {"registry-secret"} | tls
    assert pod_of(job)["automountServiceAccountToken"] is False
    if mode == "perBuild":
        assert mounted(job, "buildkitd") & secrets == set()


def test_the_dockerfile_reaches_the_container_as_it_was_rendered() -> None:
    project = make_project(**FULL)
    env = env_of(container(build(project), "source"))
    runtime = project.spec.runtimes[0]
    assert env["DOCKERFILE"] == render_dockerfile(runtime, {"requirements.txt": "pandas\n"})
    assert 'PRICE="\\$(GIT_URL) \\$5"' in env["DOCKERFILE"]


def test_the_build_remembers_what_it_builds() -> None:
    job = build(make_project())
    assert json.loads(job["metadata"]["annotations"]["labfunctions.io/build"]) == {
        "runtime": "default",
        "inputsHash": "0a1b2c3d4e5f" + "0" * 52,
        "commit": COMMIT,
        "tree": TREE,
    }
    assert job["metadata"]["ownerReferences"][0]["uid"] == make_project().metadata.uid


def test_the_image_is_pushed_and_pulled_under_the_names_of_each_side() -> None:
    assert image_repository(make_project(), make_settings()) == (
        "registry.labfunctions-system.svc:5000/team/demo",
        "localhost:30500/team/demo",
    )
    own = "registry.example.com/team/demo"
    assert image_repository(make_project(**FULL), make_settings()) == (own, own)


@pytest.mark.parametrize(
    ("registry", "insecure"),
    [
        (None, "true"),
        ({"repository": "r.example.com/x"}, "false"),
        ({"repository": "r.example.com/x", "insecure": True}, "true"),
    ],
)
def test_the_registry_of_the_project_says_itself_whether_it_is_insecure(
    registry: dict[str, Any] | None, insecure: str
) -> None:
    project = make_project(registry=registry) if registry else make_project()
    assert env_of(container(build(project), "build"))["REGISTRY_INSECURE"] == insecure


def test_two_builds_of_the_same_are_the_same_job() -> None:
    assert build(make_project(**FULL)) == build(make_project(**FULL))
