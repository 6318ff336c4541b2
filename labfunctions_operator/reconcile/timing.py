"""How long a Run may wait, when to look at it again, and how often to say how far it is."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from labfunctions_operator.api.run import Progress, Run
from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.reconcile.attempt import Current
from labfunctions_operator.reconcile.pods import Waiting, is_over, pod_condition
from labfunctions_operator.reconcile.verdict import lost_in

# A pod that starts in this time goes from nothing to Running in one write.
START_GRACE = timedelta(seconds=4)
# How long a container may fail to start for a reason that someone can still mend.
START_PATIENCE = timedelta(minutes=5)
PROGRESS_INTERVAL = timedelta(seconds=60)
# How often to ask for the node of a pod that must end and does not.
NODE_INTERVAL = timedelta(seconds=30)


def pending_left(since: str | None, limit: int | None, now: datetime) -> float | None:
    """Return the seconds that may still pass before a notebook starts; None is for ever."""
    if limit is None or since is None:
        return None
    return (parse_time(since) + timedelta(seconds=limit) - now).total_seconds()


def pending_since(run: Run, current: Current) -> str | None:
    """Return since when the last attempt waits for its start; None while that is not known.

    One that ran already waits again since its Job was suspended, or else for its end to be seen.
    """
    job, row = current.job, current.rows[-1]
    assert job is not None
    if row.start_time is None:
        first = run.metadata.creation_timestamp
        return first if len(current.rows) == 1 else job["metadata"].get("creationTimestamp")
    suspended = pod_condition(job, "Suspended")
    is_told = suspended.get("status") == str(bool(job["spec"].get("suspend")))
    return suspended.get("lastTransitionTime") if is_told else None


def patience_left(why: Waiting, current: Current, now: datetime) -> float | None:
    """Return the seconds that a pod is still given for a start that fails; None is for ever.

    They count from the first failure, as pulling a large image may take longer than that; where no
    Event tells of it, from its place on a node.
    """
    pod = current.pod
    if pod is None or why.reason not in ("ImagePullFailed", "StartError"):
        return None
    failing = current.event.failing_since if current.event else None
    placed = pod_condition(pod, "PodScheduled").get("lastTransitionTime")
    since = failing or placed or pod["metadata"].get("creationTimestamp") or rfc3339(now)
    return (parse_time(since) + START_PATIENCE - now).total_seconds()


def look_again(why: Waiting, current: Current) -> float | None:
    """Say after how long to look at a wait of which no event of Job or pod tells the end."""
    if why.reason == "Queued":
        return None
    if why.reason in ("QuotaExceeded", "PodRefused"):
        return 30.0  # only the words may change: of a pod an event tells
    return 5.0 if current.pod is None else 10.0


def of_a_lost_node(current: Current, now: datetime) -> Iterator[float]:
    """Say when to look again at a pod that must end: a lost node tells of nothing."""
    left = lost_in(current.pod, now, node_silent=current.node_silent)
    if left is None or left <= 0 or (current.pod and is_over(current.pod)):
        return
    yield min(left, NODE_INTERVAL.total_seconds())


def of_this_pod(reported: Progress | None, current: Current) -> Progress | None:
    """Return a report unless it is from before the Job was suspended: a new kernel starts anew."""
    resumed = pod_condition(current.job or {}, "Suspended").get("lastTransitionTime")
    if reported and reported.time and resumed:
        return reported if parse_time(reported.time) >= parse_time(resumed) else None
    return reported


def throttled(
    run: Run, reported: Progress | None, now: datetime
) -> tuple[Progress | None, float | None]:
    """Keep progress writes at one a minute: what to show now, and when to look again."""
    shown = run.status.progress
    if reported is None or (shown and shown.but(time=None) == reported.but(time=None)):
        return shown, None
    if shown and shown.time:
        wait = parse_time(shown.time) + PROGRESS_INTERVAL - now
        if wait > timedelta(0):
            return shown, wait.total_seconds()
    return reported.but(time=rfc3339(now)), None
