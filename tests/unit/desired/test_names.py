import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_env import expand

from labfunctions_operator.api import labels, project, run, workflow
from labfunctions_operator.desired.names import (
    attempt_prefix,
    build_job_name,
    builder_secret_name,
    digest,
    env_literal,
    run_job_name,
)

LABEL = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")


@pytest.mark.parametrize(
    "name",
    [
        run_job_name("r" * run.NAME_LIMIT, 99999),
        build_job_name("p" * project.NAME_LIMIT, "r" * 40, "h" * 64),
        builder_secret_name("p" * project.NAME_LIMIT),
    ],
)
def test_the_longest_names_still_make_names_and_labels_of_children(name: str) -> None:
    assert LABEL.fullmatch(name)


def test_the_longest_names_fit_into_labels() -> None:
    longest = max(project.NAME_LIMIT, workflow.NAME_LIMIT, run.NAME_LIMIT)
    assert all(
        len(value) <= 63 for value in labels.common("x" * longest, labels.COMPONENT_BUILD).values()
    )


def test_a_build_is_named_after_what_it_builds() -> None:
    same = build_job_name("demo", "cpu", "hash")
    assert same == build_job_name("demo", "cpu", "hash")
    others = {
        build_job_name("demo", "gpu", "hash"),
        build_job_name("demo", "cpu", "hash2"),
        build_job_name("other", "cpu", "hash"),
    }
    assert len(others | {same}) == 4


def test_a_digest_does_not_depend_on_the_order_of_keys_nor_mix_up_its_parts() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest("ab", "c") != digest("a", "bc")


def test_a_second_run_of_a_name_writes_elsewhere() -> None:
    where = {"namespace": "team", "project": "demo", "run": "first", "attempt": 1}
    assert (
        attempt_prefix(workflow="report", uid="0123456789", **where)
        == "team/demo/report/first-01234567/1"
    )
    assert (
        attempt_prefix(workflow=None, uid="89abcdef01", **where)
        == "team/demo/adhoc/first-89abcdef/1"
    )


@given(st.text(alphabet="$()X Y{}a", max_size=20) | st.text())
def test_an_env_literal_reaches_the_process_as_it_is(value: str) -> None:
    assert expand(env_literal(value), {"X": "expanded"}) == value
