"""Which changes of a status become an Event."""

from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from objects import make_object

from labfunctions_operator.providers.git_errors import Reason
from labfunctions_operator.reconcile.notebook import NOTEBOOK_REASONS
from labfunctions_operator.reconcile.plan import Event, Plan
from labfunctions_operator.reconcile.story import tell, with_story

Object = dict[str, Any]

IMAGE = "registry/wine@sha256:1"


def status(reason: str, message: str = "why", *, type: str = "Succeeded", seen: int = 1) -> Object:
    condition = {"type": type, "reason": reason, "message": message, "observedGeneration": seen}
    return {"conditions": [condition]}


def told(kind: str, before: Object, after: Object) -> list[tuple[str, str, str]]:
    return [(e.type, e.reason, e.message) for e in tell(kind, before, after)]


@pytest.mark.parametrize(
    ("kind", "type", "reason"),
    [
        ("Run", "Succeeded", "ImagePullFailed"),
        ("Run", "Succeeded", "StartError"),
        ("Run", "Succeeded", "PodRefused"),
        ("Run", "Succeeded", "Forbidden"),
        ("Run", "Succeeded", "ImageBuildFailed"),
        *(("Workflow", "Ready", reason) for reason in sorted(NOTEBOOK_REASONS)),
        *(("Project", "SourceReady", reason) for reason in get_args(Reason)),
        ("Project", "ImagesReady", "ImageBuildFailed"),
        ("Project", "Ready", "InvalidSpec"),
    ],
)
def test_problem_is_told_when_it_comes_up(kind: str, type: str, reason: str) -> None:
    after = status(reason, type=type)
    assert told(kind, {}, after) == [("Warning", reason, "why")]
    assert told(kind, status("Fine", type=type), after) == [("Warning", reason, "why")]
    assert told(kind, after, after) == []
    assert told(kind, after, status("Fine", type=type)) == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("Run", "Running"),
        ("Run", "Succeeded"),
        ("Run", "Starting"),
        ("Run", "ImageBuilding"),
        ("Run", "Queued"),
        ("Run", "Unschedulable"),
        ("Run", "QuotaExceeded"),
        ("Run", "ProjectNotFound"),
        ("Run", "WorkflowNotFound"),
    ],
)
def test_ordinary_steps_are_told_by_the_status_alone(kind: str, reason: str) -> None:
    assert told(kind, {}, status(reason)) == []


def test_new_words_for_the_same_problem_are_no_news_unless_the_spec_was_edited() -> None:
    before = status("ImagePullFailed", "ErrImagePull")
    assert told("Run", before, status("ImagePullFailed", "ImagePullBackOff")) == []
    edited = status("ImagePullFailed", "another image", seen=2)
    assert told("Run", before, edited) == [("Warning", "ImagePullFailed", "another image")]
    assert told("Run", before, status("ImagePullFailed", "ErrImagePull", seen=2)) == []


def project(*versions: str, failed: str | None = None, failures: int = 0) -> Object:
    runtime = {"name": "default", "failures": failures, "message": "no such package"}
    return {
        "versions": [{"runtime": "default", "inputsHash": v, "image": IMAGE} for v in versions],
        "runtimes": [runtime if failed is None else {**runtime, "failedHash": failed}],
    }


def test_each_build_is_told_when_it_ends() -> None:
    built = ("Normal", "ImageBuilt", f"image default is built: {IMAGE}")
    failed = ("Warning", "ImageBuildFailed", "image default: no such package")
    assert told("Project", project(), project("a")) == [built]
    assert told("Project", project("a"), project("a")) == []
    once = project("a", failed="b", failures=1)
    assert told("Project", project("a"), once) == [failed]
    assert told("Project", once, once) == []
    assert told("Project", once, project("a", failed="b", failures=2)) == [failed]
    assert told("Project", once, project("a", failed="c", failures=1)) == [failed]
    assert told("Project", once, project("a", "b")) == [built]


def test_failed_build_is_told_once_though_a_condition_says_it_too() -> None:
    after = project(failed="b", failures=1) | status("ImageBuildFailed", type="ImagesReady")
    assert [reason for _, reason, _ in told("Project", project(), after)] == ["ImageBuildFailed"]


def test_image_that_cannot_even_be_tried_is_told() -> None:
    after = status("ImageBuildFailed", "no Dockerfile", type="ImagesReady")
    assert told("Project", {}, after) == [("Warning", "ImageBuildFailed", "no Dockerfile")]


def test_what_a_plan_tells_itself_is_not_told_again() -> None:
    own = Event(type="Warning", reason="StartError", message="the container cannot start (1)")
    run = make_object("Run", "first", {})
    plan = with_story(Plan(status=status("StartError"), events=(own,)), run)
    assert plan.events == (own,)
    assert with_story(Plan(), run).events == ()


WORD = st.sampled_from(
    ["conditions", "type", "Ready", "reason", "versions", "runtimes", "name", "failures"]
)
JSON = st.recursive(
    st.none() | st.integers() | WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, max_size=4),
    max_leaves=8,
)


@example(before={"runtimes": [{"name": []}], "versions": [{"runtime": {}}]}, kind="Project")
@given(before=st.dictionaries(WORD, JSON), kind=st.sampled_from(["Run", "Workflow", "Project"]))
def test_a_status_that_is_not_ours_does_no_harm(before: Object, kind: str) -> None:
    after = project("a") | status("InvalidSpec", type="Ready")
    assert with_story(Plan(status=after), make_object(kind, "any", {}, before))
