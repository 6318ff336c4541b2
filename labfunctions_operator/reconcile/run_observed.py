"""What exists around a Run, as its reconciler is shown it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.run import Phase, Progress, Run
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.desired.run_job import Grant
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.notify import Outcome
from labfunctions_operator.reconcile.pods import PodEvent, Waiting
from labfunctions_operator.reconcile.source import SourceSnapshot

Object = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunObserved:
    """What exists around a Run.

    Attributes:
        workflow: The Workflow it names; InvalidSpec where that cannot be read.
        project: The Project of Workflow or Run.
        source: The project's source as last read, if it was.
        ahead: The live Run of the schedule that comes before this one, if one does.
        node_group: The NodeGroup that Run, Workflow or Project name.
        origin: The Run that this one repeats, if it does.
        hindrance: Why the Job of the next attempt could not be made just now.
        refusal: Why the Job gets no pod, in the words of who refuses it.
        jobs: Jobs with the names of its attempts, whoever owns them.
        pods: Pods of those Jobs.
        progress: The courier's last report.
        grant: What the next attempt's courier may do; None while none is due.
        source_pending: Whether the source is being read for the first time.
        event: How far the start of the last pod has come, where that was asked.
        asking: Whether refusal or event are just being asked for.
        node_silent: Whether the last pod's node is gone, or does not report any more.
        before: How the Workflow's last Run before this one ended.
        outcomes: What became of messages about a Run that has ended, by their place in its status.
    """

    workflow: Workflow | InvalidSpec | None = None
    project: Project | InvalidSpec | None = None
    source: SourceSnapshot | None = None
    ahead: str | None = None
    node_group: NodeGroup | InvalidSpec | None = None
    origin: Run | InvalidSpec | None = None
    hindrance: Waiting | None = None
    refusal: str | None = None
    jobs: Sequence[Object] = field(default=())
    pods: Sequence[Object] = field(default=())
    progress: Progress | None = None
    grant: Grant | None = None
    source_pending: bool = False
    event: PodEvent | None = None
    asking: bool = False
    node_silent: bool = False
    before: Phase | None = None
    outcomes: Mapping[int, Outcome] = field(default_factory=dict)
