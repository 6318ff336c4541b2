"""Which failures are worth another attempt, when, and with how much memory."""

from typing import Any

import pytest

from labfunctions_operator.api.run import Attempt
from labfunctions_operator.api.workflow import MemoryGrowth, Retries
from labfunctions_operator.reconcile.retry import grown_resources, next_attempt, why_memory_stays
from tests.unit.objects import NOW, at, stamp


def ended(*reasons: str) -> list[Attempt]:
    return [
        Attempt(number=n, job=f"r-{n}", reason=reason, finish_time=stamp())
        for n, reason in enumerate(reasons, 1)
    ]


def retries(**words: Any) -> Retries:
    return Retries.model_validate(words)


@pytest.mark.parametrize(
    ("reasons", "allowed", "why"),
    [
        (["NotebookError"], retries(), None),
        (["NotebookError"], retries(limit=2), "retry 1 of 2"),
        (["NotebookError"] * 2, retries(limit=2), "retry 2 of 2"),
        (["NotebookError"] * 3, retries(limit=2), None),
        (["KernelDied"], retries(limit=1, on=["OutOfMemory"]), None),
        (["KernelDied"], retries(limit=1, on=["KernelDied"]), "retry 1 of 1"),
        (["ParametersInvalid"], retries(limit=9), None),
        (["NotebookNotFound"], retries(limit=9), None),
        (["RunnerMissing"], retries(limit=9), None),
        (["OutOfMemory"], retries(limit=9), None),
        (["OutOfMemory"], retries(limit=9, on=["OutOfMemory"]), "retry 1 of 9"),
        (["OutOfMemory"], retries(limit=9, memory={"max": "4Gi"}), "retry 1 of 9"),
        (["Disrupted"], retries(), "disruption 1 of 5"),
        (["Disrupted"] * 5, retries(), "disruption 5 of 5"),
        (["Disrupted"] * 6, retries(), None),
        (["Disrupted", "NotebookError"], retries(limit=1), "retry 1 of 1"),
        (["NotebookError", "Disrupted"], retries(limit=1), "disruption 1 of 5"),
        (["NotebookError", "Disrupted", "NotebookError"], retries(limit=1), None),
    ],
)
def test_an_attempt_follows_only_where_it_is_worth_it(
    reasons: list[str], allowed: Retries, why: str | None
) -> None:
    resources = {"limits": {"memory": "1Gi"}}
    retry = next_attempt(ended(*reasons), allowed, NOW, resources=resources)
    assert (retry and retry.why) == why
    if retry:
        assert retry.number == len(reasons) + 1


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 10), (2, 20), (3, 40), (5, 160), (6, 300), (60, 300)]
)
def test_each_wait_is_longer_up_to_the_cap(failures: int, seconds: int) -> None:
    retry = next_attempt(ended(*["KernelDied"] * failures), retries(limit=100), NOW, resources=None)
    assert retry is not None
    assert retry.at == at(seconds)


def test_a_disruption_waits_ten_seconds_whatever_the_backoff() -> None:
    allowed = retries(backoff={"duration": "1h"})
    retry = next_attempt(ended("Disrupted"), allowed, NOW, resources=None)
    assert retry is not None
    assert retry.at == at(10)


@pytest.mark.parametrize(
    ("disrupted", "seconds"),
    [
        ("ran", 10),
        ("ran ran ran", 10),
        ("refused refused", 20),
        ("refused " * 5, 160),
        ("refused refused ran", 10),
        ("refused ran refused refused", 20),
    ],
)
def test_who_is_refused_in_a_row_waits_longer_for_a_node(disrupted: str, seconds: int) -> None:
    told = disrupted.split()
    rows = [
        row.but(start_time=stamp() if what == "ran" else None)
        for row, what in zip(ended(*["Disrupted"] * len(told)), told, strict=True)
    ]
    retry = next_attempt(rows, retries(), NOW, resources=None)
    assert retry is not None
    assert retry.at == at(seconds)


@pytest.mark.parametrize(
    ("resources", "reasons", "expected"),
    [
        (None, ["OutOfMemory"], None),
        ({"limits": {"memory": "1Gi"}}, ["OutOfMemory"], {"limits": {"memory": "1536Mi"}}),
        ({"limits": {"memory": "3Gi"}}, ["OutOfMemory"], {"limits": {"memory": "4096Mi"}}),
        (
            {"limits": {"memory": "1Gi", "cpu": "1"}, "requests": {"memory": "512Mi"}},
            ["OutOfMemory"],
            {"limits": {"memory": "1536Mi", "cpu": "1"}, "requests": {"memory": "768Mi"}},
        ),
        ({"limits": {"memory": "8Gi"}}, ["OutOfMemory"], {"limits": {"memory": "8Gi"}}),
        ({"limits": {"memory": "1Gi"}}, ["KernelDied"], {"limits": {"memory": "1Gi"}}),
        ({"limits": {"cpu": "1"}}, ["OutOfMemory"], {"limits": {"cpu": "1"}}),
    ],
)
def test_memory_grows_up_to_its_maximum(
    resources: dict[str, Any] | None, reasons: list[str], expected: dict[str, Any] | None
) -> None:
    growth = MemoryGrowth(factor=1.5, max="4Gi")
    assert grown_resources(resources, growth, ended(*reasons)) == expected


def test_memory_stays_where_growth_was_not_asked_for() -> None:
    same = {"limits": {"memory": "1Gi"}}
    assert grown_resources(same, None, ended("OutOfMemory")) == same


AT_MAX = "4Gi of memory cannot grow any more, as retries.memory.max is 4Gi"
UNLIMITED = "no memory limit is given that could grow"


@pytest.mark.parametrize(
    ("resources", "allowed", "why"),
    [
        ({"limits": {"memory": "3Gi"}}, retries(limit=9, memory={"max": "4Gi"}), None),
        ({"requests": {"memory": "3Gi"}}, retries(limit=9, memory={"max": "4Gi"}), None),
        ({"limits": {"memory": "4Gi"}}, retries(limit=9, memory={"max": "4Gi"}), AT_MAX),
        (
            {"limits": {"memory": "4Gi"}},
            retries(limit=9, memory={"max": "4Gi"}, on=["OutOfMemory"]),
            AT_MAX,
        ),
        ({"limits": {"cpu": "1"}}, retries(limit=9, memory={"max": "4Gi"}), UNLIMITED),
        ({"limits": "none"}, retries(limit=9, memory={"max": "4Gi"}), UNLIMITED),
        (None, retries(limit=9, memory={"max": "4Gi"}), UNLIMITED),
    ],
)
def test_out_of_memory_is_not_tried_again_with_the_same_memory_where_more_was_asked_for(
    resources: dict[str, Any] | None, allowed: Retries, why: str | None
) -> None:
    attempts = ended("OutOfMemory")
    assert why_memory_stays(attempts, allowed, resources) == why
    retry = next_attempt(attempts, allowed, NOW, resources=resources)
    assert (retry is None) == (why is not None)


def test_other_failures_do_not_need_more_memory() -> None:
    allowed = retries(limit=9, memory={"max": "4Gi"})
    attempts = ended("OutOfMemory", "KernelDied")
    assert why_memory_stays(attempts, allowed, None) is None
    assert next_attempt(attempts, allowed, NOW, resources=None) is not None
