"""What a Run's status says: while it goes on, and as its final word."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from labfunctions_operator.api.conditions import set_condition
from labfunctions_operator.api.run import Failure, Outputs, Phase, Progress, Run, Snapshot
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.desired.names import FILES
from labfunctions_operator.reconcile.attempt import Current, with_end
from labfunctions_operator.reconcile.plan import Event, Plan
from labfunctions_operator.reconcile.verdict import SUCCEEDED, Verdict

SUCCEEDED_CONDITION = "Succeeded"
CANCELLED = "Cancelled"
RETRYING = "Retrying"


def run_status(
    run: Run, succeeded: bool | None, why: tuple[str, str], now: datetime, **changes: Any
) -> dict[str, Any]:
    """Return the whole status with a new reason and message, and other fields as given."""
    reason, message = why
    conditions = set_condition(
        run.status.conditions,
        type=SUCCEEDED_CONDITION,
        status=succeeded,
        reason=reason,
        message=message,
        generation=run.metadata.generation,
        now=now,
    )
    status = run.status.but(
        conditions=conditions, observed_generation=run.metadata.generation, **changes
    )
    return status.wire()


def finish(
    run: Run, current: Current, verdict: Verdict, reported: Progress | None, now: datetime
) -> Plan:
    """End a Run: the last attempt's verdict becomes its own.

    An attempt whose end is on record already stays as it ended.
    """
    succeeded = verdict.reason == SUCCEEDED
    started = run.status.start_time or verdict.started
    finished = verdict.finished or rfc3339(now)
    rows, outputs = list(current.rows), run.status.outputs
    if not current.has_ended:
        outputs = stored_outputs(current, verdict)
        rows = with_end(rows, replace(verdict, finished=finished), outputs)
    phase: Phase = "Failed"
    if succeeded or verdict.reason == CANCELLED:
        phase = "Succeeded" if succeeded else "Cancelled"
    message = verdict.message
    if len(rows) > 1:
        message = f"{message} (attempt {rows[-1].number})"
    status = run_status(
        run,
        succeeded,
        (verdict.reason, message),
        now,
        phase=phase,
        snapshot=_with_notebook(current.snapshot, verdict),
        attempts=rows,
        outputs=outputs,
        start_time=started,
        completion_time=finished,
        queued_seconds=seconds_between(run.metadata.creation_timestamp, started),
        duration_seconds=seconds_between(started, finished),
        progress=verdict.progress or reported or run.status.progress,
        failure=verdict.failure,
        results=verdict.results,
        versions=verdict.versions,
    )
    event = Event(
        type="Normal" if phase == CANCELLED else "Warning", reason=verdict.reason, message=message
    )
    return Plan(status=status, events=() if succeeded else (event,))


def ended(reason: str, message: str, now: datetime) -> Verdict:
    """Return the verdict on an attempt of which no more is known."""
    return Verdict(
        reason=reason, message=message, failure=Failure(reason=reason), finished=rfc3339(now)
    )


def stored_outputs(current: Current, verdict: Verdict) -> Outputs | None:
    """Name only what lies in the store; without a courier's word, what it may have left there.

    That is the notebook, as uploaded while it ran: all else comes last, with the courier's word.
    """
    outputs, stored = current.outputs, verdict.stored
    if outputs is None:
        return None
    if stored is None:
        has_run = verdict.started or (current.rows and current.rows[-1].start_time)
        return outputs.but(html=None, result=None) if has_run else None
    if not stored:
        return None
    etags = {field: stored[file] for field, file in FILES.items() if file in stored}
    uris = {field: getattr(outputs, field) if field in etags else None for field in FILES}
    return outputs.but(**uris, etags=etags)


def _with_notebook(snapshot: Snapshot | None, verdict: Verdict) -> Snapshot | None:
    """Say which notebook ran, where only the runner could see it: in a ready-made image."""
    if snapshot is None or snapshot.notebook_sha256:
        return snapshot
    return snapshot.but(notebook_sha256=verdict.notebook_sha256)


def recorded(current: Current) -> dict[str, Any]:
    """Return the fields of status that tell what runs, and where its files will lie."""
    return {
        "snapshot": current.snapshot,
        "attempts": list(current.rows),
        "outputs": current.outputs,
    }


def seconds_between(start: str | None, end: str | None) -> int | None:
    """Return whole seconds, or None where one of the times is not known."""
    if not start or not end:
        return None
    return max(0, round((parse_time(end) - parse_time(start)).total_seconds()))
