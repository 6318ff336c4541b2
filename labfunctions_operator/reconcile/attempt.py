"""The attempts of a Run: which is the last one, and what is on record of each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from labfunctions_operator.api import labels
from labfunctions_operator.api.run import Attempt, Outputs, Run, Snapshot
from labfunctions_operator.api.types import Model
from labfunctions_operator.desired.run_job import QUEUE_LABEL
from labfunctions_operator.desired.run_pod import NOTEBOOK
from labfunctions_operator.reconcile.jobs import is_ending
from labfunctions_operator.reconcile.pods import PodEvent, image_by_digest
from labfunctions_operator.reconcile.verdict import Verdict, notebook_started

Object = Mapping[str, Any]
M = TypeVar("M", bound=Model)


@dataclass(frozen=True, kw_only=True)
class Current:
    """The last attempt, as far as it exists.

    Attributes:
        job: Its Job; None before the first one, and once it is deleted.
        pod: The Job's pod, which may outlive the Job for as long as it takes to end.
        rows: What status says of all attempts, this one brought up to date.
        snapshot: What the Run was started with.
        outputs: Where this attempt's files will lie.
        event: How far the pod's start has come, where that was asked.
        node_silent: Whether the pod's node is gone, or does not report any more.
    """

    job: Object | None
    pod: Object | None
    rows: tuple[Attempt, ...]
    snapshot: Snapshot | None
    outputs: Outputs | None
    event: PodEvent | None = None
    node_silent: bool = False

    @property
    def stopping(self) -> str | None:
        """Why the operator is stopping this attempt, if it is."""
        last = self.rows[-1] if self.rows else None
        return last.reason if last and last.reason and not last.finish_time else None

    @property
    def has_ended(self) -> bool:
        """Whether the end of this attempt is on record."""
        return bool(self.rows) and self.rows[-1].finish_time is not None


def find_current(run: Run, jobs: Sequence[Object], pods: Sequence[Object]) -> Current:
    """Find the last attempt among the Jobs and pods with this Run's name."""
    number = run.status.attempts[-1].number if run.status.attempts else 0
    mine = [job for job in jobs if is_owned_by(job, run.metadata.uid)]
    # An earlier attempt's Job is still there when the last one's was deleted by somebody.
    job = _newest(job for job in mine if _attempt_of(job) >= number)
    if job is None:
        return Current(
            job=None,
            pod=_newest(p for p in pods if _attempt_of(p) == number),
            rows=tuple(run.status.attempts),
            snapshot=run.status.snapshot,
            outputs=run.status.outputs,
        )
    mine = [p for p in pods if is_owned_by(p, job["metadata"]["uid"])]
    pod = _newest(p for p in mine if not _was_taken_back(p, job))
    return Current(
        job=job,
        pod=pod,
        rows=_rows(run, job, pod),
        snapshot=_annotated(Snapshot, job, labels.SNAPSHOT_ANNOTATION, run.status.snapshot),
        outputs=_annotated(Outputs, job, labels.OUTPUTS_ANNOTATION, run.status.outputs),
    )


def _was_taken_back(pod: Object, job: Object) -> bool:
    """Whether a pod ends because Kueue suspended its Job, which says nothing of the Job's end.

    A pod that is deleted for another reason makes the Job fail at once: it has no retries.
    """
    if QUEUE_LABEL not in job["metadata"].get("labels", {}):
        return False
    return "deletionTimestamp" in pod["metadata"] and not is_ending(job)


def _annotated(model: type[M], job: Object, annotation: str, known: M | None) -> M | None:
    """Read what a Job was started with; where someone has removed it, what status says."""
    try:
        return model.model_validate_json(job["metadata"]["annotations"][annotation])
    except (KeyError, TypeError, ValueError):
        return known


def with_end(rows: Sequence[Attempt], verdict: Verdict, outputs: Outputs | None) -> list[Attempt]:
    """Record how the last attempt ended."""
    if not rows:
        return []
    last = rows[-1].but(
        finish_time=verdict.finished,
        reason=verdict.reason,
        notebook=outputs.notebook if outputs else None,
    )
    return [*rows[:-1], last]


def next_number(run: Run, jobs: Sequence[Object]) -> int:
    """Return the number of the attempt that would come next."""
    known = [a.number for a in run.status.attempts]
    known += [_attempt_of(j) for j in jobs if is_owned_by(j, run.metadata.uid)]
    return max(known, default=0) + 1


def snapshot_of_live(run: Run, current: Current, number: int) -> Snapshot | None:
    """Return what an attempt runs; None if it is over, or was never made."""
    last = current.rows[-1] if current.rows else None
    if run.is_finished or current.has_ended or last is None or last.number != number:
        return None
    return current.snapshot


def unrecorded(run: Run, jobs: Sequence[Object]) -> list[Object]:
    """Return the Jobs of attempts that come after all those on record."""
    last = max((a.number for a in run.status.attempts), default=0)
    mine = [j for j in jobs if is_owned_by(j, run.metadata.uid) and _attempt_of(j) > last]
    return [j for j in mine if "deletionTimestamp" not in j["metadata"]]


def as_ran(snapshot: Snapshot, attempts: Sequence[Attempt]) -> Snapshot:
    """Return what a Run was started with, and the image that ran: a tag may name another by now."""
    ran = next((a.image for a in reversed(attempts) if a.image), snapshot.image)
    return snapshot.but(image=ran)


def is_owned_by(obj: Object, uid: str) -> bool:
    """Whether an object names the owner with this uid."""
    return any(o.get("uid") == uid for o in obj["metadata"].get("ownerReferences", []))


def _rows(run: Run, job: Object, pod: Object | None) -> tuple[Attempt, ...]:
    number = _attempt_of(job)
    earlier = [a for a in run.status.attempts if a.number < number]
    known = next((a for a in run.status.attempts if a.number == number), None)
    row = known or Attempt(number=number, job=job["metadata"]["name"], memory=_memory(job))
    if pod:
        row = row.but(
            pod=pod["metadata"]["name"],
            node=pod.get("spec", {}).get("nodeName") or row.node,
            start_time=notebook_started(pod) or row.start_time,
            image=image_by_digest(pod, NOTEBOOK, _notebook(job).get("image", "")) or row.image,
        )
    return (*earlier, row)


def _memory(job: Object) -> str | None:
    limits = _notebook(job).get("resources", {}).get("limits")
    memory = limits.get("memory") if isinstance(limits, Mapping) else None
    return str(memory) if memory else None


def _notebook(job: Object) -> Object:
    containers = job["spec"]["template"]["spec"].get("containers", [])
    return next((c for c in containers if c["name"] == NOTEBOOK), {})


def _attempt_of(obj: Object) -> int:
    text = obj["metadata"].get("labels", {}).get(labels.ATTEMPT, "")
    return int(text) if text.isdigit() else 0


def _newest(objects: Iterable[Object]) -> Object | None:
    return max(
        objects,
        key=lambda o: (_attempt_of(o), o["metadata"].get("creationTimestamp") or ""),
        default=None,
    )
