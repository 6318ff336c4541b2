"""When a schedule was edited, as the API server has it."""

from typing import Any

import pytest
from objects import NOW, stamp

from labfunctions_operator.reconcile.edit import time_of_edit

Object = dict[str, Any]
SPEC = {"f:spec": {".": {}, "f:schedule": {}, "f:notebook": {}}}


def entry(seconds: float, fields: Object = SPEC, **more: Any) -> Object:
    return {"manager": "m", "time": stamp(seconds), "fieldsV1": fields, **more}


def status(seconds: float) -> Object:
    return entry(seconds, {"f:status": {}}, subresource="status")


@pytest.mark.parametrize(
    ("managers", "seconds"),
    [
        ([entry(0), status(-9)], 0),
        ([status(-9), entry(-60), entry(0, {"f:spec": {"f:suspend": {}}})], 0),
        ([entry(0), entry(60, {"f:spec": {"f:parameters": {}}}), status(-9)], 0),
        ([entry(0), entry(60, {"f:metadata": {"f:labels": {}}})], 0),
        ([entry(0), status(0)], None),
        ([entry(0), status(9)], None),
        ([status(9)], None),
        ([entry(0, {}), {"manager": "m"}, {"time": "some day", "fieldsV1": None}], None),
        ([], None),
    ],
    ids=[
        "whoever wrote the schedule",
        "the last of several",
        "not one of another field",
        "not one of a label",
        "not one that the status may have seen",
        "not one that the status has seen: a field was taken away later",
        "only the status was written",
        "entries that say nothing",
        "none are kept",
    ],
)
def test_time_of_edit(managers: list[Object], seconds: float | None) -> None:
    found = time_of_edit(managers)
    assert (found and (found - NOW).total_seconds()) == seconds
