"""What a notification says, before it is written for a medium."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labfunctions_operator.api import labels
from labfunctions_operator.api.notification import Event
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.workflow import Workflow

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
        expires: Until when the address works, for a person; None is for ever.
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
    links: Sequence[Link] = (),
    tail: Sequence[str] = (),
    runs: Sequence[str] = (),
    count: int = 1,
) -> Message:
    """Say how a Run ended.

    Args:
        run: It, or the first of several that failed alike.
        event: As what it is told.
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
    facts = _facts(run, names, count)
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
        document=_document(run, event, reason) | {"output": list(lines), "count": count},
    )


def missed_message(workflow: Workflow, *, due: str, count: int, reason: str) -> Message:
    """Say that a Workflow's schedule missed ticks.

    Args:
        workflow: Whose.
        due: When the last of them was due, RFC 3339.
        count: How many were missed.
        reason: Why, in one line.
    """
    meta = workflow.metadata
    many = f"{count} times" if count > 1 else "once"
    summary = f"not started {many}, last due {due}: {reason}"
    return Message(
        id=f"{meta.uid}.missed.{due}",
        event="Missed",
        namespace=meta.namespace,
        workflow=meta.name,
        run=None,
        time=due,
        title=_title(meta.name, "Missed", "", count),
        summary=one_line(summary, 2 * LINE_LIMIT),
        facts=(("Workflow", f"{meta.namespace}/{meta.name}"), ("Due", due)),
        count=count,
        document={
            "event": "Missed",
            "namespace": meta.namespace,
            "workflow": meta.name,
            "due": due,
            "count": count,
            "message": one_line(reason),
        },
    )


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


def _facts(run: Run, names: Sequence[str], count: int) -> tuple[tuple[str, str], ...]:
    failure = run.status.failure
    cell, raised = (failure.cell, failure.exception) if failure else (None, None)
    workflow = _workflow(run)
    said = [
        ("Workflow", f"{run.metadata.namespace}/{workflow}" if workflow else None),
        ("Run", f"{run.metadata.namespace}/{run.metadata.name}"),
        ("Runs", _listed(names, count) if names else None),
        ("Started by", started_by(run)),
        ("Duration", _duration(run.status.duration_seconds)),
        ("Attempt", _attempt(run)),
        ("Cell", f"{cell.index}: {cell.source}" if cell else None),
        ("Exception", f"{raised.name}: {raised.message}" if raised else None),
    ]
    return tuple((name, one_line(value)) for name, value in said if value)


def started_by(run: Run) -> str:
    """Say who or what made a Run, as far as the object tells."""
    if due := run.metadata.annotations.get(labels.SCHEDULED_AT_ANNOTATION):
        return f"the schedule, for {due}"
    if run.spec.from_run:
        return f"a repeat of {run.spec.from_run}"
    return "request"


def _attempt(run: Run) -> str | None:
    if not run.status.attempts:
        return None
    retries = run.status.snapshot.retries if run.status.snapshot else None
    number = run.status.attempts[-1].number
    # Disruptions come on top of the attempts that the user allows.
    return f"{number} of {max(number, 1 + (retries.limit if retries else 0))}"


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


def _document(run: Run, event: Event, reason: str) -> dict[str, Any]:
    status = run.status
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
        "startedBy": one_line(started_by(run)),
        "startTime": status.start_time,
        "completionTime": status.completion_time,
        "durationSeconds": status.duration_seconds,
        "attempt": status.attempts[-1].number if status.attempts else None,
        "cell": {"index": cell.index, "source": one_line(cell.source)} if cell else None,
        "exception": {"name": one_line(raised.name), "message": one_line(raised.message)}
        if raised
        else None,
        "outputs": status.outputs.wire() if status.outputs else None,
    }
