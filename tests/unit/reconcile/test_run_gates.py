import json
from typing import Any

import pytest
from objects import (
    COMMIT,
    make_project,
    make_source,
    make_workflow,
    stamp,
)
from run_world import JOB, RunWorld, ready_project

from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.source import Notebook

NO_NOTEBOOK = Notebook(sha256="0" * 64, error="is not a notebook: no JSON")
GATES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, str], str]] = {
    "the workflow is missing": (
        {},
        {"workflow": None, "project": None},
        ("WorkflowNotFound", "Workflow report does not exist in this namespace"),
        "Pending",
    ),
    "the workflow cannot be read": (
        {},
        {"workflow": InvalidSpec("spec.gpu.count", "is wrong")},
        ("WorkflowInvalid", "Workflow report: spec.gpu.count: is wrong"),
        "Pending",
    ),
    "the workflow names no notebook": (
        {},
        {"workflow": make_workflow(notebook=None), "project": None},
        ("InvalidSpec", "neither Run nor Workflow names a project and a notebook"),
        "Pending",
    ),
    "the project is missing": (
        {"runtime": "missing"},
        {"project": None},
        ("ProjectNotFound", "Project demo does not exist in this namespace"),
        "Pending",
    ),
    "the project cannot be read": (
        {},
        {"project": InvalidSpec("spec.source", "Field required")},
        ("ProjectInvalid", "Project demo: spec.source: Field required"),
        "Pending",
    ),
    "the runtime is missing": (
        {"runtime": "gpu", "parameters": {"unknown": 1}},
        {},
        ("RuntimeNotFound", "Project demo has no runtime gpu"),
        "Pending",
    ),
    "the project has no image yet": (
        {"parameters": {"unknown": 1}},
        {"project": make_project()},
        ("ImagePending", "Project demo has no image default yet; see its status"),
        "Pending",
    ),
    "the image is being built": (
        {},
        {"project": ready_project(runtime={"phase": "Building", "message": "building c0ffee"})},
        ("ImageBuilding", "image default of Project demo: building c0ffee"),
        "Building",
    ),
    "the image cannot be built": (
        {},
        {
            "project": ready_project(
                runtime={"phase": "Failed", "image": None, "message": "no such package"}
            )
        },
        ("ImageBuildFailed", "image default of Project demo cannot be built: no such package"),
        "Pending",
    ),
    "the node group is missing": (
        {"nodeGroup": "gpu"},
        {},
        ("NodeGroupNotFound", "NodeGroup gpu does not exist in this cluster"),
        "Pending",
    ),
    "the node group cannot be read": (
        {"nodeGroup": "gpu"},
        {"node_group": InvalidSpec("spec.max", "Field required")},
        ("NodeGroupInvalid", "NodeGroup gpu: spec.max: Field required"),
        "Pending",
    ),
    "a notebook is missing for good": (
        {"notebook": "analisys.ipynb", "parameters": {"unknown": 1}},
        {},
        (
            "NotebookNotFound",
            f"analisys.ipynb is not in the source at {COMMIT[:12]}; did you mean analysis.ipynb?",
        ),
        "Failed",
    ),
    "a notebook is broken for good": (
        {"parameters": {"unknown": 1}},
        {"source": make_source(notebooks={"analysis.ipynb": NO_NOTEBOOK})},
        ("NotebookInvalid", "analysis.ipynb: is not a notebook: no JSON"),
        "Failed",
    ),
    "parameters are wrong for good": (
        {"parameters": {"day": 3}},
        {},
        ("ParametersInvalid", "parameters.day: expected str, got int 3"),
        "Failed",
    ),
}


GATES["parameters are too long for good"] = (
    {"parameters": {"day": "日" * 20_000}},
    {"source": None},
    ("ParametersInvalid", "spec.parameters: 120011 bytes, at most 102400"),
    "Failed",
)


def at_gate(case: str) -> RunWorld:
    spec, around, _, _ = GATES[case]
    world = RunWorld(workflowRef={"name": "report"}, **spec)
    for name, value in around.items():
        setattr(world, name, value)
    return world


@pytest.mark.parametrize("case", GATES)
def test_gates_close_in_order_and_say_which(case: str) -> None:
    _, _, why, phase = GATES[case]
    world = at_gate(case)
    assert world.settle() == ["status"]
    assert world.condition == ("False" if phase == "Failed" else "Unknown", *why)
    assert world.status["phase"] == phase
    assert world.jobs == {}
    world.seconds += 60
    assert world.settle() == []


@pytest.mark.parametrize("case", [c for c in GATES if GATES[c][3] != "Failed"])
def test_a_gate_that_opens_lets_the_run_through(case: str) -> None:
    world = at_gate(case)
    world.settle()
    world.workflow, world.project = make_workflow(), ready_project()
    world.obj["spec"] = {"workflowRef": {"name": "report"}}
    assert world.settle() == [f"create Job {JOB}"]


@pytest.mark.parametrize("case", [c for c in GATES if GATES[c][3] == "Failed"])
def test_a_gate_that_never_opens_ends_the_run(case: str) -> None:
    world = at_gate(case)
    world.settle()
    assert world.status["failure"] == {"reason": GATES[case][2][0]}
    assert world.status["completionTime"] == stamp(0)
    assert [e.reason for e in world.events] == [GATES[case][2][0]]


def unbuilt(**runtime: Any) -> Any:
    failed = {"phase": "Failed", "image": None, "message": "no such package"}
    return ready_project(runtime={**failed, **runtime})


@pytest.mark.parametrize(
    ("failed", "ends"), [(-3600, -10 + 300), (30, 30 + 300), (None, -10 + 300)]
)
def test_an_image_that_cannot_be_built_is_waited_for_as_long_as_a_start_that_fails(
    failed: float | None, ends: float
) -> None:
    """Whether it failed before the Run was made, ten seconds ago, or after."""
    world = RunWorld(workflowRef={"name": "report"}, retries={"limit": 3, "on": []})
    world.project = unbuilt(failedSince=stamp(failed) if failed is not None else None)
    world.seconds = ends - 1
    world.settle()
    message = "image default of Project demo cannot be built: no such package"
    assert world.condition == ("Unknown", "ImageBuildFailed", message)
    assert world.decide().requeue_after == 1
    world.seconds = ends
    assert world.settle() == ["status"]
    assert world.condition == ("False", "ImageBuildFailed", message)
    assert world.status["failure"] == {"reason": "ImageBuildFailed"}
    assert world.run.is_finished


def test_a_commit_that_builds_in_time_lets_the_run_through() -> None:
    world = RunWorld()
    world.project = unbuilt(failedSince=stamp(-60))
    world.settle()
    world.project = unbuilt(phase="Building", failedSince=stamp(-60))
    world.seconds = 1000
    world.settle()
    assert world.condition[1] == "ImageBuilding"
    world.project = ready_project()
    assert world.settle() == [f"create Job {JOB}"]


def test_the_last_good_image_lets_a_run_through_while_the_next_one_fails() -> None:
    world = RunWorld()
    world.project = ready_project(runtime={"phase": "Failed", "message": "no such package"})
    assert world.settle() == [f"create Job {JOB}"]


def test_a_run_waits_for_one_build_only_however_fast_commits_come() -> None:
    world = RunWorld()
    newer = {"phase": "Building", "message": "building beef", "builtAt": stamp(-20)}
    world.project = ready_project(runtime=newer)
    world.settle()
    assert world.condition[1] == "ImageBuilding"
    world.project = ready_project(runtime={**newer, "builtAt": stamp(5)})
    assert world.settle() == [f"create Job {JOB}"]


@pytest.mark.parametrize("source", [None, make_source(tree="other", notebooks={})])
def test_what_cannot_be_checked_before_is_left_to_the_runner(source: Any) -> None:
    world = RunWorld(workflowRef={"name": "report"}, parameters={"unknown": 1})
    world.source = source
    assert world.settle() == [f"create Job {JOB}"]


def test_the_first_reading_of_the_source_is_waited_for_and_rarely_told_of() -> None:
    world = RunWorld()
    world.source, world.source_pending, world.seconds = None, True, -8
    assert world.settle() == []
    world.seconds = 10
    assert world.settle() == ["status"]
    assert world.condition == ("Unknown", "SourcePending", "Project demo: reading its source")
    world.source_pending = False
    assert world.settle() == [f"create Job {JOB}"]


def snapshot_of(world: RunWorld) -> dict[str, Any]:
    world.settle()
    annotations = world.jobs[JOB]["metadata"]["annotations"]
    snapshot: dict[str, Any] = json.loads(annotations["labfunctions.io/snapshot"])
    return snapshot


def test_the_hash_of_requirements_is_of_what_the_image_installs_alone() -> None:
    def hash_of(**files: str) -> str:
        world = RunWorld()
        world.source = make_source(files={f"{n}.txt": text for n, text in files.items()})
        found: str = snapshot_of(world)["requirementsHash"]
        return found

    assert hash_of(requirements="pandas\n") == hash_of(requirements="pandas\n", gpu="torch\n")
    assert hash_of(requirements="pandas\n") != hash_of(requirements="polars\n")


@pytest.mark.parametrize(
    "source", [None, make_source(tree="newer"), make_source(files={"gpu.txt": "torch"})]
)
def test_there_is_none_where_it_cannot_be_told(source: Any) -> None:
    world = RunWorld()
    world.source = source
    assert "requirementsHash" not in snapshot_of(world)


def test_a_run_can_say_everything_itself() -> None:
    world = RunWorld(projectRef={"name": "demo"}, notebook="analysis.ipynb")
    world.workflow = None
    assert world.settle() == [f"create Job {JOB}"]
    assert "labfunctions.io/workflow" not in world.jobs[JOB]["metadata"]["labels"]


def test_a_run_may_not_wait_longer_than_it_is_allowed_to() -> None:
    world = RunWorld(workflowRef={"name": "report"}, pendingTimeoutSeconds=60)
    world.project = None
    world.settle()
    assert world.decide().requeue_after == 50, "it was made ten seconds ago"
    world.seconds = 50
    assert world.settle() == ["status"]
    assert world.condition == (
        "False",
        "PendingTimedOut",
        "not started after 60 s: Project demo does not exist in this namespace",
    )


@pytest.mark.parametrize("policy", ["Forbid", "Replace", "Queue"])
def test_a_run_of_a_schedule_waits_for_the_one_before_unless_all_may_run(policy: str) -> None:
    world = RunWorld()
    world.workflow = make_workflow(schedule="* * * * *", concurrencyPolicy=policy)
    world.ahead = "report-1"
    assert world.settle() == ["status"]
    message = f"waits for Run report-1 to end: spec.concurrencyPolicy of its Workflow is {policy}"
    assert world.condition == ("Unknown", "Queued", message)
    assert world.status["phase"] == "Queued"
    world.ahead = None
    assert world.settle() == [f"create Job {JOB}"]


def test_a_run_of_a_schedule_starts_beside_the_one_before_if_it_may() -> None:
    world = RunWorld()
    world.workflow = make_workflow(schedule="* * * * *")
    world.ahead = "report-1"
    assert world.settle() == [f"create Job {JOB}"]


@pytest.mark.parametrize(
    ("annotation", "scheduled_at"),
    [
        ("2026-01-01T12:00:00Z", "2026-01-01T12:00:00Z"),
        ("2026-01-01T13:00:00+01:00", "2026-01-01T12:00:00Z"),
        ("tomorrow", None),
        ("0001-01-01T00:00:00+14:00", None),
    ],
)
def test_the_tick_goes_into_the_snapshot(annotation: str, scheduled_at: str | None) -> None:
    world = RunWorld()
    world.obj["metadata"]["annotations"] = {"labfunctions.io/scheduled-at": annotation}
    world.settle()
    snapshot = json.loads(world.jobs[JOB]["metadata"]["annotations"]["labfunctions.io/snapshot"])
    assert snapshot.get("scheduledAt") == scheduled_at
