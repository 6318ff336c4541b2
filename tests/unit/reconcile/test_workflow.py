import dataclasses
from typing import Any

import pytest
from crd_schema import status_errors
from objects import (
    COMMIT,
    TREE,
    at,
    declared,
    make_node_group,
    make_project,
    make_source,
    make_workflow,
    stamp,
)

from labfunctions_operator.api.project import Project
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.source import Notebook
from labfunctions_operator.reconcile.workflow import WorkflowObserved, reconcile_workflow

READY_RUNTIME = {"name": "default", "phase": "Ready", "image": "i@sha256:0a", "tree": TREE}


def project(**changes: Any) -> Project:
    status = {"runtimes": [READY_RUNTIME], **changes.pop("status", {})}
    return make_project(status=status, **changes)


SEEN = WorkflowObserved(project=project(), source=make_source())


def seen(**changes: Any) -> WorkflowObserved:
    return dataclasses.replace(SEEN, **changes)


def notebooks(**fields: Any) -> dict[str, Notebook]:
    return {"analysis.ipynb": Notebook(sha256="0" * 64, **fields)}


def reconciled(workflow: Workflow, observed: WorkflowObserved, seconds: float = 0) -> Workflow:
    """The Workflow as it is stored afterwards; a plan for it has nothing but a status."""
    plan = reconcile_workflow(workflow, observed, at(seconds))
    assert (plan.apply, plan.delete, plan.events, plan.requeue_after) == ((), (), (), None)
    assert plan.status is not None
    assert status_errors("Workflow", plan.status) == []
    return workflow.but(status=type(workflow.status).model_validate(plan.status))


def ready(workflow: Workflow) -> tuple[str, str, str]:
    [condition] = workflow.status.conditions
    assert condition.type == "Ready"
    return condition.status, condition.reason, condition.message


def not_ready(message: str) -> dict[str, Any]:
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "ImageBuildFailed",
        "message": message,
        "lastTransitionTime": stamp(),
    }
    return {"runtimes": [], "conditions": [condition]}


PROBLEMS: dict[str, tuple[Workflow, WorkflowObserved, str, str]] = {
    "no project is named": (
        make_workflow(projectRef=None),
        SEEN,
        "InvalidSpec",
        "spec.projectRef and spec.notebook are needed",
    ),
    "no notebook is named": (
        make_workflow(notebook=None),
        SEEN,
        "InvalidSpec",
        "spec.projectRef and spec.notebook are needed",
    ),
    "the project is missing": (
        make_workflow(),
        WorkflowObserved(),
        "ProjectNotFound",
        "Project demo does not exist in this namespace",
    ),
    "the project cannot be read": (
        make_workflow(),
        WorkflowObserved(project=InvalidSpec("spec.source", "Field required")),
        "ProjectInvalid",
        "Project demo: spec.source: Field required",
    ),
    "the runtime is missing": (
        make_workflow(runtime="gpu"),
        SEEN,
        "RuntimeNotFound",
        "Project demo has no runtime gpu",
    ),
    "the notebook is missing": (
        make_workflow(notebook="analisys.ipynb"),
        SEEN,
        "NotebookNotFound",
        f"analisys.ipynb is not in the source at {COMMIT[:12]}; did you mean analysis.ipynb?",
    ),
    "the notebook is missing, and none is alike": (
        make_workflow(notebook="x"),
        seen(
            source=make_source(
                notebooks={f"{c}-other.ipynb": notebooks()["analysis.ipynb"] for c in "fedcba"}
            )
        ),
        "NotebookNotFound",
        f"x is not in the source at {COMMIT[:12]}; it has a-other.ipynb, b-other.ipynb, "
        "c-other.ipynb, d-other.ipynb, e-other.ipynb, …",
    ),
    "there are no notebooks": (
        make_workflow(),
        seen(source=make_source(notebooks={})),
        "NotebookNotFound",
        f"analysis.ipynb is not in the source at {COMMIT[:12]}, which has no notebooks",
    ),
    "the notebook is none": (
        make_workflow(),
        seen(source=make_source(notebooks=notebooks(error="is not a notebook: no JSON"))),
        "NotebookInvalid",
        "analysis.ipynb: is not a notebook: no JSON",
    ),
    "a parameter is unknown": (
        make_workflow(parameters={"dya": "x"}),
        SEEN,
        "ParametersInvalid",
        "parameters.dya: the notebook declares no such parameter; it declares: day; "
        "did you mean day?",
    ),
    "two parameters are wrong": (
        make_workflow(parameters={"day": 3, "a b": 1}),
        SEEN,
        "ParametersInvalid",
        "parameters.day: expected str, got int 3; "
        "parameters.a b: is not a name that a notebook can assign to",
    ),
    "the group of nodes is missing": (
        make_workflow(nodeGroup="gpuu"),
        SEEN,
        "NodeGroupNotFound",
        "NodeGroup gpuu does not exist in this cluster",
    ),
    "the project's group of nodes is missing": (
        make_workflow(),
        seen(project=project(defaults={"nodeGroup": "gpuu"})),
        "NodeGroupNotFound",
        "NodeGroup gpuu does not exist in this cluster",
    ),
    "the group of nodes cannot be read": (
        make_workflow(nodeGroup="gpu"),
        seen(node_group=InvalidSpec("spec.max", "Field required")),
        "NodeGroupInvalid",
        "NodeGroup gpu: spec.max: Field required",
    ),
    "the project has said nothing yet": (
        make_workflow(),
        seen(project=make_project()),
        "ProjectNotReady",
        "Project demo is not ready yet",
    ),
    "the project has no image": (
        make_workflow(),
        seen(project=make_project(status=not_ready("image default: no such package"))),
        "ProjectNotReady",
        "Project demo is not ready: image default: no such package",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_what_keeps_a_workflow_from_being_ready_and_that_it_recovers(case: str) -> None:
    workflow, observed, reason, message = PROBLEMS[case]
    refused = reconciled(workflow, observed)
    assert ready(refused) == ("False", reason, message)
    assert reconciled(refused, observed, 99).status == refused.status, "it is stable"
    mended = refused.but(spec=make_workflow().spec)
    recovered = reconciled(mended, SEEN, 99)
    assert ready(recovered) == ("True", "Ready", "a Run of it can start")
    assert recovered.status.conditions[0].last_transition_time == stamp(99)


def test_a_workflow_whose_group_is_there_is_ready() -> None:
    for workflow, defaults in ((make_workflow(nodeGroup="gpu"), {}), (make_workflow(), "gpu")):
        named = project(defaults={"nodeGroup": defaults} if defaults else {})
        observed = seen(project=named, node_group=make_node_group("gpu"))
        assert ready(reconciled(workflow, observed))[0] == "True"


def test_an_unknown_parameter_is_taken_where_the_policy_is_permissive() -> None:
    workflow = make_workflow(parameters={"other": 1}, parametersPolicy="Permissive")
    assert ready(reconciled(workflow, SEEN))[0] == "True"


@pytest.mark.parametrize("image", [{}, {"image": "example.com/ready:1"}])
def test_parameters_that_no_program_can_be_given_are_refused(image: dict[str, str]) -> None:
    observed = seen(project=project(runtimes=[{"name": "default", **image}]))
    workflow = make_workflow(parameters={"day": "x" * 102_400})
    why = ("False", "ParametersInvalid", "spec.parameters: 102411 bytes, at most 102400")
    assert ready(reconciled(workflow, observed)) == why


def test_a_notebook_of_another_language_takes_any_parameter() -> None:
    observed = seen(source=make_source(notebooks=notebooks(declared=None, language="r")))
    workflow = reconciled(make_workflow(parameters={"anything": 1}), observed)
    assert ready(workflow)[0] == "True"
    assert workflow.status.parameters_schema is None


def test_a_notebook_of_a_ready_made_image_is_not_looked_for_in_the_source() -> None:
    made = {"name": "ready", "image": "example.com/ready:1"}
    observed = seen(
        project=project(
            runtimes=[made],
            status={"runtimes": [{"name": "ready", "phase": "Ready", "image": "i"}]},
        )
    )
    assert ready(reconciled(make_workflow(notebook="/opt/x.ipynb"), observed))[0] == "True"


def test_the_last_good_image_is_good_enough() -> None:
    failed = {**READY_RUNTIME, "phase": "Failed", "message": "no such package"}
    observed = seen(project=project(status={"runtimes": [failed]}))
    assert ready(reconciled(make_workflow(), observed))[0] == "True"


def test_the_schema_describes_the_parameters_of_the_notebook() -> None:
    source = make_source(
        notebooks=notebooks(
            declared=(
                declared("day", "str", "'2026-01-01'", "the day to look at"),
                declared("n", "int", "0"),
                declared("rate", "float", "1.5"),
                declared("fast", "bool", "False"),
                declared("names", "list", "['a']"),
                declared("options", "dict", "{'a': None}"),
                declared("when", "datetime", "now()"),
                declared("untyped"),
                declared("empty", "str", "''"),
                declared("huge", "float", "float('nan')"),
            )
        )
    )
    workflow = reconciled(make_workflow(), seen(source=source))
    assert workflow.status.parameters_schema == {
        "day": {"type": "string", "default": "2026-01-01", "description": "the day to look at"},
        "n": {"type": "integer", "default": 0},
        "rate": {"type": "number", "default": 1.5},
        "fast": {"type": "boolean", "default": False},
        "names": {"type": "array", "default": ["a"]},
        "options": {"type": "object", "default": {"a": None}},
        "when": {},
        "untyped": {},
        "empty": {"type": "string"},
        "huge": {"type": "number"},
    }


def test_the_schema_is_kept_while_the_source_is_unknown() -> None:
    known = reconciled(make_workflow(), SEEN)
    assert known.status.parameters_schema == {"day": {"type": "string"}}
    again = reconciled(known, seen(source=None), 99)
    assert again.status == known.status


def test_the_schema_follows_a_notebook_that_has_no_parameters_any_more() -> None:
    known = reconciled(make_workflow(), SEEN)
    observed = seen(source=make_source(notebooks=notebooks(declared=())))
    assert reconciled(known, observed).status.parameters_schema == {}


def test_the_generation_is_recorded() -> None:
    assert reconciled(make_workflow(), SEEN).status.observed_generation == 1
