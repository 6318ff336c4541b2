"""Checks values against the schema of a CustomResourceDefinition, and what it would prune."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any

from labfunctions_operator.api.crd import crds

Schema = Mapping[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_BOUNDS = (
    ("minimum", lambda value, bound: value >= bound),
    ("maximum", lambda value, bound: value <= bound),
    ("minLength", lambda value, bound: len(value) >= bound),
    ("maxLength", lambda value, bound: len(value) <= bound),
    ("maxItems", lambda value, bound: len(value) <= bound),
    ("maxProperties", lambda value, bound: len(value) <= bound),
    ("enum", lambda value, bound: value in bound),
    ("pattern", lambda value, bound: re.search(bound, value) is not None),
)


_CRDS = crds()


@cache
def schema_of(kind: str) -> Schema:
    """The whole schema of one of our kinds."""
    [crd] = [c for c in _CRDS.values() if c["spec"]["names"]["kind"] == kind]
    schema: Schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


_KINDS = ("Project", "Workflow", "Backfill", "Run", "NodeGroup")
_STATUS = {kind: schema_of(kind)["properties"]["status"] for kind in _KINDS}


def status_errors(kind: str, status: Any) -> list[str]:
    """What the API server would refuse, or silently drop, of a status; an empty list is good."""
    return list(errors(_STATUS[kind], status, "status"))


def errors(schema: Schema, value: Any, path: str) -> Iterator[str]:
    """Every place where a value does not fit its schema."""
    wanted = schema.get("type")
    if wanted and not _has_type(value, wanted):
        yield f"{path}: {value!r} is no {wanted}"
        return
    for word, holds in _BOUNDS:
        if word in schema and not holds(value, schema[word]):
            yield f"{path}: {value!r} breaks {word} {schema[word]!r}"
    if schema.get("format") == "date-time":
        datetime.fromisoformat(value)
    if isinstance(value, dict):
        yield from _object_errors(schema, value, path)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from errors(schema["items"], item, f"{path}[{index}]")


def _object_errors(schema: Schema, value: Mapping[str, Any], path: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            yield f"{path}.{name}: is missing"
    for name, item in value.items():
        if name in properties:
            yield from errors(properties[name], item, f"{path}.{name}")
        elif "additionalProperties" in schema:
            yield from errors(schema["additionalProperties"], item, f"{path}.{name}")
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{path}.{name}: is unknown, so it would be pruned"


def _has_type(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    return isinstance(value, _TYPES[wanted])
