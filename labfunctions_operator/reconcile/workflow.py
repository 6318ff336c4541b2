"""What a Workflow's status says: whether a Run of it could start, and what it can be given."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import JsonValue

from labfunctions_operator.api.conditions import find_condition, set_condition
from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.types import Condition
from labfunctions_operator.api.workflow import Workflow, WorkflowStatus
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.admission import missing
from labfunctions_operator.reconcile.adoption import Adoption, adopt
from labfunctions_operator.reconcile.cron_job import CronObserved, Handover, hand_over
from labfunctions_operator.reconcile.execution import find_runtime
from labfunctions_operator.reconcile.history import find_surplus
from labfunctions_operator.reconcile.missed import Told, tell_missed
from labfunctions_operator.reconcile.notebook import NOTEBOOK_REASONS, check_notebook, check_size
from labfunctions_operator.reconcile.notify import Outcome, with_unknown_targets
from labfunctions_operator.reconcile.plan import Plan, Problem
from labfunctions_operator.reconcile.scheduled_run import ScheduledRun
from labfunctions_operator.reconcile.scheduling import Scheduling, reconcile_schedule
from labfunctions_operator.reconcile.source import SourceSnapshot

READY = "Ready"
# Runs deleted in one pass: others have their turn before the next one.
DELETE_BATCH = 50


@dataclass(frozen=True, kw_only=True)
class WorkflowObserved:
    """What exists around a Workflow.

    Attributes:
        project: The Project it names; InvalidSpec where that cannot be read.
        source: The project's source as last read, if it was.
        runs: Those that its schedule made.
        cron: What is there of its CronJob.
        outcomes: What became of messages about its schedule, by their marks.
        edited: When its schedule was edited, if it was and that is known.
    """

    project: Project | InvalidSpec | None = None
    node_group: NodeGroup | InvalidSpec | None = None
    source: SourceSnapshot | None = None
    runs: Sequence[ScheduledRun] = ()
    cron: CronObserved | None = None
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    edited: datetime | None = None


def reconcile_workflow(workflow: Workflow, seen: WorkflowObserved, now: datetime) -> Plan:
    """Decide what a Workflow's status says and which Runs it needs, from what exists now."""
    adoption, handover = _cron_job(workflow, seen, now)
    scheduling = reconcile_schedule(
        workflow,
        [*seen.runs, *adoption.runs],
        now,
        handed_over=handover.since,
        edited=seen.edited,
    )
    problem = _problem(workflow, seen) or (scheduling and scheduling.problem)
    schema = _schema(workflow, seen.source)
    conditions = set_condition(
        scheduling.conditions if scheduling else workflow.status.conditions,
        type=READY,
        status=problem is None,
        reason=problem.reason if problem else "Ready",
        message=problem.message if problem else "a Run of it can start",
        generation=workflow.metadata.generation,
        now=now,
    )
    told = _tell(workflow, conditions, scheduling, seen, now)
    status = WorkflowStatus(
        observed_generation=workflow.metadata.generation,
        parameters_schema=workflow.status.parameters_schema if schema is None else schema,
        notifications=told.deliveries,
        conditions=told.conditions,
        **(scheduling.fields if scheduling else {}),
    )
    delete, apply = (*handover.delete, *adoption.delete), (*adoption.create, *handover.apply)
    if scheduling is None:
        return Plan(delete=delete, apply=apply, status=status.wire(), events=told.events)
    events = (scheduling.skipped.event,) if scheduling.skipped else ()
    surplus = find_surplus(workflow, seen.runs, now)
    # A tick does not wait for the past.
    batch = () if scheduling.create else surplus[:DELETE_BATCH]
    return Plan(
        delete=(*delete, *batch),
        apply=(*apply, *scheduling.create),
        cancel=scheduling.cancel,
        status=status.wire(),
        events=(*events, *told.events),
        requeue_after=0.0 if len(surplus) > len(batch) else scheduling.requeue_after,
    )


def _tell(
    workflow: Workflow,
    conditions: list[Condition],
    scheduling: Scheduling | None,
    seen: WorkflowObserved,
    now: datetime,
) -> Told:
    project = seen.project if isinstance(seen.project, Project) else None
    if project:
        conditions = with_unknown_targets(conditions, workflow, project, now)
    return tell_missed(
        workflow,
        conditions,
        scheduling.skipped if scheduling else None,
        project=project,
        outcomes=seen.outcomes,
        now=now,
    )


def _cron_job(
    workflow: Workflow, seen: WorkflowObserved, now: datetime
) -> tuple[Adoption, Handover]:
    if seen.cron is None:
        return Adoption(), Handover()
    adoption = adopt(workflow, seen.cron.without_run, seen.cron.over)
    handover = hand_over(
        workflow,
        seen.cron,
        project=seen.project,
        source=seen.source,
        runs=[*seen.runs, *adoption.runs],
        now=now,
    )
    return adoption, handover


def _problem(workflow: Workflow, seen: WorkflowObserved) -> Problem | None:
    ref = workflow.spec.project_ref
    if ref is None or workflow.spec.notebook is None:
        return Problem(reason="InvalidSpec", message="spec.projectRef and spec.notebook are needed")
    if not isinstance(seen.project, Project):
        blocked = missing("Project", ref.name, seen.project)
        return Problem(reason=blocked.reason, message=blocked.message)
    found = find_runtime(seen.project, workflow.spec.runtime)
    if found is None:
        return Problem(
            reason="RuntimeNotFound",
            message=f"Project {ref.name} has no runtime {workflow.spec.runtime}",
        )
    runtime, state = found
    problem = check_size(workflow.spec.parameters)
    if not runtime.image and not problem:
        problem = _notebook_problem(workflow, seen.source)
    if problem:
        return problem
    if problem := _no_node_group(workflow, seen.project, seen.node_group):
        return problem
    if state is None or state.image is None:
        return _not_ready(seen.project)
    return None


def _notebook_problem(workflow: Workflow, source: SourceSnapshot | None) -> Problem | None:
    if source:
        return check_notebook(
            source,
            workflow.spec.notebook or "",
            workflow.spec.parameters,
            workflow.spec.parameters_policy,
        )
    # After a restart nothing was read yet: what was found before holds until it is.
    before = find_condition(workflow.status.conditions, READY)
    if (
        before
        and before.observed_generation == workflow.metadata.generation
        and before.reason in NOTEBOOK_REASONS
    ):
        return Problem(reason=before.reason, message=before.message)
    return None


def _no_node_group(
    workflow: Workflow, project: Project, group: NodeGroup | InvalidSpec | None
) -> Problem | None:
    name = workflow.spec.node_group or project.spec.defaults.node_group
    if name is None or isinstance(group, NodeGroup):
        return None
    blocked = missing("NodeGroup", name, group, where="cluster")
    return Problem(reason=blocked.reason, message=blocked.message)


def _not_ready(project: Project) -> Problem:
    ready = next((c for c in project.status.conditions if c.type == "Ready"), None)
    name = project.metadata.name
    if ready is None:
        return Problem(reason="ProjectNotReady", message=f"Project {name} is not ready yet")
    return Problem(
        reason="ProjectNotReady", message=f"Project {name} is not ready: {ready.message}"
    )


_JSON_TYPES = {
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "str": "string",
    "list": "array",
    "dict": "object",
}


def _schema(workflow: Workflow, source: SourceSnapshot | None) -> dict[str, Any] | None:
    """Describe the notebook's parameters as JSON Schema properties."""
    notebook = source.notebooks.get(workflow.spec.notebook or "") if source else None
    if notebook is None or notebook.error or notebook.declared is None:
        return None
    schema = {}
    for declared in notebook.declared:
        entry = {"default": _value(declared.default), "description": declared.help}
        if declared.type in _JSON_TYPES:
            entry["type"] = _JSON_TYPES[declared.type]
        schema[declared.name] = {k: v for k, v in entry.items() if v not in (None, "")}
    return schema


def _value(source: str) -> JsonValue:
    """Read a default where it is a literal that JSON has; else leave it out."""
    try:
        value: JsonValue = json.loads(json.dumps(ast.literal_eval(source), allow_nan=False))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value
