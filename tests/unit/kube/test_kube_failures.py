"""Responses are those that a kube-apiserver 1.36 was seen to give."""

import json

import pytest

from labfunctions_operator.errors import Denied, Drifted, InvalidSpec, NotFound, Transient
from labfunctions_operator.kube.failures import (
    AlreadyExists,
    Conflict,
    Gone,
    TooManyRequests,
    failure_of,
)

ILL_TYPED = (
    "failed to create typed patch object (default/j; batch/v1, Kind=Job): "
    '.spec.template.spec.volumes[name="v"].emptyDirr: field not declared in schema'
)
UNKNOWN_FIELD = (
    'Job in version "v1" cannot be handled as a Job: strict decoding error: '
    'unknown field "spec.template.spec.volumes[0].emptyDirr"'
)
WRONG_TYPE = (
    'Job in version "v1" cannot be handled as a Job: json: cannot unmarshal number into Go '
    "struct field Volume.spec.template.spec.volumes.VolumeSource.emptyDir of type "
    "v1.EmptyDirVolumeSource"
)
BAD_QUANTITY = (
    'Job in version "v1" cannot be handled as a Job: quantities must match the regular '
    "expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)


def body(message: str, reason: str = "") -> bytes:
    return json.dumps({"kind": "Status", "message": message, "reason": reason}).encode()


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (401, "Unauthorized", Denied),
        (403, "Forbidden", Denied),
        (404, "NotFound", NotFound),
        (409, "AlreadyExists", AlreadyExists),
        (409, "Conflict", Conflict),
        (410, "Expired", Gone),
        (429, "TooManyRequests", TooManyRequests),
        (500, "InternalError", Transient),
        (504, "Timeout", Transient),
    ],
)
def test_failure_follows_the_code(code: int, reason: str, expected: type[Exception]) -> None:
    failure = failure_of("get runs", code, body("because", reason))
    assert type(failure) is expected
    assert str(failure) == f"get runs: because ({code})"


def test_a_field_of_another_manager_is_told_from_other_conflicts() -> None:
    cause = {"reason": "FieldManagerConflict", "field": ".metadata.annotations.a"}
    status = {
        "message": 'Apply failed with 1 conflict: conflict with "kubectl-annotate" using v1',
        "reason": "Conflict",
        "details": {"causes": [cause]},
    }
    failure = failure_of("apply", 409, json.dumps(status).encode())
    assert type(failure) is Drifted
    assert "kubectl-annotate" in str(failure)


def test_a_refused_eviction_says_which_budget_it_is() -> None:
    cause = {"reason": "DisruptionBudget", "message": "The disruption budget web needs 1"}
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    status = {"message": message, "details": {"causes": [cause]}}
    failure = failure_of("evict", 429, json.dumps(status).encode())
    assert str(failure) == f"evict: {message} The disruption budget web needs 1 (429)"


def test_failure_waits_as_long_as_the_server_asks() -> None:
    failure = failure_of("get", 429, body("slow down"), {"Retry-After": "7"})
    assert isinstance(failure, Transient)
    assert failure.retry_after == 7.0


@pytest.mark.parametrize(
    ("code", "message", "path"),
    [
        (500, ILL_TYPED, 'spec.template.spec.volumes[name="v"].emptyDirr'),
        (400, UNKNOWN_FIELD, "spec.template.spec.volumes[0].emptyDirr"),
        (400, WRONG_TYPE, "spec.template.spec.volumes.VolumeSource.emptyDir"),
        (400, BAD_QUANTITY, "spec"),
    ],
)
def test_failure_of_a_bad_manifest_names_the_field(code: int, message: str, path: str) -> None:
    failure = failure_of("create jobs", code, body(message))
    assert isinstance(failure, InvalidSpec)
    assert (failure.path, failure.message) == (path, message)


def test_failure_prefers_the_field_of_a_cause() -> None:
    status = {
        "message": "Job is invalid",
        "details": {"causes": [{"message": "no"}, {"field": "spec.template"}]},
    }
    failure = failure_of("create jobs", 422, json.dumps(status).encode())
    assert isinstance(failure, InvalidSpec)
    assert failure.path == "spec.template"


@pytest.mark.parametrize("content", [b"<html>bad gateway</html>", b"", b"[1]", b"\xff\xfe"])
def test_failure_survives_what_a_proxy_says(content: bytes) -> None:
    failure = failure_of("list pods", 502, content)
    assert type(failure) is Transient
    assert str(failure).startswith("list pods: ")
