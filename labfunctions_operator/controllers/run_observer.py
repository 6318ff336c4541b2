"""Looks at what concerns a Run: caches, the source as last read, reports, and what is asked for."""

from dataclasses import replace

from labfunctions_operator.api import labels
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.run import Phase, Run, Snapshot
from labfunctions_operator.api.workflow import DEFAULT_TIMEOUT_SECONDS, Workflow
from labfunctions_operator.controllers.cron_jobs import CronJobs
from labfunctions_operator.controllers.grants import Grants
from labfunctions_operator.controllers.inquiry import Inquiry
from labfunctions_operator.controllers.reports import Reports
from labfunctions_operator.controllers.source import SourceTracker
from labfunctions_operator.controllers.world import Object, World
from labfunctions_operator.desired.run_job import Grant
from labfunctions_operator.reconcile.attempt import next_number
from labfunctions_operator.reconcile.execution import merge_execution, with_defaults
from labfunctions_operator.reconcile.plan import Key
from labfunctions_operator.reconcile.pods import is_over
from labfunctions_operator.reconcile.run_observed import RunObserved
from labfunctions_operator.reconcile.run_start import is_waiting_for_attempt


class RunObserver:
    """Collects what the decision on a Run is made from."""

    def __init__(
        self,
        *,
        world: World,
        sources: SourceTracker,
        grants: Grants,
        reports: Reports,
        cron_jobs: CronJobs,
        inquiry: Inquiry,
    ) -> None:
        self._world = world
        self._sources = sources
        self._grants = grants
        self._reports = reports
        self._cron_jobs = cron_jobs
        self._inquiry = inquiry

    async def observe(self, key: Key, obj: Object, run: Run) -> RunObserved:
        """Return what exists around a Run that has not ended."""
        seen = replace(self._observe(key, run), ahead=self._world.ahead(obj))
        if any(is_over(pod) for pod in seen.pods):
            seen = replace(seen, before=self._last_end(key, seen.pods[0]))
        if seen.pods:
            event, is_asked = self._inquiry.start_event(key, seen.pods)
            return replace(
                seen,
                event=event,
                asking=is_asked,
                node_silent=await self._inquiry.node_is_silent(seen.pods),
            )
        if seen.jobs:
            refusal, is_asked = self._inquiry.refusal(key, seen.jobs)
            return replace(seen, refusal=refusal, asking=is_asked)
        return seen

    def _last_end(self, key: Key, pod: Object) -> Phase | None:
        workflow = pod["metadata"]["labels"].get(labels.WORKFLOW)
        return self._world.last_end(key.namespace, workflow) if workflow else None

    def _observe(self, key: Key, run: Run) -> RunObserved:
        jobs, pods = self._cron_jobs.attempts(run)
        jobs += self._world.labelled("Job", labels.RUN, key.name, key.namespace)
        pods += self._world.labelled("Pod", labels.RUN, key.name, key.namespace)
        attempt = next_number(run, jobs)
        progress = self._reports.progress(run.metadata.uid, attempt - 1)
        if run.status.attempts and not is_waiting_for_attempt(run):
            return RunObserved(jobs=jobs, pods=pods, progress=progress)
        if attempt > 1:
            return RunObserved(
                jobs=jobs, pods=pods, progress=progress, grant=self._regrant(run, attempt)
            )
        if run.spec.from_run:
            return self._observe_repeat(key, run, run.spec.from_run, jobs=jobs, pods=pods)
        found = None
        if run.spec.workflow_ref:
            found = self._world.workflow(key.namespace, run.spec.workflow_ref.name)
        workflow = found if isinstance(found, Workflow) else None
        execution = merge_execution(run, workflow)
        if execution.project_ref is None:
            return RunObserved(workflow=found, jobs=jobs, pods=pods)
        name = execution.project_ref.name
        project = self._world.project(key.namespace, name)
        if isinstance(project, Project):
            execution = with_defaults(execution, project)
        source = self._sources.view(Key("Project", key.namespace, name))
        # A source that is not followed is never read, nor is one that is not there.
        spec = project.spec if isinstance(project, Project) else None
        followed = spec is not None and spec.git is not None and not spec.suspend
        return RunObserved(
            workflow=found,
            project=project,
            source=source.snapshot,
            source_pending=followed and not source.tried,
            node_group=self._world.node_group(execution.node_group or ""),
            jobs=jobs,
            pods=pods,
            grant=self._grants.grant(
                run,
                project=name,
                workflow=workflow.metadata.name if workflow else None,
                attempt=attempt,
                timeout=execution.timeout_seconds or DEFAULT_TIMEOUT_SECONDS,
            ),
        )

    def _observe_repeat(
        self, key: Key, run: Run, name: str, *, jobs: list[Object], pods: list[Object]
    ) -> RunObserved:
        origin = self._world.run(key.namespace, name)
        if not isinstance(origin, Run) or origin.status.snapshot is None:
            return RunObserved(origin=origin, jobs=jobs, pods=pods)
        snapshot = origin.status.snapshot
        return RunObserved(
            origin=origin,
            project=self._world.project(key.namespace, snapshot.project),
            jobs=jobs,
            pods=pods,
            grant=self._grant(run, snapshot, 1),
        )

    def _grant(self, run: Run, snapshot: Snapshot, attempt: int) -> Grant:
        return self._grants.grant(
            run,
            project=snapshot.project,
            workflow=snapshot.workflow,
            attempt=attempt,
            timeout=snapshot.timeout_seconds or DEFAULT_TIMEOUT_SECONDS,
        )

    def _regrant(self, run: Run, attempt: int) -> Grant | None:
        """Sign for a retry, which runs what the first attempt ran."""
        snapshot = run.status.snapshot
        return self._grant(run, snapshot, attempt) if snapshot else None
