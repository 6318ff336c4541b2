"""Where kinds are served, and which names are refused on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.kube.resources import JOBS, NODES, RUNS, SECRETS, find_resource


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (RUNS.path(), "/apis/labfunctions.io/v1alpha1/runs"),
        (JOBS.path(namespace="a"), "/apis/batch/v1/namespaces/a/jobs"),
        (SECRETS.path(namespace="a", name="b"), "/api/v1/namespaces/a/secrets/b"),
        (NODES.path(namespace="ignored", name="n"), "/api/v1/nodes/n"),
        (
            RUNS.path(namespace="a", name="b", subresource="status"),
            "/apis/labfunctions.io/v1alpha1/namespaces/a/runs/b/status",
        ),
    ],
)
def test_resource_path(path: str, expected: str) -> None:
    assert path == expected


def test_resource_is_found_by_kind() -> None:
    assert find_resource("batch/v1", "Job") is JOBS
    with pytest.raises(KeyError):
        find_resource("v2", "Job")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../kube-system/secrets/root", "a?watch=1", "a%2fb", "a#b", "a b"]
)
def test_resource_refuses_a_name_that_addresses_something_else(name: str) -> None:
    with pytest.raises(InvalidSpec):
        SECRETS.path(namespace="team", name=name)


@given(st.text())
def test_resource_path_of_any_name_stays_inside_the_namespace(name: str) -> None:
    try:
        path = SECRETS.path(namespace="team", name=name)
    except InvalidSpec:
        return
    assert path == f"/api/v1/namespaces/team/secrets/{name}"
    assert path.count("/") == 6
