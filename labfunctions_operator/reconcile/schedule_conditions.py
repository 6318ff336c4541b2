"""What a Workflow's conditions say of its schedule: whether it is at work, and how it went last."""

from datetime import datetime, timedelta

from labfunctions_operator.api.conditions import find_condition, set_condition
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.api.types import Condition
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.reconcile.ledger import SUCCEEDED, Ledger
from labfunctions_operator.reconcile.plan import Problem
from labfunctions_operator.reconcile.schedule import ON_TIME
from labfunctions_operator.reconcile.ticks import (
    ALREADY_ACTIVE,
    LATE,
    MISSED,
    SCHEDULED,
    TOO_MANY,
    Ticks,
)

LAST_RUN_SUCCEEDED = "LastRunSucceeded"


def schedule_conditions(
    workflow: Workflow, ledger: Ledger, ticks: Ticks, now: datetime
) -> list[Condition]:
    """Return the Workflow's conditions, with those about its schedule brought up to date.

    Args:
        workflow: As stored.
        ledger: What became of the schedule's Runs.
        ticks: What is done about its ticks.
        now: The time.
    """
    generation = workflow.metadata.generation
    scheduled = _scheduled(workflow, ticks, now)
    conditions = set_condition(
        workflow.status.conditions,
        type=SCHEDULED,
        status=scheduled.reason in (SCHEDULED, LATE),
        reason=scheduled.reason,
        message=scheduled.message,
        generation=generation,
        now=now,
    )
    succeeded, last = _outcome(workflow, ledger)
    return set_condition(
        conditions,
        type=LAST_RUN_SUCCEEDED,
        status=succeeded,
        reason=last.reason,
        message=last.message,
        generation=generation,
        now=now,
    )


def _scheduled(workflow: Workflow, ticks: Ticks, now: datetime) -> Problem:
    """Say whether the schedule is at work, and if not, or late, why."""
    if ticks.is_over and ticks.why:
        return ticks.why
    if ticks.next is None:
        end = workflow.spec.end_at
        message = f"no tick is left until spec.endAt, {end}" if end else "no tick is left"
        return Problem(reason="Ended", message=message)
    following = f"next at {rfc3339(ticks.next)}"
    if ticks.why:
        return Problem(reason=ticks.why.reason, message=f"{ticks.why.message}; {following}")
    if ticks.last:
        late = now - ticks.last - timedelta(seconds=workflow.spec.jitter_seconds)
        is_late = late > ON_TIME
        words = [f"the tick of {rfc3339(ticks.last)} started late"] if is_late else []
        words += [ticks.before] if ticks.before else []
        message = "; ".join([*words, following])
        return Problem(reason=LATE if is_late else SCHEDULED, message=message)
    # Nothing was due: what was said about the tick before holds until the next one.
    old = find_condition(workflow.status.conditions, SCHEDULED)
    if (
        old
        and old.message.endswith(following)
        and old.reason in (SCHEDULED, MISSED, ALREADY_ACTIVE, TOO_MANY, LATE)
    ):
        return Problem(reason=old.reason, message=old.message)
    return Problem(reason=SCHEDULED, message=following)


def _outcome(workflow: Workflow, ledger: Ledger) -> tuple[bool | None, Problem]:
    old = find_condition(workflow.status.conditions, LAST_RUN_SUCCEEDED)
    if ledger.latest is None:
        if old and old.status != "Unknown":
            return old.status == "True", Problem(reason=old.reason, message=old.message)
        return None, Problem(reason="NeverRan", message="no Run of the schedule has ended yet")
    run = ledger.latest
    message = f"Run {run.name}: {run.message}"
    if run.phase != SUCCEEDED and ledger.last_successful_time is None:
        message = f"{message}; no Run of the schedule has ever succeeded"
    return run.phase == SUCCEEDED, Problem(reason=run.reason, message=message)
