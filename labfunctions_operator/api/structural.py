"""Structural schemas: what an API server takes of a type's JSON Schema."""

from collections.abc import Mapping
from typing import Any

from labfunctions_operator.api.types import Model

# Where JSON Schema says more than a structural schema may.
_DROPPED = ("title", "default", "$defs", "discriminator")
_OPEN = {"x-kubernetes-preserve-unknown-fields": True}


def structural_schema(model: type[Model]) -> dict[str, Any]:
    """Return the structural schema of a type: no $ref, no null, nothing left open."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}))


def _convert(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    node = dict(node)
    while "$ref" in node:
        name = node.pop("$ref").rsplit("/", 1)[-1]
        if name == "JsonValue":
            return dict(_OPEN)
        node = {**definitions[name], **node}
    if "anyOf" in node:
        (only,) = [v for v in node.pop("anyOf") if v.get("type") != "null"]
        return _convert({**only, **node}, definitions)
    out = {k: v for k, v in node.items() if k not in _DROPPED}
    out.pop("propertyNames", None)
    additional = out.pop("additionalProperties", None)
    if patterns := out.pop("patternProperties", None):
        (additional,) = patterns.values()  # a CRD cannot check keys; parsing does
    if "properties" in out:
        out["properties"] = {k: _convert(v, definitions) for k, v in out["properties"].items()}
    elif isinstance(additional, Mapping):
        values = _convert(additional, definitions)
        # A map of values without a type is a field that CEL does not see, not even whether it is
        # there; and the API server would drop values that are null.
        out |= _OPEN if values == _OPEN else {"additionalProperties": values}
        out.setdefault("maxProperties", 200)  # the API server bounds the cost of CEL by it
    if isinstance(out.get("items"), Mapping):
        out["items"] = _convert(out["items"], definitions)
    if "const" in out:
        out["enum"] = [out.pop("const")]
    return out
