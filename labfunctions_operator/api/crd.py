"""CustomResourceDefinitions, generated from the types into the folder named on the command line."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from labfunctions_operator.api import backfill, nodegroup, project, run, workflow
from labfunctions_operator.api.crd_columns import (
    BACKFILL_COLUMNS,
    NODE_GROUP_COLUMNS,
    PROJECT_COLUMNS,
    RUN_COLUMNS,
    WORKFLOW_COLUMNS,
    Column,
)
from labfunctions_operator.api.crd_rules import (
    BACKFILL_RULES,
    NODE_GROUP_RULES,
    PROJECT_RULES,
    RUN_RULES,
    WORKFLOW_RULES,
    Rule,
)
from labfunctions_operator.api.labels import GROUP, VERSION
from labfunctions_operator.api.structural import structural_schema
from labfunctions_operator.api.types import Model


def crds() -> dict[str, dict[str, Any]]:
    """Return every CRD by file name."""
    return {
        "projects.yaml": _crd(
            "projects",
            "lfp",
            project.Project,
            project.NAME_LIMIT,
            PROJECT_COLUMNS,
            rules=PROJECT_RULES,
        ),
        "workflows.yaml": _crd(
            "workflows",
            "lfw",
            workflow.Workflow,
            workflow.NAME_LIMIT,
            WORKFLOW_COLUMNS,
            rules=WORKFLOW_RULES,
        ),
        "backfills.yaml": _crd(
            "backfills",
            "lfb",
            backfill.Backfill,
            backfill.NAME_LIMIT,
            BACKFILL_COLUMNS,
            rules=BACKFILL_RULES,
        ),
        "runs.yaml": _crd("runs", "lfr", run.Run, run.NAME_LIMIT, RUN_COLUMNS, rules=RUN_RULES),
        "nodegroups.yaml": _crd(
            "nodegroups",
            "lfng",
            nodegroup.NodeGroup,
            nodegroup.NAME_LIMIT,
            NODE_GROUP_COLUMNS,
            rules=NODE_GROUP_RULES,
            scope="Cluster",
        ),
    }


def _crd(
    plural: str,
    short: str,
    model: type[Model],
    name_limit: int,
    columns: Sequence[Column],
    *,
    rules: Sequence[Rule] = (),
    scope: str = "Namespaced",
) -> dict[str, Any]:
    kind = model.__name__
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_printer_column(column) for column in columns],
        "schema": {"openAPIV3Schema": _schema(model, name_limit, rules)},
    }
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
            "versions": [version],
        },
    }


def _schema(model: type[Model], name_limit: int, rules: Sequence[Rule]) -> dict[str, Any]:
    kind = model.__name__
    schema = structural_schema(model)
    schema["properties"]["metadata"] = {"type": "object"}
    schema["properties"]["apiVersion"] = schema["properties"]["kind"] = {"type": "string"}
    schema["required"] = ["spec"]
    name = (
        f"size(self.metadata.name) <= {name_limit}",
        f"a {kind}'s name has at most {name_limit} characters",
    )
    schema["x-kubernetes-validations"] = _validations([name])
    if rules:
        schema["properties"]["spec"]["x-kubernetes-validations"] = _validations(rules)
    return schema


def _validations(rules: Sequence[Rule]) -> list[dict[str, str]]:
    return [{"rule": rule, "message": message} for rule, message in rules]


def _printer_column(column: Column) -> dict[str, Any]:
    printed = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return {**printed, "priority": 1} if column.wide else printed


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
