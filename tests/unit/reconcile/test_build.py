import json
from typing import Any

import pytest
from objects import (
    COMMIT,
    DIGEST,
    TREE,
    created,
    ended,
    make_pod,
    make_project,
    make_settings,
    running,
    stamp,
    terminated,
)

from labfunctions_operator.desired.build_job import BuildInputs, build_build_job
from labfunctions_operator.reconcile.build import read_build

INPUTS = BuildInputs(commit=COMMIT, tree=TREE, dockerfile="FROM x\n", inputs_hash="hash")


def job() -> dict[str, Any]:
    project = make_project()
    manifest = build_build_job(project, project.spec.effective_runtimes[0], INPUTS, make_settings())
    return created(manifest)


JOB = job()


def pod(source: Any = None, build: Any = None) -> dict[str, Any]:
    states = [("source", terminated(0) if source is None else source)]
    if build is not None:
        states.append(("build", build))
    return make_pod(JOB, others=states)


def test_a_build_that_runs_is_not_over() -> None:
    outcome = read_build(JOB, [pod(build=running())])
    assert outcome is not None
    assert not outcome.is_over
    assert (outcome.digest, outcome.error) == (None, None)
    assert (outcome.job, outcome.uid) == (JOB["metadata"]["name"], JOB["metadata"]["uid"])
    assert (outcome.runtime, outcome.inputs_hash) == ("default", "hash")
    assert (outcome.commit, outcome.tree) == (COMMIT, TREE)


def test_a_finished_build_gives_its_digest() -> None:
    outcome = read_build(ended(JOB, "Complete", 60), [pod(build=terminated(0, {"digest": DIGEST}))])
    assert outcome is not None
    assert outcome.is_over
    assert (outcome.digest, outcome.error, outcome.finished) == (DIGEST, None, stamp(60))


LOST = "the build's pod is gone, and its result with it"


@pytest.mark.parametrize(
    ("end", "pods", "error"),
    [
        (
            ended(JOB, "Failed"),
            [pod(build=terminated(1, {"error": "pip: no such package"}))],
            "pip: no such package",
        ),
        (
            ended(JOB, "Failed"),
            [pod(source=terminated(1, {"error": "git: no such commit"}))],
            "git: no such commit",
        ),
        (
            ended(JOB, "Failed"),
            [pod(build=terminated(0, {"digest": DIGEST, "error": "but then"}))],
            "but then",
        ),
        (
            ended(JOB, "Failed", reason="DeadlineExceeded"),
            [],
            "the build took longer than build.timeoutSeconds",
        ),
        (
            ended(JOB, "Failed", reason="DeadlineExceeded"),
            [pod(build=terminated(137))],
            "the build took longer than build.timeoutSeconds",
        ),
        (ended(JOB, "Failed"), [], LOST),
        (ended(JOB, "Complete"), [], LOST),
        (ended(JOB, "Complete"), [make_pod(created(JOB, 5))], LOST),
        (
            ended(JOB, "Failed", reason="BackoffLimitExceeded"),
            [pod(build=terminated(137))],
            "the build ended without a result: BackoffLimitExceeded",
        ),
        (
            ended(JOB, "Complete", reason="CompletionsReached"),
            [pod(build=terminated(0, "[1]"))],
            "the build ended without a result: CompletionsReached",
        ),
        (
            ended(JOB, "Failed", reason="BackoffLimitExceeded"),
            [pod(build=terminated(1, "[" * 4000))],
            "the build ended without a result: BackoffLimitExceeded",
        ),
    ],
)
def test_a_build_without_an_image_says_what_is_wrong(
    end: dict[str, Any], pods: list[dict[str, Any]], error: str
) -> None:
    outcome = read_build(end, pods)
    assert outcome is not None
    assert outcome.is_over
    assert (outcome.digest, outcome.error) == (None, error)


@pytest.mark.parametrize(
    "annotation", [None, "", "{}", "[]", "no json", json.dumps({"runtime": 1}), "[" * 4000]
)
def test_a_job_that_is_no_build_of_ours_is_none(annotation: str | None) -> None:
    meta = {**JOB["metadata"], "annotations": {"labfunctions.io/build": annotation}}
    if annotation is None:
        del meta["annotations"]
    assert read_build({**JOB, "metadata": meta}, []) is None
