"""Each reason that a Run may show is explained to its user, and is somebody's verdict here."""

import re
from pathlib import Path
from typing import get_args

import pytest
from objects import at, runner_says, terminated
from test_verdict import CASES, JOB, finished

from labfunctions_operator import reconcile
from labfunctions_operator.api.workflow import RetryReason
from labfunctions_operator.reconcile.notify import FAILED as NOTIFICATION_FAILED
from labfunctions_operator.reconcile.retry import DISRUPTED, NEVER
from labfunctions_operator.reconcile.story import _PROBLEMS
from labfunctions_operator.reconcile.verdict import SUCCEEDED, judge
from labfunctions_operator.runner.notebook_run.verdict import EXIT_CODES

FAILURES = {*get_args(RetryReason), *NEVER, DISRUPTED}
OF_THE_RUNNER = {reason: code for reason, code in EXIT_CODES.items() if reason != SUCCEEDED}
# Not read off an ended pod: the clock says the first three, the spec the other.
ELSEWHERE = {"PendingTimedOut", "ImagePullFailed", "ImageBuildFailed", "InvalidSpec"}
DOCS = (Path(__file__).parents[3] / "docs" / "runs.md").read_text()


def rows(heading: str) -> set[str]:
    """Return the reasons that the first table below a heading of the documentation explains."""
    section = DOCS.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {reason for cell in cells for reason in re.findall(r"`(\w+)`", cell)}


def waits() -> set[str]:
    """Return the reasons for waiting, as they stand in the code."""
    folder = Path(reconcile.__path__[0])
    files = [folder / f"{name}.py" for name in ("admission", "pods", "run")]
    code = "".join(file.read_text() for file in [*files, *folder.glob("run_*.py")])
    named = {*re.findall(r'reason="(\w+)"', code), *re.findall(r'\("(\w+)", message\)', code)}
    kinds = ("Workflow", "Project", "NodeGroup", "Run")
    return named | {f"{kind}{end}" for kind in kinds for end in ("NotFound", "Invalid")}


def test_every_way_to_fail_is_documented() -> None:
    assert rows("How can it fail?") == FAILURES


def test_every_wait_is_documented() -> None:
    found = waits()
    assert {"ImageBuilding", "Pulling", "Cancelling", "RunInvalid"} <= found
    assert found - FAILURES - rows("Why does it wait?") == set()


@pytest.mark.parametrize("kind", ["Run", "Workflow"])
def test_every_problem_that_is_an_event_is_documented(kind: str) -> None:
    section = DOCS.partition("\n## What `kubectl describe` tells\n")[2].partition("\n## ")[0]
    told = re.findall(rf"^\| [\w, ]*\b{kind}\b[\w, ]* \| \w+ \| (.*?) \|", section, re.MULTILINE)
    reasons = {reason for (of, _), found in _PROBLEMS.items() for reason in found if of == kind}
    assert reasons | {NOTIFICATION_FAILED} <= set(re.findall(r"`(\w+)`", " ".join(told)))


def test_every_way_to_fail_is_a_verdict() -> None:
    judged = {reason for _, reason, _ in CASES.values()}
    assert judged | set(OF_THE_RUNNER) | ELSEWHERE == FAILURES


@pytest.mark.parametrize("reason", OF_THE_RUNNER)
def test_what_the_runner_says_is_the_verdict(reason: str) -> None:
    said = runner_says(reason, message="so it was")
    verdict = judge(JOB, finished(terminated(OF_THE_RUNNER[reason], said)), at(60))
    assert verdict is not None
    assert (verdict.reason, verdict.message) == (reason, "so it was")
