"""What a notification says, before it is written for a medium."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labfunctions_operator.api.notification import Event, MissedDelivery
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.desired.starter import local_time, started_by

LINE_LIMIT = 500
TAIL_LINES = 12
TAIL_LIMIT = 1500
NAMES_LIMIT = 20

_VERBS = {
    "Succeeded": "succeeded",
    "Failed": "failed",
    "Missed": "missed its schedule",
    "Recovered": "works again",
}


@dataclass(frozen=True, kw_only=True)
class Link:
    """Where to look further.

    Attributes:
        label: What is there.
        url: Its address.
        expires: Until when the address works, for a person; None where nobody knows.
    """

    label: str
    url: str
    expires: str | None = None


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message, all of its texts clean and bounded, but not escaped.

    Attributes:
        id: The same for every try to send it, so that a receiver can tell a repeat.
        event: What happened.
        namespace: Where.
        workflow: The Workflow, unless a Run says everything itself.
        run: The Run; None for a missed tick.
        time: When it happened, RFC 3339.
        title: One line.
        summary: Why, in one line.
        facts: Labels and values, each one line.
        tail: The last lines that the notebook printed, secrets masked.
        links: Where the results lie.
        count: How many Runs this message stands for.
        runs: Their names, if there are several; at most `NAMES_LIMIT`.
        text: A Project's own text, in place of summary, facts and tail.
        document: All of it, and more, for programs.
    """

    id: str
    event: Event
    namespace: str
    workflow: str | None
    run: str | None
    time: str
    title: str
    summary: str
    facts: tuple[tuple[str, str], ...] = ()
    tail: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    count: int = 1
    runs: tuple[str, ...] = ()
    text: str | None = None
    document: dict[str, Any]


def run_message(
    run: Run,
    event: Event,
    *,
    tool: str | None = None,
    links: Sequence[Link] = (),
    tail: Sequence[str] = (),
    runs: Sequence[str] = (),
    count: int = 1,
) -> Message:
    """Say how a Run ended.

    Args:
        run: It, or the first of several that failed alike.
        event: As what it is told.
        tool: The program that created it.
        links: Where its results lie.
        tail: The last lines of output, the last one last.
        runs: The names of all Runs alike.
        count: How many those are, should there be more than names.
    """
    status, meta = run.status, run.metadata
    workflow = _workflow(run)
    succeeded = next((c for c in status.conditions if c.type == "Succeeded"), None)
    reason = succeeded.reason if succeeded else ""
    names = tuple(one_line(name, 63) for name in runs[:NAMES_LIMIT]) if count > 1 else ()
    lines = _tail(tail)
    starter = one_line(started_by(run, tool))
    facts = _facts(run, starter, names, count)
    return Message(
        id=f"{meta.uid}.{event.lower()}",
        event=event,
        namespace=meta.namespace,
        workflow=workflow,
        run=meta.name,
        time=status.completion_time or meta.creation_timestamp or "",
        title=_title(workflow or meta.name, event, reason, count),
        summary=one_line(succeeded.message if succeeded else "", 2 * LINE_LIMIT),
        facts=facts,
        tail=lines,
        links=tuple(links),
        count=count,
        runs=names,
        document=_document(run, event, reason, starter) | {"output": list(lines), "count": count},
    )


def missed_message(workflow: Workflow, delivery: MissedDelivery) -> Message:
    """Say which ticks of a Workflow's schedule got no Run, and why."""
    meta, spec = workflow.metadata, workflow.spec
    due, count = delivery.due, delivery.count
    local = local_time(due, spec.time_zone)
    ticks = (
        f"{count} ticks, the last one of {local}, got no Run"
        if count > 1
        else (f"the tick of {local} got no Run")
    )
    following = workflow.status.next_schedule_time
    facts = [
        ("Workflow", f"{meta.namespace}/{meta.name}"),
        ("Schedule", _schedule(workflow)),
        ("Next tick", local_time(following, spec.time_zone) if following else None),
    ]
    return Message(
        id=f"{meta.uid}.missed.{due}",
        event="Missed",
        namespace=meta.namespace,
        workflow=meta.name,
        run=None,
        time=due,
        title=_title(meta.name, "Missed", "", count),
        summary=one_line(f"{ticks}: {delivery.cause}", 2 * LINE_LIMIT),
        facts=tuple((name, one_line(value)) for name, value in facts if value),
        count=count,
        document={
            "event": "Missed",
            "namespace": meta.namespace,
            "workflow": meta.name,
            "run": None,
            "reason": delivery.reason,
            "message": one_line(delivery.cause),
            "due": due,
            "nextScheduleTime": following,
            "count": count,
            "output": [],
        },
    )


def _schedule(workflow: Workflow) -> str | None:
    spec = workflow.spec
    if spec.schedule and spec.time_zone:
        return f"{spec.schedule} ({spec.time_zone})"
    return spec.schedule or (f"each {spec.interval}" if spec.interval else None)


def one_line(text: str, limit: int = LINE_LIMIT) -> str:
    """Make one line of any text, without characters that a reader cannot see, cut at a length."""
    return cut(" ".join(clean(text[: 4 * limit]).split()), limit)


def clean(text: str) -> str:
    """Drop control and formatting characters, which can hide or turn around what is read."""
    return "".join(
        c for c in text if c in "\n\t " or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co")
    )


def cut(text: str, limit: int) -> str:
    """Keep a text's beginning."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _workflow(run: Run) -> str | None:
    if run.status.snapshot:
        return run.status.snapshot.workflow
    return run.spec.workflow_ref.name if run.spec.workflow_ref else None


def _title(name: str, event: Event, reason: str, count: int) -> str:
    times = f" {count} times" if count > 1 else ""
    why = f": {reason}" if event == "Failed" and reason else ""
    return one_line(f"{name} {_VERBS[event]}{times}{why}", 150)


def _facts(run: Run, starter: str, names: Sequence[str], count: int) -> tuple[tuple[str, str], ...]:
    failure = run.status.failure
    cell, raised = (failure.cell, failure.exception) if failure else (None, None)
    workflow, attempts = _workflow(run), _attempts(run)
    said = [
        ("Workflow", f"{run.metadata.namespace}/{workflow}" if workflow else None),
        ("Run", f"{run.metadata.namespace}/{run.metadata.name}"),
        ("Runs", _listed(names, count) if names else None),
        ("Started by", starter),
        ("Duration", _duration(run.status.duration_seconds)),
        ("Attempt", "{} of {}".format(*attempts) if attempts else None),
        ("Cell", f"{cell.index}: {cell.source}" if cell else None),
        ("Exception", f"{raised.name}: {raised.message}" if raised else None),
    ]
    return tuple((name, one_line(value)) for name, value in said if value)


def _attempts(run: Run) -> tuple[int, int] | None:
    """Return the number of the last attempt, and of those that there might have been."""
    if not run.status.attempts:
        return None
    retries = run.status.snapshot.retries if run.status.snapshot else None
    number = run.status.attempts[-1].number
    # Disruptions come on top of the attempts that the user allows.
    return number, max(number, 1 + (retries.limit if retries else 0))


def _duration(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "0 s"


def _listed(names: Sequence[str], count: int) -> str:
    more = count - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _tail(lines: Sequence[str]) -> tuple[str, ...]:
    """Keep the last lines, as long as they are short enough together."""
    kept: list[str] = []
    room = TAIL_LIMIT
    for line in reversed([clean(line[: 4 * LINE_LIMIT]).rstrip() for line in lines]):
        short = cut(line.expandtabs(4), 200)
        room -= len(short) + 1
        if room < 0 or len(kept) == TAIL_LINES:
            break
        kept.append(short)
    return tuple(reversed(kept))


def _document(run: Run, event: Event, reason: str, starter: str) -> dict[str, Any]:
    status, attempts = run.status, _attempts(run)
    summary = next((c.message for c in status.conditions if c.type == "Succeeded"), "")
    failure = status.failure
    cell, raised = (failure.cell, failure.exception) if failure else (None, None)
    return {
        "event": event,
        "namespace": run.metadata.namespace,
        "workflow": _workflow(run),
        "run": run.metadata.name,
        "uid": run.metadata.uid,
        "phase": status.phase,
        "reason": reason,
        "message": one_line(summary, 2 * LINE_LIMIT),
        "startedBy": starter,
        "startTime": status.start_time,
        "completionTime": status.completion_time,
        "durationSeconds": status.duration_seconds,
        "attempt": attempts[0] if attempts else None,
        "attempts": attempts[1] if attempts else None,
        "cell": {"index": cell.index, "source": one_line(cell.source)} if cell else None,
        "exception": {"name": one_line(raised.name), "message": one_line(raised.message)}
        if raised
        else None,
        "outputs": status.outputs.wire() if status.outputs else None,
    }
