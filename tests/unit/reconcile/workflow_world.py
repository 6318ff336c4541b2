"""A scheduled Workflow in a cluster in memory: its Runs, a clock, and operators that die."""

import json
from collections import Counter
from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any

from crd_schema import status_errors
from objects import NOW, Object, make_object, make_source
from run_world import ready_project
from settling import Settling

from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.reconcile.ledger import is_counted
from labfunctions_operator.reconcile.notify import Outcome
from labfunctions_operator.reconcile.plan import Event, Plan
from labfunctions_operator.reconcile.scheduled_run import scheduled_run
from labfunctions_operator.reconcile.workflow import WorkflowObserved, reconcile_workflow

MINUTELY = "* * * * *"


class Died(Exception):
    """The operator was killed."""


class WorkflowWorld(Settling):
    """One Workflow.

    Attributes:
        now: The operator's clock; the API server has the same.
        made: How often a Run of a name was created, whatever became of it.
        ended: How many Runs of each phase have ended.
        writes: `create x`, `cancel x`, `delete x`, `status`.
        lives: Writes until the operator dies; None for never.
        outcomes: What became of messages, by their marks.
        edited: When the API server took in the last edit.
    """

    def __init__(self, now: datetime = NOW, **spec: Any) -> None:
        self.now = now
        self.runs: dict[str, Object] = {}
        self.made: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.writes: list[str] = []
        self.events: list[Event] = []
        self.lives: int | None = None
        self.outcomes: dict[str, Outcome] = {}
        self.edited: datetime | None = None
        self.project = ready_project()
        self.incarnation = 0
        self.spec = {"projectRef": {"name": "demo"}, "notebook": "analysis.ipynb", **spec}
        self.recreate()

    def recreate(self) -> None:
        """Delete the Workflow, with its Runs, and create it again."""
        self.incarnation += 1
        meta = {"uid": f"uid-{self.incarnation}", "creationTimestamp": rfc3339(self.now)}
        self.obj = make_object("Workflow", "report", self.spec, **meta)
        self.runs.clear()
        self.ended.clear()

    def edit(self, **spec: Any) -> None:
        self.spec = {k: v for k, v in {**self.spec, **spec}.items() if v is not None}
        meta = {**self.obj["metadata"], "generation": self.obj["metadata"]["generation"] + 1}
        self.obj = {**self.obj, "metadata": meta, "spec": deepcopy(self.spec)}
        self.edited = self.now

    @property
    def workflow(self) -> Workflow:
        return parse(Workflow, self.obj)

    @property
    def status(self) -> Object:
        status: Object = self.obj.get("status") or {}
        return status

    def condition(self, type: str) -> tuple[str, str, str]:
        [found] = [c for c in self.status["conditions"] if c["type"] == type]
        return found["status"], found["reason"], found["message"]

    @property
    def live(self) -> list[str]:
        return [n for n, r in self.runs.items() if not r.get("status", {}).get("completionTime")]

    def decide(self) -> Plan:
        runs = [run for run in map(scheduled_run, self.runs.values()) if run]
        seen = WorkflowObserved(
            project=self.project,
            source=make_source(),
            runs=runs,
            outcomes=self.outcomes,
            edited=self.edited,
        )
        return reconcile_workflow(self.workflow, seen, self.now)

    def step(self) -> Plan:
        plan = self.decide()
        self.execute(plan)
        return plan

    def execute(self, plan: Plan) -> None:
        for ref in plan.delete:
            self._write(f"delete {ref.name}")
            assert self.runs[ref.name]["metadata"]["uid"] == ref.uid
            del self.runs[ref.name]
        for manifest in plan.apply:
            self._create(json.loads(json.dumps(manifest)))
        for ref in plan.cancel:
            self._write(f"cancel {ref.name}")
            self.runs[ref.name]["spec"]["cancel"] = True
        status = json.loads(json.dumps(plan.status))
        if status != self.status:
            assert status_errors("Workflow", status) == []
            self._write("status")
            self.obj = {**self.obj, "status": status}
            self.events += plan.events

    def _create(self, run: Object) -> None:
        name = run["metadata"]["name"]
        if name in self.runs:
            return
        self._write(f"create {name}")
        run["metadata"] |= {"uid": f"{name} {self.now}", "creationTimestamp": rfc3339(self.now)}
        self.runs[name] = run
        self.made[name] += 1

    def _write(self, what: str) -> None:
        if self.lives is not None:
            if self.lives == 0:
                self.lives = None
                raise Died
            self.lives -= 1
        self.writes.append(what)

    def end(self, name: str, phase: str = "Succeeded", *, recorded: bool = True) -> None:
        reason = phase if phase != "Failed" else "NotebookError"
        condition = {"type": "Succeeded", "reason": reason, "message": f"it is {phase}"}
        self.runs[name]["status"] = {
            "phase": phase,
            "completionTime": rfc3339(self.now),
            "conditions": [condition],
        }
        self.record(name, recorded)
        self.ended[phase] += 1

    def record(self, name: str, stored: bool = True) -> None:
        """Say whether the record of a Run that has ended is in the store."""
        conditions = self.runs[name]["status"]["conditions"]
        conditions[1:] = [{"type": "Recorded", "status": str(stored), "reason": "R", "message": ""}]

    def forget(self, name: str) -> bool:
        """Delete a Run as history does: only one that has ended and was counted."""
        run = scheduled_run(self.runs[name])
        assert run
        if run.is_live or not is_counted(run, self.workflow.status):
            return False
        del self.runs[name]
        return True

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def minute(tick: datetime, name: str = "report") -> str:
    return f"{name}-{int(tick.timestamp()) // 60}"


def scheduled(seconds: float = 30, **spec: Any) -> WorkflowWorld:
    """A Workflow that was created half a minute before 12:00 and has been looked at."""
    spec = spec if "interval" in spec else {"schedule": MINUTELY, **spec}
    world = WorkflowWorld(now=NOW - timedelta(seconds=seconds), **spec)
    world.settle()
    return world
