"""CustomResourceDefinitions, generated from the types into the folder named on the command line."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from labfunctions_operator.api import backfill, nodegroup, project, run, workflow
from labfunctions_operator.api.labels import GROUP, VERSION
from labfunctions_operator.api.types import Model

_READY = '.status.conditions[?(@.type=="Ready")]'
_SUCCEEDED = '.status.conditions[?(@.type=="Succeeded")]'
_SCHEDULED = '.status.conditions[?(@.type=="Scheduled")]'
_LAST_RUN = '.status.conditions[?(@.type=="LastRunSucceeded")]'
# Shown by `kubectl get -o wide` only.
_WIDE = 1
Column = tuple[str, str, str] | tuple[str, str, str, int]
_AGE = ("Age", "date", ".metadata.creationTimestamp")

_SCHEDULE_RULES = [
    (
        "!has(self.schedule) || !has(self.interval)",
        "schedule and interval exclude each other",
    ),
    (
        "!has(self.schedule) || !self.schedule.contains('TZ=')",
        "schedule takes no TZ= or CRON_TZ=; name the zone in timeZone",
    ),
    (
        "!has(self.schedule) || self.schedule.contains('TZ=') "
        "|| self.schedule.matches('^ *(@[a-z]+|[^@ ]+( +[^ ]+){4}) *$')",
        "schedule has five fields (minute hour day month weekday) and none for seconds, "
        "or is one of @hourly, @daily, @weekly, @monthly, @yearly",
    ),
    (
        "!has(self.interval) || self.interval == '' || duration(self.interval) >= duration('1m')",
        "interval is at least 1m",
    ),
    (
        "!has(self.startAt) || !has(self.endAt) || self.startAt <= self.endAt",
        "endAt is before startAt",
    ),
    *(
        (
            f"!has(self.scheduler) || self.scheduler != 'CronJob' || {allowed}",
            f"{field}: a CronJob has no such thing; use scheduler Operator",
        )
        for field, allowed in {
            "interval": "!has(self.interval)",
            "startAt": "!has(self.startAt)",
            "endAt": "!has(self.endAt)",
            "repeat": "!has(self.repeat)",
            "jitterSeconds": "!has(self.jitterSeconds) || self.jitterSeconds == 0",
            "catchUp.policy": (
                "!has(self.catchUp) || !has(self.catchUp.policy) || self.catchUp.policy == 'Latest'"
            ),
            "concurrencyPolicy: Queue": (
                "!has(self.concurrencyPolicy) || self.concurrencyPolicy != 'Queue'"
            ),
        }.items()
    ),
]

# Where JSON Schema says more than a structural schema may.
_DROPPED = ("title", "default", "$defs", "discriminator")


def crds() -> dict[str, dict[str, Any]]:
    """Return every CRD by file name."""
    return {
        "projects.yaml": _projects(),
        "workflows.yaml": _workflows(),
        "backfills.yaml": _backfills(),
        "runs.yaml": _runs(),
        "nodegroups.yaml": _nodegroups(),
    }


def _projects() -> dict[str, Any]:
    return _crd(
        kind="Project",
        plural="projects",
        short="lfp",
        model=project.Project,
        name_limit=project.NAME_LIMIT,
        columns=[
            ("Ready", "string", f"{_READY}.status"),
            ("Reason", "string", f"{_READY}.reason"),
            ("Ref", "string", ".status.source.ref"),
            _AGE,
            ("Message", "string", f"{_READY}.message"),
            ("Commit", "string", ".status.source.commit", _WIDE),
        ],
    )


def _workflows() -> dict[str, Any]:
    return _crd(
        kind="Workflow",
        plural="workflows",
        short="lfw",
        model=workflow.Workflow,
        name_limit=workflow.NAME_LIMIT,
        spec_rules=[
            ("has(self.projectRef)", "projectRef is required"),
            ("has(self.notebook)", "notebook is required"),
            *_SCHEDULE_RULES,
        ],
        columns=[
            ("Schedule", "string", ".spec.schedule"),
            ("Ready", "string", f"{_READY}.status"),
            ("Scheduled", "string", f"{_SCHEDULED}.reason"),
            ("Last", "date", ".status.lastScheduleTime"),
            ("Result", "string", ".status.lastRun.phase"),
            # As text: kubectl shows a date that lies ahead as invalid.
            ("Next", "string", ".status.nextScheduleTime"),
            _AGE,
            ("Message", "string", f"{_READY}.message"),
            ("Project", "string", ".spec.projectRef.name", _WIDE),
            ("Notebook", "string", ".spec.notebook", _WIDE),
            ("Interval", "string", ".spec.interval", _WIDE),
            ("Missed", "integer", ".status.missed", _WIDE),
            ("Schedule message", "string", f"{_SCHEDULED}.message", _WIDE),
            ("Last message", "string", f"{_LAST_RUN}.message", _WIDE),
        ],
    )


def _backfills() -> dict[str, Any]:
    return _crd(
        kind="Backfill",
        plural="backfills",
        short="lfb",
        model=backfill.Backfill,
        name_limit=backfill.NAME_LIMIT,
        spec_rules=[
            ("self.from <= self.to", "to is before from"),
            ("self.from >= timestamp('1970-01-01T00:00:00Z')", "from is before 1970"),
            *_immutable("Backfill", backfill.BackfillSpec, but={"suspend", "maxActive"}),
        ],
        columns=[
            ("Workflow", "string", ".spec.workflowRef.name"),
            ("Phase", "string", ".status.phase"),
            ("Done", "string", ".status.progress"),
            ("Failed", "integer", ".status.failed"),
            _AGE,
            ("Message", "string", f"{_SUCCEEDED}.message"),
            ("From", "string", ".spec.from", _WIDE),
            ("To", "string", ".spec.to", _WIDE),
        ],
    )


def _runs() -> dict[str, Any]:
    return _crd(
        kind="Run",
        plural="runs",
        short="lfr",
        model=run.Run,
        name_limit=run.NAME_LIMIT,
        spec_rules=[
            (
                "has(self.from) || has(self.workflowRef) "
                "|| (has(self.projectRef) && has(self.notebook))",
                "give workflowRef, or projectRef and notebook, or from",
            ),
            (
                "!has(self.from) || !(has(self.workflowRef) || has(self.projectRef) "
                "|| has(self.notebook))",
                "from runs exactly what another Run ran: it goes with nothing else",
            ),
            (
                "!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",
                "a cancelled Run stays cancelled",
            ),
            *_immutable("Run", run.RunSpec, but={"cancel", "ttlSecondsAfterFinished"}),
        ],
        columns=[
            ("Workflow", "string", ".spec.workflowRef.name"),
            ("Phase", "string", ".status.phase"),
            ("Progress", "string", ".status.progress.summary"),
            ("Reason", "string", f"{_SUCCEEDED}.reason"),
            ("Seconds", "integer", ".status.durationSeconds"),
            _AGE,
            ("Message", "string", f"{_SUCCEEDED}.message"),
        ],
    )


def _nodegroups() -> dict[str, Any]:
    one = " + ".join(f"(has(self.provider.{name}) ? 1 : 0)" for name in nodegroup.PROVIDERS)
    return _crd(
        kind="NodeGroup",
        plural="nodegroups",
        short="lfng",
        scope="Cluster",
        model=nodegroup.NodeGroup,
        name_limit=nodegroup.NAME_LIMIT,
        spec_rules=[
            (
                f"!has(self.provider) || {one} == 1",
                f"provider: give exactly one of {', '.join(nodegroup.PROVIDERS)}",
            ),
            ("!has(self.min) || self.min <= self.max", "min is greater than max"),
            (
                "!has(self.warm) || self.warm.all(w, w.min <= self.max)",
                "a warm min is greater than max",
            ),
        ],
        columns=[
            ("Provider", "string", ".status.provider"),
            ("Min", "integer", ".status.min"),
            ("Max", "integer", ".status.max"),
            ("Desired", "integer", ".status.desired"),
            ("Ready", "integer", ".status.ready"),
            ("Busy", "integer", ".status.busy"),
            ("Idle", "integer", ".status.idle"),
            ("Pending", "integer", ".status.pendingRuns"),
            _AGE,
            ("Why", "string", f"{_READY}.message"),
        ],
    )


def _immutable(kind: str, model: type[Model], *, but: set[str]) -> list[tuple[str, str]]:
    """Rules that a field neither changes, appears nor goes.

    CEL does not see what the schema leaves open, so a change of a Run's parameters or of passed-on
    Pod fields is not refused; it has no effect, as a Run is started from its snapshot.
    """
    schema = _structural(model.model_json_schema(by_alias=True, mode="validation"))
    rules = []
    for name, field in schema["properties"].items():
        if name in but or "x-kubernetes-preserve-unknown-fields" in str(field):
            continue
        rules.append(
            (
                f"has(self.{name}) == has(oldSelf.{name}) "
                f"&& (!has(self.{name}) || self.{name} == oldSelf.{name})",
                f"a {kind} never changes; create another one to run with another {name}",
            )
        )
    return rules


def _crd(
    *,
    kind: str,
    plural: str,
    short: str,
    model: type[Model],
    name_limit: int,
    columns: list[Column],
    scope: str = "Namespaced",
    spec_rules: list[tuple[str, str]] | None = None,
) -> dict[str, Any]:
    schema = _structural(model.model_json_schema(by_alias=True, mode="validation"))
    schema["properties"]["metadata"] = {"type": "object"}
    schema["properties"]["apiVersion"] = schema["properties"]["kind"] = {"type": "string"}
    schema["required"] = ["spec"]
    schema["x-kubernetes-validations"] = [
        {
            "rule": f"size(self.metadata.name) <= {name_limit}",
            "message": f"a {kind}'s name has at most {name_limit} characters",
        }
    ]
    if spec_rules:
        schema["properties"]["spec"]["x-kubernetes-validations"] = [
            {"rule": rule, "message": message} for rule, message in spec_rules
        ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {"app.kubernetes.io/part-of": "labfunctions"},
        },
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["labfunctions"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {
                            "name": name,
                            "type": type,
                            "jsonPath": path,
                            **({"priority": wide[0]} if wide else {}),
                        }
                        for name, type, path, *wide in columns
                    ],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def _structural(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Turn pydantic's JSON Schema into a structural one: no $ref, no null, nothing left open."""
    definitions = schema.get("$defs", {})

    def convert(node: Mapping[str, Any]) -> dict[str, Any]:
        node = dict(node)
        while "$ref" in node:
            name = node.pop("$ref").rsplit("/", 1)[-1]
            if name == "JsonValue":
                # Without nullable the API server drops a parameter that is null.
                return {"nullable": True, "x-kubernetes-preserve-unknown-fields": True}
            node = {**definitions[name], **node}
        if "anyOf" in node:
            (only,) = [v for v in node.pop("anyOf") if v.get("type") != "null"]
            return convert({**only, **node})
        out = {k: v for k, v in node.items() if k not in _DROPPED}
        out.pop("propertyNames", None)
        additional = out.pop("additionalProperties", None)
        if patterns := out.pop("patternProperties", None):
            (additional,) = patterns.values()  # a CRD cannot check keys; parsing does
        if "properties" in out:
            out["properties"] = {k: convert(v) for k, v in out["properties"].items()}
        elif isinstance(additional, Mapping):
            out["additionalProperties"] = convert(additional)
            out.setdefault("maxProperties", 200)  # the API server bounds the cost of CEL by it
        if isinstance(out.get("items"), Mapping):
            out["items"] = convert(out["items"])
        if "const" in out:
            out["enum"] = [out.pop("const")]
        return out

    return convert(schema)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def main() -> None:
    """Write the CRDs into the folder named on the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, crd in crds().items():
        text = yaml.dump(crd, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
        (folder / name).write_text(
            "# Generated from labfunctions_operator/api by `make generate`; do not edit.\n" + text
        )


if __name__ == "__main__":
    main()
