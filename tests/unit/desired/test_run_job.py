import json
import subprocess
from typing import Any

import pytest
from golden_files import assert_golden_yaml
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_env import env_of
from objects import COMMIT, NOW, make_grant, make_run, make_settings
from pod_security import violations

from labfunctions_operator.api.run import Snapshot
from labfunctions_operator.api.workflow import RUNNER_ENV
from labfunctions_operator.desired.run_job import (
    PARAMETERS_LIMIT_BYTES,
    build_run_job,
    parameters_size,
)

FULL: dict[str, Any] = {
    "projectRef": {"name": "demo"},
    "notebook": "analysis.ipynb",
    "parametersPolicy": "Permissive",
    "env": [
        {"name": "ZONE", "value": "eu"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "api", "key": "token"}}},
        {"name": "RUNNER_CONFIG", "value": "mine"},
        {"name": "ZONE", "value": "us"},
    ],
    "envFrom": [{"secretRef": {"name": "database"}}],
    "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "4Gi"}},
    "gpu": {"count": 2, "resourceName": "nvidia.com/mig-1g.5gb"},
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": True}],
    "serviceAccountName": "analyst",
    "priorityClassName": "batch",
    "imagePullSecrets": [{"name": "registry-login"}],
    "cellTimeoutSeconds": 60,
}


def build(
    *,
    parameters: dict[str, Any] | None = None,
    workflow: str | None = "report",
    attempt: int = 1,
    **execution: Any,
) -> dict[str, Any]:
    said = {
        "notebook": "analysis.ipynb",
        "timeoutSeconds": 10800,
        **execution,
        "projectRef": None,
        "runtime": "default",
        "parameters": parameters or {},
    }
    snapshot = Snapshot.model_validate(
        {
            **said,
            "project": "demo",
            "workflow": workflow,
            "commit": COMMIT,
            "image": "localhost:30500/team/demo@sha256:0a",
        }
    )
    return build_run_job(
        make_run(), snapshot, make_grant(), make_settings(), attempt=attempt, now=NOW
    )


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def notebook_of(job: dict[str, Any]) -> dict[str, Any]:
    [container] = pod_of(job)["containers"]
    return dict(container)


def courier_of(job: dict[str, Any]) -> dict[str, Any]:
    [container] = pod_of(job)["initContainers"]
    return dict(container)


def config_of(job: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(env_of(notebook_of(job))["RUNNER_CONFIG"])
    return config


def test_the_job_of_a_plain_run_is_as_reviewed() -> None:
    assert_golden_yaml("run-minimal", build())


def test_the_job_of_a_run_with_everything_is_as_reviewed() -> None:
    assert_golden_yaml("run-full", build(parameters={"day": "2026-01-01", "n": 3}, **FULL))


def test_the_job_of_a_run_without_a_workflow_carries_no_workflow_label() -> None:
    labels = build(workflow=None)["metadata"]["labels"]
    assert "labfunctions.io/workflow" not in labels
    assert labels["app.kubernetes.io/name"] == "first"


@pytest.mark.parametrize("execution", [{}, FULL])
def test_run_pods_pass_the_restricted_profile(execution: dict[str, Any]) -> None:
    assert violations(pod_of(build(**execution))) == []


@pytest.mark.parametrize(
    ("weakness", "violation"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "volume x"),
        ({"securityContext": {"runAsUser": 0}}, "runAsUser"),
        ({"securityContext": {}}, "notebook: runAsNonRoot"),
        ({"securityContext": {}}, "notebook: seccompProfile"),
        ({"containers": [{"name": "c"}]}, "c: allowPrivilegeEscalation"),
        ({"containers": [{"name": "c"}]}, "c: capabilities.drop"),
    ],
)
def test_the_checker_of_the_profile_itself_finds_weaknesses(
    weakness: dict[str, Any], violation: str
) -> None:
    assert violation in violations({**pod_of(build()), **weakness})


def test_the_notebook_holds_no_right_of_the_courier() -> None:
    job = build()
    notebook, courier = notebook_of(job), courier_of(job)
    assert "COURIER_CONFIG" in env_of(courier)
    assert "COURIER_CONFIG" not in env_of(notebook)
    assert "X-Amz-Signature" not in json.dumps(notebook)
    assert "signature=" not in json.dumps(notebook)
    assert [v for v in pod_of(job)["volumes"] if set(v) - {"name", "emptyDir"}] == []
    shared = {m["name"] for m in notebook["volumeMounts"]} & {
        m["name"] for m in courier["volumeMounts"]
    }
    assert shared == {"labfunctions-work"}


@pytest.mark.parametrize(("account", "token"), [(None, False), ("analyst", True)])
def test_a_token_is_there_only_for_who_asks_for_an_identity(
    account: str | None, token: bool
) -> None:
    pod = pod_of(build(serviceAccountName=account))
    assert pod["automountServiceAccountToken"] is token
    assert pod.get("serviceAccountName") == account


def test_the_courier_sees_its_urls_as_they_were_signed() -> None:
    config = json.loads(env_of(courier_of(build()))["COURIER_CONFIG"])
    assert config["uploads"] == make_grant().uploads
    assert config["report"] == make_grant().report


@pytest.mark.parametrize("value", ["$(HOME)", "$(X)", "$$(X)", "$$", "$X", "{}", '"\n\\', None])
def test_parameters_reach_the_runner_as_they_were_written(value: Any) -> None:
    parameters = {"a": value, "b": [value, {"c": value}]}
    assert config_of(build(parameters=parameters))["parameters"] == parameters


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


@given(parameters=st.dictionaries(st.text(), JSON, max_size=4))
def test_any_parameters_reach_the_runner_and_the_record(parameters: dict[str, Any]) -> None:
    job = build(parameters=parameters)
    assert config_of(job)["parameters"] == parameters
    kept = json.loads(job["metadata"]["annotations"]["labfunctions.io/snapshot"])
    assert Snapshot.model_validate(kept).parameters == parameters


def test_a_program_can_be_started_with_the_longest_parameters() -> None:
    text = "日" * ((PARAMETERS_LIMIT_BYTES - len('{"day": ""}')) // 6)
    assert PARAMETERS_LIMIT_BYTES - 6 < parameters_size({"day": text}) <= PARAMETERS_LIMIT_BYTES
    secret = {"secretKeyRef": {"name": "api", "key": "token"}}
    env = [{"name": f"TOKEN_OF_{n:080}", "valueFrom": secret} for n in range(200)]
    job = build(parameters={"day": text}, notebook="ü" * 512, env=env)
    words = {"RUNNER_CONFIG": json.dumps(config_of(job))}
    assert subprocess.run(["/bin/true"], env=words, check=False).returncode == 0


def test_what_the_notebook_is_told_of_itself() -> None:
    config = config_of(build(attempt=2))
    assert config["inject"] == {
        "WFID": "report",
        "EXECID": "first",
        "NOW": "2026-01-01T12:00:00Z",
        "PROJECT": "demo",
        "ATTEMPT": 2,
        "SCHEDULED_AT": None,
    }
    assert (config["parametersPolicy"], config["timeoutSeconds"]) == ("Strict", 10800)


def test_the_env_of_the_user_stays_as_it_is_but_for_what_is_ours() -> None:
    theirs = [{"name": name, "value": "mine"} for name in (*RUNNER_ENV, "LABFUNCTIONS_MASK_A")]
    entries = notebook_of(build(**{**FULL, "env": [*FULL["env"], *theirs]}))["env"]
    assert entries[:-3] == [e for e in FULL["env"] if e["name"] != "RUNNER_CONFIG"]
    config, *where = entries[-3:]
    assert config["name"] == "RUNNER_CONFIG"
    assert json.loads(config["value"])["notebook"] == "analysis.ipynb"
    assert where == [
        {"name": "LABFUNCTIONS_DIR", "value": "/labfunctions"},
        {"name": "TERMINATION_LOG", "value": "/dev/termination-log"},
    ]


def test_gpus_are_added_to_the_limits_of_the_user() -> None:
    resources = notebook_of(build(**FULL))["resources"]
    assert resources == {
        "requests": {"cpu": "2", "memory": "4Gi"},
        "limits": {"memory": "4Gi", "nvidia.com/mig-1g.5gb": "2"},
    }
    assert FULL["resources"]["limits"] == {"memory": "4Gi"}, "the input is not changed"
    assert notebook_of(build(gpu={}))["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    assert "resources" not in notebook_of(build())


@pytest.mark.parametrize(
    "execution",
    [
        {"resources": {"claims": [{"name": "gpu"}], "limits": {"cpu": "1"}}},
        {"resources": {"limits": "a lot"}},
        {"resources": {"limits": ["a lot"]}},
        {"resources": {"limits": None}},
        {"resources": {}},
        {"env": [{"name": ["A"]}, {}, {"name": {"a": 1}}, {"name": None}]},
        {"envFrom": [{}], "tolerations": [{}], "volumes": [{}], "volumeMounts": [{}]},
    ],
)
@pytest.mark.parametrize("gpu", [None, {"count": 1}])
def test_what_is_passed_on_is_for_the_api_server_to_judge(
    execution: dict[str, Any], gpu: dict[str, Any] | None
) -> None:
    container = notebook_of(build(gpu=gpu, **execution))
    for name, value in execution.get("resources", {}).items():
        if value and not (gpu and name == "limits"):
            assert container["resources"][name] == value
    if gpu:
        assert "nvidia.com/gpu" in json.dumps(container["resources"]["limits"])


def test_a_queue_gets_the_job_suspended_and_named_for_kueue() -> None:
    job = build(queueName="team")
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    plain = build()
    assert "suspend" not in plain["spec"]
    assert plain["spec"]["template"] == job["spec"]["template"]


def test_autoscalers_are_asked_not_to_evict_unless_the_user_lets_them() -> None:
    protected = build()["spec"]["template"]["metadata"]["annotations"]
    assert protected == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
    assert build(safeToEvict=False)["spec"]["template"]["metadata"]["annotations"] == protected
    assert "annotations" not in build(safeToEvict=True)["spec"]["template"]["metadata"]


def test_the_attempt_is_in_the_name_and_in_the_labels() -> None:
    job = build(attempt=3)
    assert job["metadata"]["name"] == "first-3"
    assert job["metadata"]["labels"]["labfunctions.io/attempt"] == "3"
    assert job["spec"]["template"]["metadata"]["labels"] == job["metadata"]["labels"]
    assert job["spec"]["backoffLimit"] == 0
