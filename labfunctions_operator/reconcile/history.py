"""Which of the Runs that a schedule made need not be kept any longer."""

from collections.abc import Iterable
from datetime import datetime

from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.reconcile.ledger import SUCCEEDED, is_counted
from labfunctions_operator.reconcile.plan import Ref
from labfunctions_operator.reconcile.scheduled_run import ScheduledRun


def find_surplus(
    workflow: Workflow, runs: Iterable[ScheduledRun], now: datetime
) -> tuple[Ref, ...]:
    """Return the Runs beyond the history limits, oldest tick first.

    A Run stays, whatever the limits, until the stored status has counted it, its record is in the
    store and the messages about it are sent. One whose tick lies ahead stays, too: a clock that
    was wrong made it, and without it that tick would be run again.
    """
    spec = workflow.spec
    mine = [run for run in runs if run.owner == workflow.metadata.uid and not run.is_live]
    mine.sort(key=lambda run: run.tick, reverse=True)
    succeeded = [run for run in mine if run.phase == SUCCEEDED]
    others = [run for run in mine if run.phase != SUCCEEDED]
    beyond = [
        *succeeded[spec.successful_runs_history_limit :],
        *others[spec.failed_runs_history_limit :],
    ]
    surplus = [
        run
        for run in beyond
        if run.is_recorded
        and run.is_told
        and not run.is_terminating
        and run.tick <= now
        and is_counted(run, workflow.status)
    ]
    return tuple(run.ref for run in sorted(surplus, key=lambda run: run.tick))
