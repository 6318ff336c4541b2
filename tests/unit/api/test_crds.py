import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from crd_schema import errors, schema_of, status_errors
from objects import GIT, make_object, stamp

from labfunctions_operator.api import crd
from labfunctions_operator.api.backfill import Backfill
from labfunctions_operator.api.cron import ALIASES, SCHEDULE
from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.types import Model
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.cron_fields import normal_fields

CRDS = Path(__file__).parents[3] / "crds"
KINDS = ["Project", "Workflow", "Backfill", "Run", "NodeGroup"]
# What CEL cannot compare, as the schema leaves it open; a Run is started from its snapshot anyway.
OPEN_FIELDS = {
    "parameters",
    "env",
    "envFrom",
    "resources",
    "tolerations",
    "affinity",
    "volumes",
    "volumeMounts",
    "notifications",
}


def nodes(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema inside a schema, with its path."""
    yield path, schema
    for name, node in schema.get("properties", {}).items():
        yield from nodes(node, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in schema:
            yield from nodes(schema[word], f"{path}.{word}")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_files_are_what_the_types_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["crd", str(tmp_path)])
    crd.main()
    generated = {p.name: p.read_text() for p in tmp_path.iterdir()}
    committed = {p.name: p.read_text() for p in CRDS.iterdir()}
    assert committed == generated, "crds/ is stale: run `make generate`"


def test_the_files_are_yaml_without_aliases() -> None:
    expected = crd.crds()
    for path in CRDS.iterdir():
        text = path.read_text()
        assert yaml.safe_load(text) == expected[path.name]
        assert "&id" not in text


def test_the_schema_is_structural(kind: str) -> None:
    allowed = {
        "additionalProperties",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "nullable",
        "pattern",
        "properties",
        "required",
        "type",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    }
    for path, node in nodes(schema_of(kind)):
        assert set(node) <= allowed, path
        open_ended = node.get("x-kubernetes-preserve-unknown-fields")
        assert open_ended or node.get("type") in {
            "object",
            "array",
            "string",
            "integer",
            "number",
            "boolean",
        }, f"{path} has no type"
        assert not ("properties" in node and "additionalProperties" in node), path
        assert node.get("type") != "array" or "items" in node, path
        assert set(node.get("required", [])) <= set(node.get("properties", {})), path


def test_nothing_is_left_open_but_what_is_passed_on(kind: str) -> None:
    opened = {
        path
        for path, node in nodes(schema_of(kind))
        if node.get("x-kubernetes-preserve-unknown-fields")
    }
    events = ("onSuccess", "onFailure", "onMissed", "onRecovered")
    passed_on = (*OPEN_FIELDS, *events, "build.resources", "parametersSchema", "results")
    assert not {
        p
        for p in opened
        if not p.removesuffix(".items").endswith(tuple(f".{field}" for field in passed_on))
    }


def test_every_list_and_map_of_a_spec_is_bounded(kind: str) -> None:
    for path, node in nodes(schema_of(kind)["properties"]["spec"]):
        if node["type"] == "array" if "type" in node else False:
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


@pytest.mark.parametrize(
    ("kind_", "limit"),
    [("Project", 40), ("Workflow", 42), ("Backfill", 42), ("Run", 52), ("NodeGroup", 40)],
)
def test_names_are_bounded_so_that_those_of_children_fit(kind_: str, limit: int) -> None:
    assert schema_of(kind_)["x-kubernetes-validations"] == [
        {
            "rule": f"size(self.metadata.name) <= {limit}",
            "message": f"a {kind_}'s name has at most {limit} characters",
        }
    ]


def run_rules() -> dict[str, str]:
    rules = schema_of("Run")["properties"]["spec"]["x-kubernetes-validations"]
    return {rule["rule"]: rule["message"] for rule in rules}


def test_a_run_is_immutable_but_for_cancel_and_ttl() -> None:
    fields = set(schema_of("Run")["properties"]["spec"]["properties"])
    assert fields >= OPEN_FIELDS
    closed = fields - OPEN_FIELDS - {"cancel", "ttlSecondsAfterFinished"}
    immutable = {
        f"has(self.{name}) == has(oldSelf.{name}) "
        f"&& (!has(self.{name}) || self.{name} == oldSelf.{name})": name
        for name in closed
    }
    messages = run_rules()
    for rule, name in immutable.items():
        assert name in messages[rule], "the message names the field"
    changes = {m for m in messages.values() if m.startswith("a Run never changes")}
    assert not {m for m in changes if m.endswith((" cancel", " ttlSecondsAfterFinished"))}


def test_from_goes_with_nothing_that_would_have_no_effect() -> None:
    [rule] = [rule for rule, message in run_rules().items() if message.startswith("from runs")]
    fields = set(schema_of("Run")["properties"]["spec"]["properties"])
    refused = fields - {"from", "cancel", "notifications", "ttlSecondsAfterFinished"}
    assert set(re.findall(r"has\(self\.(\w+)\)", rule)) == {"from"} | refused
    assert {"parameters", "env", "timeoutSeconds", "workflowRef"} <= refused


def test_a_backfill_is_immutable_but_for_suspend_and_max_active() -> None:
    rules = schema_of("Backfill")["properties"]["spec"]["x-kubernetes-validations"]
    fields = {r["message"].rpartition(" ")[2] for r in rules if "oldSelf" in r["rule"]}
    assert fields == {"workflowRef", "from", "to", "reprocess", "dryRun"}
    assert rules[0] == {"rule": "self.from <= self.to", "message": "to is before from"}


def test_a_cancelled_run_stays_cancelled() -> None:
    rule = "!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)"
    assert run_rules()[rule] == "a cancelled Run stays cancelled"


def test_a_run_has_something_to_run() -> None:
    inline = "(has(self.projectRef) && has(self.notebook))"
    rule = f"has(self.from) || has(self.workflowRef) || {inline}"
    assert run_rules()[rule] == "give workflowRef, or projectRef and notebook, or from"


def test_a_workflow_says_its_project_and_notebook() -> None:
    rules = schema_of("Workflow")["properties"]["spec"]["x-kubernetes-validations"]
    assert [r["rule"] for r in rules][:2] == ["has(self.projectRef)", "has(self.notebook)"]


@pytest.mark.parametrize("kind", ["Workflow", "NodeGroup"])
@pytest.mark.parametrize("word", [*ALIASES, "61 * * * *", "*;", "L", "@houry", "TZ=UTC"])
def test_the_rule_of_a_schedule_is_the_operators(word: str, kind: str) -> None:
    rules = schema_of(kind)["properties"]["spec"]["x-kubernetes-validations"]
    [rule] = [r["rule"] for r in rules if "schedule.matches(" in r["rule"]]
    [pattern] = re.findall(r"matches\('([^']*)'\)", rule)
    assert pattern == SCHEDULE
    for text in (word, f"\t{word} ", f"{word} * * * *", f"0\t0 {word} * *", f"* * * *\n{word}"):
        try:
            normal_fields(text)
        except InvalidSpec:
            assert not re.search(pattern, text)
        else:
            assert re.search(pattern, text)


def test_a_node_group_has_one_provider_and_bounds_in_order() -> None:
    rules = schema_of("NodeGroup")["properties"]["spec"]["x-kubernetes-validations"]
    assert [r["message"] for r in rules] == [
        "provider: give exactly one of "
        "capacity, awsAutoScalingGroup, eksNodegroup, clusterApi, static",
        "min is greater than max",
        "a warm min is greater than max",
        "warm: schedule takes no TZ= or CRON_TZ=; name the zone in timeZone",
        "warm: schedule has five fields (minute 0-59, hour 0-23, day 1-31, month 1-12 or jan-dec, "
        "weekday 0-7 or sun-sat) and none for seconds, or is one of @hourly, @daily, @weekly, "
        "@monthly, @yearly",
    ]


def test_only_a_schedule_can_miss_a_tick() -> None:
    def lists(kind: str, *path: str) -> set[str]:
        schema = schema_of(kind)["properties"]["spec"]
        for name in (*path, "notifications"):
            schema = schema["properties"][name]
        return {name for name in schema["properties"] if name.startswith("on")}

    ends = {"onSuccess", "onFailure", "onRecovered"}
    assert lists("Run") == ends
    assert lists("Workflow") == lists("Project", "defaults") == ends | {"onMissed"}


def test_printer_columns_show_fields_that_exist() -> None:
    for definition in crd.crds().values():
        version = definition["spec"]["versions"][0]
        assert version["subresources"] == {"status": {}}
        paths = {path for path, _ in nodes(version["schema"]["openAPIV3Schema"])}
        for column in version["additionalPrinterColumns"]:
            path = column["jsonPath"]
            if "[?" in path:
                path = path.split("[?")[0] + ".items" + path.rsplit("]", 1)[-1].removeprefix(")")
            assert path.startswith(".metadata.") or path in paths, column


CONDITION = {
    "type": "Ready",
    "status": "True",
    "reason": "Ready",
    "message": "",
    "lastTransitionTime": stamp(),
    "observedGeneration": 1,
}
NOTIFICATIONS: dict[str, Any] = {
    "onSuccess": [{"email": {"smtpSecretRef": {"name": "mail"}, "to": ["ada@example.com"]}}],
    "onFailure": [{"name": "slack"}],
    "onMissed": [{"discord": {"webhookSecretRef": {"name": "discord"}}}],
    "onRecovered": [{"slack": {"secretRef": {"name": "bot"}, "channel": "alerts"}}],
    "groupSeconds": 60,
}
TARGETS: list[dict[str, Any]] = [
    {"name": "slack", "slack": {"webhookSecretRef": {"name": "slack"}}},
    {
        "webhook": {
            "url": "https://example.com/hook",
            "headersSecretRef": {"name": "headers"},
            "format": "CloudEvents",
        }
    },
    *NOTIFICATIONS["onSuccess"],
    *NOTIFICATIONS["onMissed"],
    *NOTIFICATIONS["onRecovered"],
]
EXECUTION: dict[str, Any] = {
    "projectRef": {"name": "demo"},
    "parametersPolicy": "Strict",
    "env": [{"name": "ZONE", "value": "eu"}],
    "envFrom": [{"secretRef": {"name": "api"}}],
    "resources": {"limits": {"memory": "1Gi"}},
    "gpu": {"count": 1, "resourceName": "nvidia.com/gpu"},
    "nodeGroup": "gpu",
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "volumes": [{"name": "data", "emptyDir": {}}],
    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    "serviceAccountName": "analyst",
    "priorityClassName": "batch",
    "imagePullSecrets": [{"name": "login"}],
    "queueName": "team",
    "safeToEvict": True,
    "ttlSecondsAfterFinished": 9,
    "notifications": {name: v for name, v in NOTIFICATIONS.items() if name != "onMissed"},
    "retries": {
        "limit": 1,
        "backoff": {"duration": "10s", "factor": 2.0, "cap": "5m"},
        "on": ["OutOfMemory"],
        "memory": {"factor": 1.5, "max": "4Gi"},
    },
}
FULL: dict[str, tuple[type[Model], dict[str, Any], dict[str, Any]]] = {
    "Project": (
        Project,
        {"source": {"git": GIT}},
        {
            "observedGeneration": 1,
            "source": {
                "ref": "main",
                "commit": "c",
                "author": "Ada",
                "message": "m",
                "resolvedAt": stamp(),
            },
            "runtimes": [
                {
                    "name": "default",
                    "phase": "Ready",
                    "message": "",
                    "image": "i",
                    "inputsHash": "h",
                    "commit": "c",
                    "tree": "t",
                    "builtAt": stamp(),
                    "failures": 1,
                    "failedHash": "f",
                    "failedSince": stamp(),
                }
            ],
            "versions": [
                {
                    "runtime": "default",
                    "image": "i",
                    "inputsHash": "h",
                    "commit": "c",
                    "tree": "t",
                    "builtAt": stamp(),
                }
            ],
            "conditions": [CONDITION],
        },
    ),
    "Workflow": (
        Workflow,
        {"projectRef": {"name": "demo"}, "notebook": "a.ipynb"},
        {
            "observedGeneration": 1,
            "parametersSchema": {"day": {"type": "string", "default": "None"}},
            "schedule": {"hash": "0a", "since": stamp(), "runs": 1},
            "lastScheduleTime": stamp(),
            "nextScheduleTime": stamp(60),
            "lastSuccessfulTime": stamp(),
            "lastFailedTime": stamp(),
            "active": [{"name": "demo-29454480"}],
            "succeeded": 1,
            "failed": 2,
            "missed": 3,
            "lastRun": {"name": "demo-29454479", "phase": "Failed"},
            "notifications": [
                {
                    "event": "Missed",
                    "target": target,
                    "state": "Failed",
                    "message": "refused",
                    "time": stamp(),
                    "due": stamp(),
                    "count": 2,
                    "reason": "MissedSchedule",
                    "cause": "the scheduler was away or late",
                    "notBefore": stamp(60),
                }
                for target in TARGETS
            ],
            "conditions": [CONDITION],
        },
    ),
    "Backfill": (
        Backfill,
        {"workflowRef": {"name": "report"}, "from": stamp(-60), "to": stamp()},
        {
            "observedGeneration": 1,
            "phase": "Failed",
            "total": 5,
            "skipped": 1,
            "created": 3,
            "succeeded": 1,
            "failed": 1,
            "progress": "3/5",
            "active": [{"name": "again-29454480"}],
            "failedRuns": [{"name": "again-29454479"}],
            "cursor": stamp(),
            "plan": {"run": 1, "skip": 1, "first": [stamp()], "last": [stamp()]},
            "startTime": stamp(),
            "completionTime": stamp(),
            "conditions": [CONDITION],
        },
    ),
    "Run": (
        Run,
        {"workflowRef": {"name": "report"}},
        {
            "observedGeneration": 1,
            "phase": "Failed",
            "snapshot": {
                "project": "demo",
                "workflow": "report",
                "scheduledAt": stamp(),
                "notebook": "a.ipynb",
                "commit": "c",
                "image": "i",
                "runtime": "default",
                "inputsHash": "h",
                "requirementsHash": "r",
                "notebookSha256": "n",
                "parameters": {"day": None, "n": [1, {"x": 1.5}]},
                "timeoutSeconds": 10,
                "cellTimeoutSeconds": 1,
                "pendingTimeoutSeconds": 5,
                "user": {"uid": 1, "gid": 2},
                **EXECUTION,
                "notify": {
                    "onSuccess": TARGETS,
                    "onFailure": [],
                    "onRecovered": [],
                    "groupSeconds": 60,
                    "template": {"title": "t", "text": "x"},
                },
            },
            "attempts": [
                {
                    "number": 1,
                    "job": "j",
                    "pod": "p",
                    "node": "n",
                    "memory": "1Gi",
                    "image": "i@sha256:0a",
                    "notebook": "s3://n",
                    "startTime": stamp(),
                    "finishTime": stamp(),
                    "reason": "NotebookError",
                }
            ],
            "progress": {"cell": 1, "cells": 2, "name": "x", "summary": "1/2", "time": stamp()},
            "failure": {
                "reason": "NotebookError",
                "cell": {"index": 0, "id": "a", "source": "1/0"},
                "exception": {"name": "ZeroDivisionError", "message": "m"},
                "exitCode": 1,
            },
            "results": {"rows": 3, "best": None, "names": ["a"]},
            "versions": {"python": "3.11.7", "papermill": "2.6"},
            "outputs": {
                "notebook": "s3://n",
                "html": "s3://h",
                "result": "s3://r",
                "record": "s3://run.json",
                "etags": {"notebook": "e"},
            },
            "startTime": stamp(),
            "completionTime": stamp(),
            "queuedSeconds": 1,
            "durationSeconds": 2,
            "notifications": [
                {
                    "event": "Failed",
                    "notBefore": stamp(60),
                    "target": {"name": "slack"},
                    "state": "Failed",
                    "message": "no such target",
                    "time": stamp(),
                }
            ],
            "conditions": [CONDITION],
        },
    ),
    "NodeGroup": (
        NodeGroup,
        {"labels": {"pool": "gpu"}, "max": 3},
        {
            "observedGeneration": 1,
            "provider": "capacity",
            "min": 0,
            "max": 3,
            "desired": 2,
            "ready": 2,
            "busy": 1,
            "idle": 1,
            "pendingRuns": 0,
            "lastDecision": {"at": stamp(), "from": 1, "to": 2, "why": "1 busy, 1 waiting"},
            "recentDecisions": [stamp()],
            "wanted": {"min": 2, "max": 3, "until": stamp(60), "pool": "b", "generation": 2},
            "placeholderFailures": {"count": 1, "at": stamp(), "why": "Evicted"},
            "written": {"min": 0, "max": 3, "until": stamp(60)},
            "nodeResources": {"cpu": "4"},
            "conditions": [CONDITION],
        },
    ),
}


def test_the_schema_covers_every_field_of_the_status_types(kind: str) -> None:
    model, spec, status = FULL[kind]
    obj = model.model_validate(make_object(kind, "demo", spec, status))
    wire = obj.wire()["status"]
    assert wire == status, "the sample above names every field of the types"
    assert status_errors(kind, wire) == []
    assert _leaves(schema_of(kind)["properties"]["status"]) <= _names(status)


def _leaves(schema: Mapping[str, Any]) -> set[str]:
    return {path.rsplit(".", 1)[-1] for path, _ in nodes(schema)} - {
        "",
        "items",
        "additionalProperties",
    }


def _names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(_names, value.values()))
    return set().union(*map(_names, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ({"phase": "Lost"}, "breaks enum"),
        ({"novelty": 1}, "would be pruned"),
        ({"progress": {"cell": 1}}, "status.progress.cells: is missing"),
        ({"queuedSeconds": 1.5}, "is no integer"),
        ({"conditions": [{**CONDITION, "status": "Maybe"}]}, "breaks pattern"),
        ({"outputs": None}, "is no object"),
    ],
)
def test_the_checker_of_schemas_itself_finds_what_is_wrong(status: Any, problem: str) -> None:
    assert problem in "".join(status_errors("Run", status))


def test_the_schema_takes_the_examples_of_every_spec(kind: str) -> None:
    schema = schema_of(kind)["properties"]["spec"]
    assert list(errors(schema, FULL[kind][1], "spec")) == []
