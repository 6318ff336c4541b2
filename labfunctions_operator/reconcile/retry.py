"""Whether a failed attempt is worth another one, when, and with how much memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

from labfunctions_operator.api.quantity import format_bytes, parse_bytes
from labfunctions_operator.api.run import Attempt
from labfunctions_operator.api.times import parse_duration, parse_time
from labfunctions_operator.api.workflow import MemoryGrowth, Retries

DISRUPTED = "Disrupted"
OUT_OF_MEMORY = "OutOfMemory"
# What happens to a Run, rather than in it, is not the user's to count.
DISRUPTION_LIMIT = 5
DISRUPTION_DELAY = timedelta(seconds=10)

# The same again would end the same way.
NEVER = frozenset(
    {
        "ParametersInvalid",
        "NotebookNotFound",
        "NotebookInvalid",
        "RunnerMissing",
        "ImageBuildFailed",
        "InvalidSpec",
        "Cancelled",
    }
)


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Another attempt.

    Attributes:
        number: Of the attempt to come.
        at: When it may start.
        why: What it counts as, for the message: `retry 1 of 3` or `disruption 2 of 5`.
    """

    number: int
    at: datetime
    why: str


def next_attempt(
    ended: Sequence[Attempt],
    retries: Retries,
    now: datetime,
    *,
    resources: Mapping[str, Any] | None,
) -> Retry | None:
    """Say whether another attempt follows those that have ended, the last of which failed.

    Args:
        ended: All attempts so far, each with its reason; the last one failed.
        retries: What the user allows.
        now: Stands in for a finish time that nobody recorded.
        resources: What the last attempt had.
    """
    last = ended[-1]
    finished = parse_time(last.finish_time) if last.finish_time else now
    disruptions = sum(a.reason == DISRUPTED for a in ended)
    if last.reason == DISRUPTED:
        if disruptions > DISRUPTION_LIMIT:
            return None
        return Retry(
            number=last.number + 1,
            at=finished + _disruption_delay(ended),
            why=f"disruption {disruptions} of {DISRUPTION_LIMIT}",
        )
    failures = len(ended) - disruptions
    if failures > retries.limit or not _is_worth_it(last.reason or "", retries):
        return None
    if why_memory_stays(ended, retries, resources):
        return None
    return Retry(
        number=last.number + 1,
        at=finished + _delay(retries, failures),
        why=f"retry {failures} of {retries.limit}",
    )


def grown_resources(
    resources: Mapping[str, Any] | None, growth: MemoryGrowth | None, ended: Sequence[Attempt]
) -> dict[str, Any] | None:
    """Return the resources for the next attempt: more memory for each time it ran out.

    Limits and requests grow where they were given.
    """
    if resources is None:
        return None
    times = sum(a.reason == OUT_OF_MEMORY for a in ended)
    grown = dict(resources)
    if growth is None or not times:
        return grown
    for kind in ("limits", "requests"):
        amounts = grown.get(kind)
        if isinstance(amounts, Mapping) and amounts.get("memory"):
            memory = _grow(str(amounts["memory"]), growth, times)
            grown[kind] = {**amounts, "memory": memory}
    return grown


def why_memory_stays(
    ended: Sequence[Attempt], retries: Retries, resources: Mapping[str, Any] | None
) -> str | None:
    """Say why an attempt that ran out of memory cannot get more, if more was asked for."""
    growth = retries.memory
    if growth is None or ended[-1].reason != OUT_OF_MEMORY:
        return None
    if grown_resources(resources, growth, ended[-1:]) != resources:
        return None
    limits = (resources or {}).get("limits")
    memory = limits.get("memory") if isinstance(limits, Mapping) else None
    if not memory:
        return "no memory limit is given that could grow"
    return f"{memory} of memory cannot grow any more, as retries.memory.max is {growth.max}"


def _grow(memory: str, growth: MemoryGrowth, times: int) -> str:
    try:
        before = parse_bytes(memory)
    except ValueError:
        return memory  # a form of quantity that only the API server knows
    amount = min(int(before * growth.factor**times), parse_bytes(growth.max))
    return format_bytes(amount) if amount > before else memory


def _is_worth_it(reason: str, retries: Retries) -> bool:
    if reason in NEVER:
        return False
    if retries.on:
        return reason in retries.on
    return reason != OUT_OF_MEMORY or retries.memory is not None


def _disruption_delay(ended: Sequence[Attempt]) -> timedelta:
    """Wait twice as long each time that a pod is ended before it ran.

    One that tolerates every taint is sent again and again to a node that goes down and refuses it.
    """
    unstarted = takewhile(lambda a: a.reason == DISRUPTED and not a.start_time, reversed(ended))
    return DISRUPTION_DELAY * (1 << max(0, len(list(unstarted)) - 1))


def _delay(retries: Retries, failures: int) -> timedelta:
    backoff = retries.backoff
    first, cap = parse_duration(backoff.duration), parse_duration(backoff.cap)
    # In seconds: before it is capped, so long a wait may be more than a timedelta holds.
    seconds = first.total_seconds() * backoff.factor ** min(failures - 1, 32)
    return timedelta(seconds=min(seconds, cap.total_seconds()))
