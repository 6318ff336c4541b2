"""Asks the API server, for one Run, what its Job and pod do not tell: only when something is slow.

Each answer explains or hastens; none is needed for a Run to go on.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from labfunctions_operator.api.times import parse_time
from labfunctions_operator.controllers.event_reader import EventReader, Question
from labfunctions_operator.controllers.world import Object
from labfunctions_operator.desired.run_pod import NOTEBOOK
from labfunctions_operator.errors import Denied, NotFound, Transient
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.reconcile.plan import Key
from labfunctions_operator.reconcile.pods import PodEvent, is_over, pod_condition, starts_slowly
from labfunctions_operator.reconcile.timing import START_GRACE
from labfunctions_operator.reconcile.verdict import LOST_AFTER, asked_to_end

# A pod whose image is on its node runs by then.
SLOW_START = timedelta(seconds=8)
_TELLING = ("FailedMount", "FailedAttachVolume", "Pulling", "Pulled", "Created", "Started")


class Inquiry:
    """Asks about the Jobs and pods of Runs.

    Args:
        client: Asks for Nodes.
        events: Asks for Events.
        clock: The time now.
    """

    def __init__(
        self, client: KubeClient, events: EventReader, clock: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._events = events
        self._clock = clock

    def refusal(self, run: Key, jobs: Sequence[Object]) -> tuple[str | None, bool]:
        """Say why a Job gets no pod: quota, admission or limits are said in an Event only.

        Returns:
            The words of who refuses it, if it is known to be refused, and whether that is still
            being asked.
        """
        job = _newest(jobs)
        grown = self._age(job) - START_GRACE
        if grown < timedelta(0) or job["spec"].get("suspend"):
            return None, False
        events = self._events.read(
            run,
            Question(run.namespace, "involvedObject.kind=Job,reason=FailedCreate"),
            job["metadata"]["uid"],
            oldest=grown.total_seconds(),
        )
        return (str(events[-1].get("message", "")) if events else None), events is None

    def start_event(self, run: Key, pods: Sequence[Object]) -> tuple[PodEvent | None, bool]:
        """Say how far the start of the last pod has come, if that takes long.

        Returns:
            The last Event that tells it, and whether that is still being asked.
        """
        pod = _newest(pods)
        if self._age(pod) < SLOW_START or not starts_slowly(pod, NOTEBOOK):
            return None, False
        uid = pod["metadata"]["uid"]
        selector = f"involvedObject.uid={uid},involvedObject.kind=Pod"
        events = self._events.read(run, Question(run.namespace, selector), uid)
        if events is None:
            return None, True
        telling = [e for e in events if e.get("reason") in _TELLING]
        if not telling:
            return None, False
        last = max(telling, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime")))
        event = PodEvent(
            reason=str(last["reason"]),
            message=str(last.get("message", "")),
            failing_since=_failing_since(pod, events),
        )
        return event, False

    async def node_is_silent(self, pods: Sequence[Object]) -> bool:
        """Say whether a pod that must end and has not is on a node that is gone or silent."""
        pod = _newest(pods)
        asked = asked_to_end(pod)
        node = pod["spec"].get("nodeName")
        if asked is None or node is None or is_over(pod) or self._clock() - asked < LOST_AFTER:
            return False
        try:
            found = await self._client.get("v1", "Node", "", node)
        except NotFound:
            return True
        except (Transient, Denied):
            return False
        # Kubernetes says Unknown of a node that has stopped to report; one in trouble says False.
        return pod_condition(found, "Ready").get("status") == "Unknown"

    def _age(self, obj: Object) -> timedelta:
        return self._clock() - parse_time(obj["metadata"]["creationTimestamp"])


def _failing_since(pod: Object, events: Sequence[Object]) -> str | None:
    """Say when a start was first said to fail, once the pod had its node."""
    placed = pod_condition(pod, "PodScheduled").get("lastTransitionTime")
    warned = [
        e.get("firstTimestamp") or e.get("eventTime") for e in events if e.get("type") == "Warning"
    ]
    times = [t for t in warned if t and placed and parse_time(t) >= parse_time(placed)]
    return min(times, key=parse_time, default=None)


def _newest(objects: Sequence[Object]) -> Object:
    return max(objects, key=lambda o: str(o["metadata"].get("creationTimestamp")))
