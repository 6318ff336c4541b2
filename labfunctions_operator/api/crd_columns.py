"""The columns that `kubectl get` shows of each kind."""

from typing import NamedTuple

_READY = '.status.conditions[?(@.type=="Ready")]'
_SUCCEEDED = '.status.conditions[?(@.type=="Succeeded")]'
_SCHEDULED = '.status.conditions[?(@.type=="Scheduled")]'
_LAST_RUN = '.status.conditions[?(@.type=="LastRunSucceeded")]'


class Column(NamedTuple):
    """One column.

    Attributes:
        name: Its head.
        path: Where its value is, as JSONPath.
        type: How the value is printed.
        wide: Whether `-o wide` is needed to see it.
    """

    name: str
    path: str
    type: str = "string"
    wide: bool = False


_AGE = Column("Age", ".metadata.creationTimestamp", "date")

PROJECT_COLUMNS = [
    Column("Ready", f"{_READY}.status"),
    Column("Reason", f"{_READY}.reason"),
    Column("Ref", ".status.source.ref"),
    _AGE,
    Column("Message", f"{_READY}.message"),
    Column("Commit", ".status.source.commit", wide=True),
]
WORKFLOW_COLUMNS = [
    Column("Schedule", ".spec.schedule"),
    Column("Ready", f"{_READY}.status"),
    Column("Scheduled", f"{_SCHEDULED}.reason"),
    Column("Last", ".status.lastScheduleTime", "date"),
    Column("Result", ".status.lastRun.phase"),
    # As text: kubectl shows a date that lies ahead as invalid.
    Column("Next", ".status.nextScheduleTime"),
    _AGE,
    Column("Message", f"{_READY}.message"),
    Column("Project", ".spec.projectRef.name", wide=True),
    Column("Notebook", ".spec.notebook", wide=True),
    Column("Interval", ".spec.interval", wide=True),
    Column("Missed", ".status.missed", "integer", wide=True),
    Column("Schedule message", f"{_SCHEDULED}.message", wide=True),
    Column("Last message", f"{_LAST_RUN}.message", wide=True),
]
BACKFILL_COLUMNS = [
    Column("Workflow", ".spec.workflowRef.name"),
    Column("Phase", ".status.phase"),
    Column("Done", ".status.progress"),
    Column("Failed", ".status.failed", "integer"),
    _AGE,
    Column("Message", f"{_SUCCEEDED}.message"),
    Column("From", ".spec.from", wide=True),
    Column("To", ".spec.to", wide=True),
]
RUN_COLUMNS = [
    Column("Workflow", ".spec.workflowRef.name"),
    Column("Phase", ".status.phase"),
    Column("Progress", ".status.progress.summary"),
    Column("Reason", f"{_SUCCEEDED}.reason"),
    Column("Seconds", ".status.durationSeconds", "integer"),
    _AGE,
    Column("Message", f"{_SUCCEEDED}.message"),
]
NODE_GROUP_COLUMNS = [
    Column("Status", f"{_READY}.reason"),
    Column("Provider", ".status.provider"),
    Column("Min", ".status.min", "integer"),
    Column("Max", ".status.max", "integer"),
    Column("Desired", ".status.desired", "integer"),
    Column("Ready", ".status.ready", "integer"),
    Column("Busy", ".status.busy", "integer"),
    Column("Idle", ".status.idle", "integer"),
    Column("Pending", ".status.pendingRuns", "integer"),
    _AGE,
    Column("Why", f"{_READY}.message"),
]
