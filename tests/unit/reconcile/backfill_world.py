"""A Backfill in a cluster in memory: its Runs, the store's records, and operators that die."""

import json
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from crd_schema import status_errors
from objects import NOW, Object, make_object
from settling import Settling
from workflow_world import Died

from labfunctions_operator.api.backfill import MAX_TICKS, Backfill
from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.backfill import (
    BackfillObserved,
    find_obstacle,
    reconcile_backfill,
)
from labfunctions_operator.reconcile.ledger import is_counted
from labfunctions_operator.reconcile.past import (
    Past,
    PastRun,
    find_records,
    find_ticks,
    latest,
    minute_of,
    read_run,
    tick_key,
)
from labfunctions_operator.reconcile.plan import Event, Plan, Problem
from labfunctions_operator.reconcile.scheduled_run import scheduled_run

FIRST = NOW - timedelta(hours=4)
SPEC = {
    "workflowRef": {"name": "report"},
    "from": rfc3339(FIRST),
    "to": rfc3339(FIRST + timedelta(hours=3)),
}


class Stale(Exception):
    """The Backfill has changed since it was decided on."""


class BackfillWorld(Settling):
    """A Backfill of an hourly Workflow: four ticks, four hours ago.

    Attributes:
        made: How often a Run of a name was created, whatever became of it.
        ended: How many Runs of each phase have ended.
        records: What the store has, by path within the Workflow's folder.
        past: What was read; None while that is under way.
        lives: Writes until the operator dies; None for never.
    """

    def __init__(self, workflow: Object | None = None, **spec: Any) -> None:
        self.now = NOW
        self.runs: dict[str, Object] = {}
        self.made: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.records: dict[str, Object] = {}
        self.writes: list[str] = []
        self.events: list[Event] = []
        self.lives: int | None = None
        self.past: Past | Problem | None = None
        self.namesake = False
        self.obj = make_object("Backfill", "again", {**SPEC, **spec}, resourceVersion="1")
        self.workflow: Object | None = make_object(
            "Workflow",
            "report",
            {
                "projectRef": {"name": "demo"},
                "notebook": "a.ipynb",
                **({"schedule": "0 * * * *"} if workflow is None else workflow),
            },
            {"schedule": {"hash": "h", "since": rfc3339(NOW)}},
        )

    @property
    def status(self) -> Object:
        status: Object = self.obj.get("status") or {}
        return status

    @property
    def condition(self) -> tuple[str, str, str]:
        [found] = self.status["conditions"]
        return found["status"], found["reason"], found["message"]

    @property
    def live(self) -> list[str]:
        return sorted(n for n, r in self.runs.items() if "completionTime" not in r["status"])

    def edit(self, **spec: Any) -> None:
        meta = {**self.obj["metadata"], "generation": self.obj["metadata"]["generation"] + 1}
        self.obj = {**self.obj, "metadata": meta, "spec": {**self.obj["spec"], **spec}}
        self._bump()

    def _bump(self) -> None:
        version = str(int(self.obj["metadata"]["resourceVersion"]) + 1)
        meta = {**self.obj["metadata"], "resourceVersion": version}
        self.obj = {**self.obj, "metadata": meta}

    def read(self) -> None:
        """Find out what has run already, as the operator does once in its life."""
        backfill, workflow = parse(Backfill, self.obj), self._workflow()
        assert isinstance(workflow, Workflow)
        ticks = find_ticks(workflow, backfill.spec)
        runs: dict[int, PastRun] = {}
        if len(ticks) <= MAX_TICKS and backfill.spec.reprocess != "All":
            found = find_records(self.records, ticks).items()
            stored = [(minute, read_run(self.records[path])) for path, minute in found]
            held = [(k[1], read_run(o)) for o in self.runs.values() if (k := tick_key(o))]
            for minute, run in (*stored, *held):
                runs[minute] = latest([runs.get(minute), run]) or run
        self.past = Past(ticks=ticks, runs=runs)

    def _workflow(self) -> Workflow | InvalidSpec | None:
        if self.workflow is None:
            return None
        try:
            return parse(Workflow, self.workflow)
        except InvalidSpec as error:
            return error

    def restart(self) -> None:
        """Another process knows nothing yet."""
        self.past = None
        self.lives = None

    def decide(self, *, reading: bool = True) -> Plan:
        backfill = parse(Backfill, self.obj)
        seen = BackfillObserved(
            workflow=self._workflow(),
            namesake=self.namesake,
            run=self.runs.get,
            known=self._known,
        )
        if find_obstacle(backfill, seen, self.now) is None:
            if self.past is None and reading:
                self.read()
            seen = BackfillObserved(**{**vars(seen), "past": self.past})
        return reconcile_backfill(backfill, seen, self.now)

    def _known(self, minute: int) -> list[PastRun]:
        wanted = ("report", minute)
        return [read_run(obj) for obj in self.runs.values() if tick_key(obj) == wanted]

    def step(self) -> Plan:
        plan = self.decide()
        self.execute(plan, self.obj["metadata"]["resourceVersion"])
        return plan

    def execute(self, plan: Plan, version: str) -> None:
        if plan.apply and version != self.obj["metadata"]["resourceVersion"]:
            raise Stale
        for manifest in plan.apply:
            self._create(json.loads(json.dumps(manifest)))
        status = json.loads(json.dumps(plan.status))
        if status is None or status == self.status:
            return
        if version != self.obj["metadata"]["resourceVersion"]:
            raise Stale
        assert status_errors("Backfill", status) == []
        self._write("status")
        self.obj = {**self.obj, "status": status}
        self._bump()
        self.events += plan.events

    def _create(self, run: Object) -> None:
        name = run["metadata"]["name"]
        if name in self.runs:
            owners = self.runs[name]["metadata"].get("ownerReferences")
            assert owners == run["metadata"]["ownerReferences"]
            return
        self._write(f"create {name}")
        self.add(run)
        self.made[name] += 1

    def add(self, run: Object) -> None:
        uid = f"{len(self.made) + len(self.runs):08x}-{run['metadata']['name']}"
        run["metadata"] |= {"uid": uid, "creationTimestamp": rfc3339(self.now)}
        run.setdefault("status", {})
        self.runs[run["metadata"]["name"]] = run

    def _write(self, what: str) -> None:
        if self.lives is not None:
            if self.lives == 0:
                raise Died
            self.lives -= 1
        self.writes.append(what)

    def end(self, name: str, phase: str = "Succeeded") -> None:
        run = self.runs[name]
        run["status"] = {"phase": phase, "completionTime": rfc3339(self.now)}
        folder = f"{name}-{run['metadata']['uid'][:8]}"
        self.records[f"{folder}/run.json"] = run
        self.ended[phase] += 1

    def expire(self, name: str) -> bool:
        """Delete a Run whose time to live is over, as soon as it is counted."""
        run = scheduled_run(self.runs[name], "Backfill")
        if run is None or run.is_live or not is_counted(run, parse(Backfill, self.obj).status):
            return False
        del self.runs[name]
        return True

    def run_by_hand(self, hour: int, phase: str | None, name: str = "report") -> str:
        """Let a Run of the schedule have been made for a tick, and maybe have ended."""
        tick = FIRST + timedelta(hours=hour)
        annotations = {"labfunctions.io/scheduled-at": rfc3339(tick)}
        owner = [{"kind": "Workflow", "name": "report", "uid": "w", "controller": True}]
        name = f"{name}-{minute_of(tick)}"
        meta = {"annotations": annotations, "ownerReferences": owner}
        spec = {"workflowRef": {"name": "report"}}
        self.add(make_object("Run", name, spec, {"phase": phase} if phase else {}, **meta))
        if phase:
            self.end(name, phase)
            self.ended[phase] -= 1
        return name

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def finish(self, phase: str = "Succeeded") -> None:
        """Let all Runs end, one after another."""
        for _ in range(40):
            self.settle()
            if "completionTime" in self.status:
                return
            self.end(next(n for n in self.live if n.startswith("again")), phase)
        raise AssertionError("it never ends")


def tick(hour: int) -> datetime:
    return FIRST + timedelta(hours=hour)


def name_of(hour: int) -> str:
    return f"again-{minute_of(tick(hour))}"
