"""Every metric of the operator: its name, type, labels and meaning. docs/metrics.md shows this."""

from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

WORKFLOW_LIMIT = 500
PROJECT_LIMIT = 500
OTHER = "_other"


@dataclass(frozen=True)
class Definition:
    """One metric; buckets are upper bounds in the metric's unit."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()

    def make(self, registry: CollectorRegistry) -> Counter | Histogram:
        """Return the counter or histogram of what this process does."""
        if self.type == "counter":
            return Counter(self.name, self.help, self.labels, registry=registry)
        return Histogram(self.name, self.help, self.labels, buckets=self.buckets, registry=registry)

    def family(self) -> CounterMetricFamily | GaugeMetricFamily:
        """Return the counter or gauge without samples, to be filled at a scrape."""
        make = CounterMetricFamily if self.type == "counter" else GaugeMetricFamily
        return make(self.name, self.help, labels=self.labels)


_OF_WORKFLOW = ("namespace", "workflow")

RUNS_ENDED = Definition(
    "labfunctions_runs_ended_total",
    "counter",
    (*_OF_WORKFLOW, "result"),
    "Runs that ended, by result: Succeeded, Failed or Cancelled.",
)
RUN_FAILURES = Definition(
    "labfunctions_run_failures_total",
    "counter",
    (*_OF_WORKFLOW, "reason"),
    "Runs that failed, by failure.reason; what a notebook's image makes up counts as _other.",
)
RUN_ATTEMPTS = Definition(
    "labfunctions_run_attempts_total",
    "counter",
    (*_OF_WORKFLOW, "reason"),
    "Attempts that ended, by the reason on record; more than Runs where there were retries.",
)
RUN_DURATION = Definition(
    "labfunctions_run_duration_seconds",
    "histogram",
    _OF_WORKFLOW,
    "Time from the start of a Run's first notebook to the Run's end.",
    (10, 30, 60, 120, 300, 600, 1800, 3600, 10800, 21600, 43200, 86400),
)
RUN_QUEUED = Definition(
    "labfunctions_run_queued_seconds",
    "histogram",
    _OF_WORKFLOW,
    "Time from a Run's creation to the start of its notebook.",
    (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
)
RUNS = Definition(
    "labfunctions_runs",
    "gauge",
    (*_OF_WORKFLOW, "node_group", "phase"),
    "Runs that have not ended, by phase: Pending, Building, Queued, Starting or Running.",
)
RUNS_WAITING_SINCE = Definition(
    "labfunctions_runs_waiting_since_timestamp_seconds",
    "gauge",
    ("namespace", "node_group"),
    "Creation of the oldest Run whose notebook has not started yet; absent where none waits.",
)
WORKFLOW_LAST_RUN_SUCCEEDED = Definition(
    "labfunctions_workflow_last_run_succeeded",
    "gauge",
    _OF_WORKFLOW,
    "1 if the last Run that ended has succeeded, 0 if it failed; cancelled Runs do not count.",
)
WORKFLOW_LAST_SUCCESS = Definition(
    "labfunctions_workflow_last_success_timestamp_seconds",
    "gauge",
    _OF_WORKFLOW,
    "End of the last Run that succeeded; absent where none has.",
)
WORKFLOW_LAST_SCHEDULE = Definition(
    "labfunctions_workflow_last_schedule_timestamp_seconds",
    "gauge",
    _OF_WORKFLOW,
    "The last time for which the schedule made a Run.",
)
WORKFLOW_NEXT_SCHEDULE = Definition(
    "labfunctions_workflow_next_schedule_timestamp_seconds",
    "gauge",
    _OF_WORKFLOW,
    "When the schedule makes its next Run, jitter included.",
)
WORKFLOW_SCHEDULE_LAG = Definition(
    "labfunctions_workflow_schedule_lag_seconds",
    "gauge",
    _OF_WORKFLOW,
    "How long the next Run has been due without being made; 0 while all is in time, or while "
    "a live Run holds the CronJob of a Workflow with concurrencyPolicy Forbid back.",
)
WORKFLOW_MISSED = Definition(
    "labfunctions_workflow_missed_schedules",
    "gauge",
    _OF_WORKFLOW,
    "Scheduled times for which no Run was made, as counted in the Workflow's status.",
)
BUILDS = Definition(
    "labfunctions_builds_total",
    "counter",
    ("namespace", "project", "result"),
    "Image builds that ended, by result: Succeeded or Failed.",
)
BUILD_DURATION = Definition(
    "labfunctions_build_duration_seconds",
    "histogram",
    ("namespace", "project"),
    "Time from the creation of a build's Job to its end.",
    (10, 30, 60, 120, 300, 600, 1200, 1800, 3600),
)
PROJECT_IMAGES = Definition(
    "labfunctions_project_images",
    "gauge",
    ("namespace", "project", "phase"),
    "Images of a Project, by phase: Pending, Building, Ready or Failed.",
)
SOURCE_READS = Definition(
    "labfunctions_source_reads_total",
    "counter",
    ("namespace", "result"),
    "Readings of Projects' sources, by result: Succeeded, or the reason why it failed.",
)
SOURCE_READ_DURATION = Definition(
    "labfunctions_source_read_duration_seconds",
    "histogram",
    (),
    "Time that a reading of a source took.",
    (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
NODE_GROUP_NODES = Definition(
    "labfunctions_node_group_nodes",
    "gauge",
    ("node_group", "state"),
    "Nodes of a NodeGroup, as its status counts them: min, max, desired, ready, busy, idle.",
)
NODE_GROUP_PENDING = Definition(
    "labfunctions_node_group_pending_runs",
    "gauge",
    ("node_group",),
    "Runs that wait for a node of a NodeGroup.",
)
NODE_GROUP_WRITES = Definition(
    "labfunctions_node_group_writes_total",
    "counter",
    ("node_group", "result"),
    "Changes of a NodeGroup's size asked of its provider, by result: Succeeded or Failed.",
)
NOTIFICATIONS = Definition(
    "labfunctions_notifications_total",
    "counter",
    ("namespace", "event", "type", "result"),
    "Notifications that ended, by event, type of target, and result: Sent or Failed.",
)
EVENTS = Definition(
    "labfunctions_events_total",
    "counter",
    ("result",),
    "Kubernetes Events, by result: Recorded, Repeated (counted up), Limited (too many) or Failed.",
)
RECONCILES = Definition(
    "labfunctions_reconciles_total",
    "counter",
    ("kind", "result"),
    "Reconciliations, by result: Succeeded, or the class of the error.",
)
RECONCILE_DURATION = Definition(
    "labfunctions_reconcile_duration_seconds",
    "histogram",
    ("kind",),
    "Time that a reconciliation took, requests to the API server included.",
    (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
QUEUE_DEPTH = Definition(
    "labfunctions_queue_depth", "gauge", (), "Objects that are due to be reconciled."
)
QUEUE_LATER = Definition(
    "labfunctions_queue_later", "gauge", (), "Objects that are to be reconciled at a later time."
)
QUEUE_OLDEST = Definition(
    "labfunctions_queue_oldest_seconds",
    "gauge",
    (),
    "How long the object that has been due the longest waits; 0 while none does.",
)
OBJECTS = Definition("labfunctions_objects", "gauge", ("kind",), "Objects that the operator holds.")
API_REQUESTS = Definition(
    "labfunctions_api_requests_total",
    "counter",
    ("verb", "code"),
    "Requests to the API server, by HTTP code, 0 without an answer; kopf's watches are not here.",
)
INFO = Definition("labfunctions_operator_info", "gauge", ("version",), "1 while the operator runs.")

CATALOG = tuple(value for value in list(globals().values()) if isinstance(value, Definition))
# Read at a scrape from what is there, or from who counts it; all others are counted here.
COLLECTED = frozenset(d for d in CATALOG if d.type == "gauge") | {API_REQUESTS}
