"""What the API server itself refuses, in words that help, and what it takes in."""

from pathlib import Path
from typing import Any

import pytest

from dev.cluster.kubectl import Kubectl

from .api import Api, ApiError, Object
from .objects import API_VERSION, READY_MADE, inline_run, project, run, sourceless, workflow
from .process import ROOT

URL = "https://git.test/wine.git"
EXAMPLES = sorted((ROOT / "examples" / "manifests").glob("*.yaml"))


def refused(api: Api, manifest: Object) -> str:
    with pytest.raises(ApiError) as caught:
        api.create(manifest)
    assert caught.value.code in (400, 422), caught.value
    return str(caught.value)


def node_group(name: str, schedule: str) -> Object:
    """Sixteen warm times, the most there may be."""
    warm = [{"schedule": schedule, "duration": "1h", "min": 1}] * 16
    spec = {"labels": {"pool": name}, "max": 1, "warm": warm}
    return {
        "apiVersion": API_VERSION,
        "kind": "NodeGroup",
        "metadata": {"name": name},
        "spec": spec,
    }


def git(**changes: Any) -> Object:
    return project("", "", git={"url": URL, **changes})


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (project("", URL, "p" * 41), "a Project's name has at most 40 characters"),
        (workflow("", "w" * 43), "a Workflow's name has at most 42 characters"),
        (run("", "r" * 53), "a Run's name has at most 52 characters"),
        (run("", workflowRef=None), "give workflowRef, or projectRef and notebook"),
        (run("", notebook="a.ipynb"), "give workflowRef, or projectRef and notebook"),
        *(
            (
                run("", workflowRef=None, **{"from": "other"}, **more),
                "it goes with nothing but cancel",
            )
            for more in (
                {"parameters": {"a": 1}},
                {"parameters": {}},
                {"timeoutSeconds": 60},
                {"resources": {"limits": {"cpu": "1"}}},
                {"nodeGroup": "gpu"},
                {"env": [{"name": "A", "value": "b"}]},
                {"volumes": [{"name": "a", "emptyDir": {}}]},
                {"retries": {"limit": 1}},
            )
        ),
        (workflow("", notebook=None), "notebook is required"),
        (workflow("", projectRef=None), "projectRef is required"),
        (workflow("", timeoutSeconds=0), "spec.timeoutSeconds"),
        (workflow("", parametersPolicy="Lax"), 'supported values: "Strict", "Permissive"'),
        (workflow("", tiemoutSeconds=5), 'unknown field "spec.tiemoutSeconds"'),
        (run("", workflowRef={"name": "Big Name"}), "spec.workflowRef.name"),
        (git(url="file:///etc/passwd"), "spec.source.git.url"),
        (git(url="--upload-pack=evil"), "spec.source.git.url"),
        (git(ref="--force"), "spec.source.git.ref"),
        (git(ref="main; rm"), "spec.source.git.ref"),
        (git(interval="soon"), "spec.source.git.interval"),
        (
            project("", URL, runtimes=[{"name": "a", "packages": ["curl; rm"]}]),
            "spec.runtimes[0].packages[0]",
        ),
        (
            project("", URL, runtimes=[{"name": "a", "baseImage": "x\nRUN true"}]),
            "spec.runtimes[0].baseImage",
        ),
        (
            project("", URL, runtimes=[{"name": "a", "env": {"A": "1\nRUN true"}}]),
            "spec.runtimes[0].env.A",
        ),
        (
            project("", URL, runtimes=[{"name": "a", "user": {"uid": 0}}]),
            "spec.runtimes[0].user.uid",
        ),
        (project("", URL, runtimes=[{"image": "x"}]), "spec.runtimes[0].name: Required value"),
        *(
            (project("", URL, source=None, runtimes=runtimes), "source is required, unless every")
            for runtimes in (None, [], [{"name": "a"}], [READY_MADE, {"name": "a"}])
        ),
    ],
)
def test_api_server_refuses(api: Api, namespace: str, manifest: Object, message: str) -> None:
    metadata = {**manifest["metadata"], "namespace": namespace}
    spec = {key: value for key, value in manifest["spec"].items() if value is not None}
    assert message in refused(api, {**manifest, "metadata": metadata, "spec": spec})


@pytest.mark.parametrize(
    "schedule",
    ["@houry", "@HOURLY", "H H * * *", "0 0 L * *", "61 * * * *", "* * * * *;", "* * * foo *"],
)
def test_a_schedule_with_a_slip_is_refused(api: Api, namespace: str, schedule: str) -> None:
    why = "schedule has five fields (minute 0-59, hour 0-23"
    assert why in refused(api, workflow(namespace, schedule=schedule))
    assert f"warm: {why}" in refused(api, node_group(namespace, schedule))


@pytest.mark.parametrize("schedule", ["@daily", "0\t*/2 1,15  jan-MAR\tsun"])
def test_nodes_are_kept_warm_by_what_is_a_schedule(api: Api, namespace: str, schedule: str) -> None:
    api.create(node_group(namespace, schedule))
    api.delete("NodeGroup", "", namespace)


@pytest.mark.parametrize(
    "manifest",
    [
        project("", URL, "p" * 40),
        workflow("", schedule="0\t*/2 1,15  jan-MAR\tsun"),
        workflow("", schedule="@weekly"),
        project("", "git@git.test:team/wine.git", git={"ref": "feature/x-1.0", "path": "a b/c"}),
        sourceless(""),
        workflow("", "w" * 42, parameters={"a": [1, {"b": None}], "c": 1.5}),
        run("", "r" * 52),
        inline_run("", timeoutSeconds=60, env=[{"name": "A", "value": "b"}]),
        inline_run("", parameters={"a": None, "b": {"c": None}, "d": [], "e": 1.5}),
    ],
)
def test_api_server_takes_in(api: Api, namespace: str, manifest: Object) -> None:
    stored = api.create({**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}})
    assert stored["spec"] == manifest["spec"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"notebook": "other.ipynb"}, "create another one to run with another notebook"),
        ({"projectRef": {"name": "other"}}, "create another one to run with another projectRef"),
        ({"workflowRef": {"name": "w"}}, "create another one to run with another workflowRef"),
        ({"timeoutSeconds": None}, "create another one to run with another timeoutSeconds"),
        ({"runtime": "gpu"}, "create another one to run with another runtime"),
        ({"cancel": False}, "a cancelled Run stays cancelled"),
        ({"cancel": None}, "a cancelled Run stays cancelled"),
    ],
)
def test_run_never_changes(api: Api, namespace: str, change: Object, message: str) -> None:
    api.create(inline_run(namespace, timeoutSeconds=60))
    api.patch("Run", namespace, "first", {"spec": {"cancel": True}})
    with pytest.raises(ApiError, match=message):
        api.patch("Run", namespace, "first", {"spec": change})


@pytest.mark.parametrize(
    "change", [{"parameters": {"a": 1}}, {"env": [{"name": "A", "value": "b"}]}, {"affinity": {}}]
)
def test_a_repeat_gets_nothing_beside_from(api: Api, namespace: str, change: Object) -> None:
    spec = {"from": "other", "notifications": {}, "ttlSecondsAfterFinished": 60}
    manifest = run(namespace)
    api.create({**manifest, "spec": spec})
    for before in ({"cancel": True}, {}):
        with pytest.raises(ApiError, match="it goes with nothing but cancel"):
            api.patch(
                "Run", namespace, manifest["metadata"]["name"], {"spec": {**before, **change}}
            )


def test_deadline_of_a_finished_run_may_change(api: Api, namespace: str) -> None:
    api.create(inline_run(namespace))
    api.patch("Run", namespace, "first", {"spec": {"ttlSecondsAfterFinished": 60}})
    api.patch("Run", namespace, "first", {"spec": {"ttlSecondsAfterFinished": None}})


@pytest.fixture(scope="module")
def example_namespace(kubectl: Kubectl, api: Api) -> None:
    kubectl.run("apply", "-f", str(ROOT / "examples" / "manifests" / "namespace.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_taken_in(kubectl: Kubectl, example_namespace: None, example: Path) -> None:
    kubectl.run("apply", "--dry-run=server", "--validate=strict", "-f", str(example))


def test_tables_say_why(api: Api, namespace: str, kubectl: Kubectl) -> None:
    """`kubectl get labfunctions` lists all kinds, with a reason and a message."""
    api.create(inline_run(namespace))
    status = {
        "phase": "Failed",
        "conditions": [
            {
                "type": "Succeeded",
                "status": "False",
                "reason": "NotebookError",
                "message": "cell 2 raised ValueError",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
    api.patch("Run", namespace, "first", {"status": status}, subresource="/status")
    listed = kubectl.run("get", "labfunctions", "-n", namespace)
    assert "NotebookError" in listed
    assert "cell 2 raised ValueError" in listed
