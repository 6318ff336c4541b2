"""Who is told of what, and what a Run's status says of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from pydantic import ValidationError

from labfunctions_operator.api.conditions import set_condition
from labfunctions_operator.api.notification import (
    Delivery,
    Entry,
    Event,
    Notifications,
    NotifyPlan,
    Target,
    WorkflowNotifications,
)
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.run import FINAL_PHASES, Phase, Run, RunStatus
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.api.types import Condition
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.execution import merge_execution, with_defaults
from labfunctions_operator.reconcile.plan import Event as KubeEvent
from labfunctions_operator.reconcile.plan import Plan

NOTIFIED = "Notified"
TARGETS_FOUND = "NotificationTargetsFound"
PENDING = "Pending"
FAILED = "NotificationFailed"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one message: sent, or given up with a reason."""

    state: Literal["Sent", "Failed"]
    message: str | None = None


def in_force(words: Notifications | None, project: Project | None) -> NotifyPlan | None:
    """Return whole targets for what Run, Workflow or Project say; None where nobody is told."""
    if words is None:
        return None
    plan = NotifyPlan(
        on_success=whole_targets(words.on_success, project),
        on_failure=whole_targets(words.on_failure, project),
        on_recovered=whole_targets(words.on_recovered, project),
        group_seconds=words.group_seconds,
        template=project.spec.notification_template if project else None,
    )
    return plan if plan.on_success or plan.on_failure or plan.on_recovered else None


def words_of(workflow: Workflow, project: Project | None) -> WorkflowNotifications:
    """Return who is to be told of a Workflow: what it says itself, else what its Project does."""
    default = project.spec.defaults.notifications if project else None
    return workflow.spec.notifications or default or WorkflowNotifications()


def with_unknown_targets(
    conditions: list[Condition], workflow: Workflow, project: Project, now: datetime
) -> list[Condition]:
    """Say on a Workflow, before any Run of it ends, that it names targets which are not there."""
    words = words_of(workflow, project)
    named = {target.name for target in project.spec.notification_targets}
    lists = (words.on_success, words.on_failure, words.on_missed, words.on_recovered)
    unknown = {str(e) for entries in lists for e in entries if not e.media and e.name not in named}
    if not unknown:
        return [c for c in conditions if c.type != TARGETS_FOUND]
    return set_condition(
        conditions,
        type=TARGETS_FOUND,
        status=False,
        reason="TargetNotFound",
        message=f"Project {project.metadata.name} has no notification target "
        + ", ".join(sorted(unknown)),
        generation=workflow.metadata.generation,
        now=now,
    )


def announce(
    plan: Plan,
    run: Run,
    *,
    workflow: Workflow | InvalidSpec | None,
    project: Project | InvalidSpec | None,
    before: Phase | None,
    now: datetime,
) -> Plan:
    """Put the messages that a Run's end calls for into the write that ends it.

    Args:
        plan: What was decided for the Run; returned as it is unless it ends the Run.
        run: The Run.
        workflow: Asked where the Run ends without a snapshot.
        project: The same.
        before: How the Workflow's last Run before this one ended, if one did.
        now: The time of the change.
    """
    if plan.status is None or plan.status.get("phase") not in FINAL_PHASES or run.is_finished:
        return plan
    try:
        status = RunStatus.model_validate(plan.status)
    except ValidationError:
        return plan  # somebody else's; what it says of messages cannot be told
    told = status.snapshot.notify if status.snapshot else _unstarted(run, workflow, project)
    if told is None or status.phase is None:
        return plan
    deliveries = _deliveries(_calls(told, status.phase, before), told.group_seconds, now)
    if not deliveries:
        return plan
    return replace(plan, status=_status(run, status, deliveries, now).wire())


def is_pending(run: Run) -> bool:
    """Whether a message about this Run is still to be sent."""
    return any(d.state == PENDING for d in run.status.notifications or ())


def with_outcomes(run: Run, outcomes: Mapping[int, Outcome], now: datetime) -> Plan:
    """Put on record what became of messages, by their place in the status."""
    before = run.status.notifications or []
    after = [
        d.but(state=found.state, message=found.message, time=rfc3339(now))
        if d.state == PENDING and (found := outcomes.get(place))
        else d
        for place, d in enumerate(before)
    ]
    if after == before:
        return Plan()
    return Plan(status=_status(run, run.status, after, now).wire(), events=failures(before, after))


def _unstarted(
    run: Run, workflow: Workflow | InvalidSpec | None, project: Project | InvalidSpec | None
) -> NotifyPlan | None:
    execution = merge_execution(run, workflow if isinstance(workflow, Workflow) else None)
    if not isinstance(project, Project):
        return in_force(execution.notifications, None)
    return in_force(with_defaults(execution, project).notifications, project)


def whole_targets(entries: Iterable[Entry], project: Project | None) -> list[Target]:
    """Look names up; one that is not there stays a name, and fails when it is to be used."""
    named = {t.name: t for t in project.spec.notification_targets} if project else {}
    found = [named.get(e.name or "", e) if not e.media else e for e in entries]
    return [Target.model_validate(t.wire()) for t in found]


def _calls(
    told: NotifyPlan, phase: Phase, before: Phase | None
) -> list[tuple[Event, list[Target]]]:
    if phase == "Failed":
        return [("Failed", told.on_failure)]
    if phase == "Succeeded":
        recovered = told.on_recovered if before == "Failed" else []
        return [("Recovered", recovered), ("Succeeded", told.on_success)]
    return []  # who cancels a Run knows it


def _deliveries(
    calls: Iterable[tuple[Event, list[Target]]], group_seconds: int, now: datetime
) -> list[Delivery]:
    """Return one message for each target, however often it is named; failures wait for others."""
    found: dict[str, Delivery] = {}
    later = rfc3339(now + timedelta(seconds=group_seconds)) if group_seconds else None
    for event, targets in calls:
        held = later if event == "Failed" else None
        for target in targets:
            delivery = Delivery(event=event, target=target, not_before=held)
            found.setdefault(target.identity, delivery)
    return [*found.values()]


def _status(run: Run, status: RunStatus, deliveries: list[Delivery], now: datetime) -> RunStatus:
    conditions = with_notified(
        status.conditions, deliveries, generation=run.metadata.generation, now=now
    )
    return status.but(notifications=deliveries, conditions=conditions)


def with_notified(
    conditions: Iterable[Condition],
    deliveries: Sequence[Delivery],
    *,
    generation: int,
    now: datetime,
) -> list[Condition]:
    """Sum up in a condition what became of messages."""
    sent = sum(d.state == "Sent" for d in deliveries)
    failed = [failure_of(d) for d in deliveries if d.state == "Failed"]
    word: bool | None = True
    reason, message = "Sent", f"{sent} of {len(deliveries)} messages sent"
    if any(d.state == PENDING for d in deliveries):
        word, reason = None, PENDING
    elif failed:
        word, reason = False, FAILED
    return set_condition(
        conditions,
        type=NOTIFIED,
        status=word,
        reason=reason,
        message="; ".join([message, *failed]),
        generation=generation,
        now=now,
    )


def failures(before: Iterable[Delivery], after: Iterable[Delivery]) -> tuple[KubeEvent, ...]:
    """Tell of messages, the same in both, that were given up in between."""
    return tuple(
        KubeEvent(type="Warning", reason=FAILED, message=failure_of(new))
        for old, new in zip(before, after, strict=True)
        if new.state == "Failed" and old.state == PENDING
    )


def failure_of(delivery: Delivery) -> str:
    """Say which message was given up, and why."""
    return f"{delivery.target}: {delivery.message}"
