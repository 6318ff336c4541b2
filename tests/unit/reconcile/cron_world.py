"""A scheduled Workflow beside a CronJob controller, and the Jobs of both schedulers."""

import json
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from typing import Any

from objects import NOW, Object, make_settings, make_source
from workflow_world import WorkflowWorld

from labfunctions_operator.api.times import parse_time, rfc3339
from labfunctions_operator.desired.names import SPEC_HASH, spec_hash
from labfunctions_operator.desired.scheduled_run import scheduled_run_name
from labfunctions_operator.reconcile.cron_job import CronObserved
from labfunctions_operator.reconcile.jobs import end_of
from labfunctions_operator.reconcile.plan import Plan
from labfunctions_operator.reconcile.scheduled_run import scheduled_run
from labfunctions_operator.reconcile.timetable import timetable
from labfunctions_operator.reconcile.workflow import WorkflowObserved, reconcile_workflow

CLAIM = "http://operator.example.com/v1/claims/team/report/u?signature=ab"


class CronWorld(WorkflowWorld):
    """One Workflow that may have a CronJob.

    Attributes:
        executed: How often a notebook was started, by the name of its Run.
        webhook: What an admission webhook makes of a CronJob's spec, whatever is applied.
    """

    def __init__(self, now: datetime = NOW, **spec: Any) -> None:
        self.cron_job: Object | None = None
        self.jobs: dict[str, Object] = {}
        self.executed: Counter[str] = Counter()
        self.webhook: Object = {}
        super().__init__(now, **{"schedule": "* * * * *", "scheduler": "CronJob", **spec})

    def decide(self) -> Plan:
        runs = [run for run in map(scheduled_run, self.runs.values()) if run]
        jobs = [job for name, job in self.jobs.items() if name not in self.runs]
        cron = CronObserved(
            cron_job=self.cron_job,
            without_run=[job for job in jobs if "labfunctions.io/run" not in _labels(job)],
            over=frozenset(job["metadata"]["name"] for job in jobs if end_of(job)),
            claim=CLAIM,
            settings=make_settings(),
        )
        seen = WorkflowObserved(
            project=self.project,
            source=make_source(),
            runs=runs,
            cron=cron,
            outcomes=self.outcomes,
            edited=self.edited,
        )
        return reconcile_workflow(self.workflow, seen, self.now)

    def execute(self, plan: Plan) -> None:
        for ref in (ref for ref in plan.delete if ref.kind != "Run"):
            self._write(f"delete {ref.kind} {ref.name}")
            if ref.kind == "CronJob":
                assert ref.orphan
                self._orphan()
            else:
                assert self.jobs.pop(ref.name)["metadata"]["uid"] == ref.uid
        super().execute(replace(plan, delete=tuple(r for r in plan.delete if r.kind == "Run")))

    def _orphan(self) -> None:
        """What the garbage collector does when a CronJob is deleted from around its Jobs."""
        for job in self.jobs.values():
            if job["metadata"]["ownerReferences"][:1] == [self._owner()]:
                job["metadata"]["ownerReferences"] = []
        self.cron_job = None

    def _create(self, run: Object) -> None:
        if run["kind"] != "CronJob":
            super()._create(run)
            return
        old = self.cron_job or {"metadata": {}}
        notes = {**run["metadata"].get("annotations", {}), SPEC_HASH: spec_hash(run)}
        if old["metadata"].get("annotations", {}).get(SPEC_HASH) != notes[SPEC_HASH]:
            self._write("apply CronJob")
            born = {"uid": f"cron {self.now}", "creationTimestamp": rfc3339(self.now)}
            meta = {**born, **old["metadata"], **run["metadata"], "annotations": notes}
            self._store_cron_job(
                {**old, **run, "metadata": meta, "spec": old.get("spec")}, run["spec"]
            )

    def patch_cron_job(self, **spec: Any) -> None:
        """Change the CronJob as anybody can."""
        assert self.cron_job
        self._store_cron_job(self.cron_job, {**self.cron_job["spec"], **spec})

    def _store_cron_job(self, cron_job: Object, spec: Object) -> None:
        """Do what the API server does: ask a webhook, count changes."""
        spec = {**spec, **self.webhook}
        meta = cron_job["metadata"]
        generation = meta.get("generation", 0) + (spec != cron_job.get("spec"))
        self.cron_job = {**cron_job, "metadata": {**meta, "generation": generation}, "spec": spec}

    def _owner(self) -> Object:
        assert self.cron_job
        meta = self.cron_job["metadata"]
        return {"kind": "CronJob", "name": meta["name"], "uid": meta["uid"], "controller": True}

    def fire(self) -> str | None:
        """Do what the CronJob controller does at this moment; return the Job it makes."""
        if self.cron_job is None or self.cron_job["spec"]["suspend"]:
            return None
        since = self.cron_job.get("status", {}).get("lastScheduleTime")
        since = parse_time(since or self.cron_job["metadata"]["creationTimestamp"])
        tick = timetable(self.workflow.spec, NOW).until(self.now)
        if tick is None or tick <= since:
            return None
        self.cron_job["status"] = {"lastScheduleTime": rfc3339(tick)}
        name = scheduled_run_name("report", tick)
        if name in self.jobs:
            return None
        template = deepcopy(self.cron_job["spec"]["jobTemplate"])
        meta = {
            **template["metadata"],
            "name": name,
            "namespace": "team",
            "uid": f"job {name}",
            "creationTimestamp": rfc3339(self.now),
            "ownerReferences": [self._owner()],
        }
        self.jobs[name] = {"kind": "Job", "metadata": meta, "spec": template["spec"]}
        self.executed[name] += 1
        return name

    def start_runs(self) -> None:
        """Do what the operator does for Runs: those without a Job get one, by their own name."""
        for name in self.live:
            if name not in self.jobs:
                labels = {"labfunctions.io/run": name}
                owner = {"kind": "Run", "name": name, "uid": name}
                meta = {"name": name, "labels": labels, "ownerReferences": [owner]}
                self.jobs[name] = {"kind": "Job", "metadata": meta, "spec": {}}
                self.executed[name] += 1

    def end_job(self, name: str) -> None:
        done = {"type": "Complete", "status": "True"}
        self.jobs[name] = {**self.jobs[name], "status": {"conditions": [done]}}


def _labels(job: Object) -> Object:
    found: Object = job["metadata"]["labels"]
    return found


def snapshot_of(job: Object) -> Object:
    found: Object = json.loads(job["metadata"]["annotations"]["labfunctions.io/snapshot"])
    return found
