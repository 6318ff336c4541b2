"""Objects as the API server stores them, for tests of pure code: short to write, whole to read."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.project import Project, Runtime
from labfunctions_operator.api.run import Outputs, Run
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.api.types import Model
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.desired.run_job import Grant
from labfunctions_operator.reconcile.source import Notebook, SourceSnapshot, SourceView
from labfunctions_operator.runner.notebook_run.declared import Declared
from labfunctions_operator.settings import Settings

Object = dict[str, Any]

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
COMMIT = "c0ffee" + "0" * 34
TREE = "7ree" + "0" * 36
GIT = {"url": "https://git.example.com/team/demo.git"}
DIGEST = "sha256:" + "d" * 64


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def stamp(seconds: float = 0) -> str:
    return rfc3339(at(seconds))


def uid_of(*words: object) -> str:
    """A uid that is the same in every run of the tests."""
    return hashlib.sha256(repr(words).encode()).hexdigest()[:32]


def make_settings(mode: str = "shared", **changes: Any) -> Settings:
    return Settings.model_validate(
        {
            "namespace": "labfunctions-system",
            "images": {"courier": "example.com/courier:1", "builder": "example.com/builder:1"},
            "builder": {
                "mode": mode,
                "address": "tcp://buildkitd.labfunctions-system.svc:1234",
                "buildkitdConfig": '[worker.oci]\n  snapshotter = "native"\n',
            },
            "registry": {
                "pushRepository": "registry.labfunctions-system.svc:5000",
                "pullRepository": "localhost:30500",
                "insecure": True,
            },
            "store": {"bucket": "labfunctions"},
            "reports": {"url": "http://operator.labfunctions-system.svc:8080", "keyFile": "/key"},
            **changes,
        }
    )


def make_object(
    kind: str,
    name: str,
    spec: Mapping[str, Any],
    status: Mapping[str, Any] | None = None,
    **meta: Any,
) -> Object:
    return {
        "apiVersion": "labfunctions.io/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": uid_of(kind, name),
            "generation": 1,
            "creationTimestamp": stamp(-10),
            **meta,
        },
        "spec": deepcopy(dict(spec)),
        **({"status": deepcopy(dict(status))} if status is not None else {}),
    }


def make_project(
    name: str = "demo", *, git: Mapping[str, Any] | None = None, status: Any = None, **spec: Any
) -> Project:
    meta = {"generation": spec.pop("generation", 1)}
    spec = {"source": {"git": {**GIT, **(git or {})}}, **spec}
    return parse(Project, make_object("Project", name, spec, _wire(status), **meta))


def make_runtime(**fields: Any) -> Runtime:
    return make_project(runtimes=[{"name": "default", **fields}]).spec.runtimes[0]


def make_node_group(name: str = "gpu", *, status: Any = None, **spec: Any) -> NodeGroup:
    spec = {"labels": {"pool": "gpu"}, "max": 10, **spec}
    obj = make_object("NodeGroup", name, spec, _wire(status))
    del obj["metadata"]["namespace"]
    return parse(NodeGroup, obj)


def make_workflow(name: str = "report", *, status: Any = None, **spec: Any) -> Workflow:
    spec = {"projectRef": {"name": "demo"}, "notebook": "analysis.ipynb", **spec}
    return parse(Workflow, make_object("Workflow", name, spec, _wire(status)))


def make_run(name: str = "first", *, status: Any = None, **spec: Any) -> Run:
    meta = {k: spec.pop(k) for k in ("uid", "creationTimestamp") if k in spec}
    spec = spec or {"workflowRef": {"name": "report"}}
    if "workflowRef" not in spec and "notebook" not in spec:
        spec["workflowRef"] = {"name": "report"}
    return parse(Run, make_object("Run", name, spec, _wire(status), **meta))


def _wire(status: Any) -> Any:
    return status.wire() if isinstance(status, Model) else status


def declared(name: str, type: str = "", default: str = "None", help: str = "") -> Declared:
    return Declared(name, type, default, help)


def make_source(
    *,
    commit: str = COMMIT,
    tree: str = TREE,
    files: Mapping[str, str] | None = None,
    notebooks: Mapping[str, Notebook] | None = None,
) -> SourceSnapshot:
    return SourceSnapshot(
        commit=commit,
        author="Ada",
        message="Add the analysis",
        committed_at=at(-3600),
        tree=tree,
        files={"requirements.txt": "pandas\n"} if files is None else files,
        notebooks={"analysis.ipynb": Notebook(sha256="0" * 64, declared=(declared("day", "str"),))}
        if notebooks is None
        else notebooks,
    )


def view_of(**source: Any) -> SourceView:
    return SourceView(snapshot=make_source(**source))


def make_grant() -> Grant:
    return Grant(
        uploads={
            "notebook.ipynb": "https://store.example.com/n?X-Amz-Signature=1$(HOME)",
            "notebook.html": "https://store.example.com/h?X-Amz-Signature=2",
            "result.json": "https://store.example.com/r?X-Amz-Signature=3",
        },
        report="http://operator.example.com/v1/reports/team/first/u/1?signature=ab",
        renew="http://operator.example.com/v1/uploads/team/first/u/1?signature=cd",
        outputs=Outputs(
            notebook="s3://b/notebook.ipynb",
            html="s3://b/notebook.html",
            result="s3://b/result.json",
        ),
    )


def created(manifest: Mapping[str, Any], seconds: float = 0, **status: Any) -> Object:
    """A manifest as it is stored once it was applied."""
    obj = deepcopy(dict(manifest))
    meta = obj["metadata"]
    meta["uid"] = uid_of(obj["kind"], meta["name"], seconds)
    meta["creationTimestamp"] = stamp(seconds)
    obj["status"] = status
    return obj


def ended(job: Mapping[str, Any], type: str, seconds: float = 60, reason: str = "") -> Object:
    """A Job that has ended with a condition."""
    obj = deepcopy(dict(job))
    obj["status"] = {
        "conditions": [
            {"type": type, "status": "True", "lastTransitionTime": stamp(seconds), "reason": reason}
        ]
    }
    return obj


def running(seconds: float = 2) -> Object:
    return {"running": {"startedAt": stamp(seconds)}}


def held(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def terminated(
    code: int = 0, message: Any = None, *, reason: str = "", start: float = 2, end: float = 50
) -> Object:
    """A container's end; a message that is no text is written as JSON."""
    state: Object = {
        "exitCode": code,
        "reason": reason or ("Completed" if code == 0 else "Error"),
        "startedAt": stamp(start),
        "finishedAt": stamp(end),
    }
    if message is not None:
        state["message"] = message if isinstance(message, str) else json.dumps(message)
    return {"terminated": state}


def runner_says(reason: str = "Succeeded", **fields: Any) -> Object:
    return {"reason": reason, "message": fields.pop("message", f"it is {reason}"), **fields}


def courier_says(*files: str, error: str | None = None) -> Object:
    return {
        "uploads": {name: {"etag": f"tag-{name}", "bytes": 1} for name in files},
        "error": error,
    }


ALL_STORED = courier_says("notebook.ipynb", "notebook.html", "result.json")


def make_pod(
    job: Mapping[str, Any] | None = None,
    *,
    phase: str = "Running",
    notebook: Object | None = None,
    courier: Object | None = None,
    others: Sequence[tuple[str, Object]] = (),
    created: float = 0,
    memory: str | None = None,
    conditions: Sequence[Mapping[str, Any]] = (),
    **status: Any,
) -> Object:
    """A pod of a Job; `others` are states of further init containers and containers."""
    name = job["metadata"]["name"] if job else "first-1"
    states = [("init", "courier", courier), ("main", "notebook", notebook)]
    states += [("init" if n == "source" else "main", n, state) for n, state in others]
    statuses: dict[str, list[Object]] = {"init": [], "main": []}
    for where, container, state in states:
        if state is not None:
            statuses[where].append(
                {"name": container, "image": f"example.com/{container}", "state": state}
            )
    limits = {"resources": {"limits": {"memory": memory}}} if memory else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-abcde",
            "namespace": "team",
            "uid": uid_of("Pod", name, created),
            "creationTimestamp": stamp(created),
            "labels": deepcopy(job["metadata"]["labels"]) if job else {},
            "ownerReferences": [{"kind": "Job", "name": name, "uid": job["metadata"]["uid"]}]
            if job
            else [],
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "notebook", **limits}]},
        "status": {
            "phase": phase,
            "startTime": stamp(created),
            "initContainerStatuses": statuses["init"],
            "containerStatuses": statuses["main"],
            "conditions": [dict(c) for c in conditions],
            **status,
        },
    }
