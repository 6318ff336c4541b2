"""One reconciler for each kind: look at what exists, decide, carry it out."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from labfunctions_operator.api import labels
from labfunctions_operator.api.backfill import Backfill
from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.project import Project
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.types import LocalRef
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.controllers.archive import Archive
from labfunctions_operator.controllers.clock import Clock
from labfunctions_operator.controllers.cron_jobs import CronJobs
from labfunctions_operator.controllers.executor import Executor
from labfunctions_operator.controllers.nodegroups import NodeGroups
from labfunctions_operator.controllers.notifier import Notifier
from labfunctions_operator.controllers.past import PastReader
from labfunctions_operator.controllers.run_observer import RunObserver
from labfunctions_operator.controllers.source import SourceTracker
from labfunctions_operator.controllers.world import Object, World
from labfunctions_operator.errors import ChildRefused, Denied, InvalidSpec, NameTaken, NotFound
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.kube.failures import Conflict
from labfunctions_operator.reconcile.backfill import (
    BackfillObserved,
    find_obstacle,
    reconcile_backfill,
)
from labfunctions_operator.reconcile.edit import is_edited, time_of_edit
from labfunctions_operator.reconcile.execution import merge_execution
from labfunctions_operator.reconcile.invalid import readable_run, refuse
from labfunctions_operator.reconcile.missed import pending
from labfunctions_operator.reconcile.notify import Outcome, announce, is_pending
from labfunctions_operator.reconcile.plan import Key, Plan
from labfunctions_operator.reconcile.pods import Waiting, job_refused
from labfunctions_operator.reconcile.project import ProjectObserved, reconcile_project
from labfunctions_operator.reconcile.run import reconcile_run
from labfunctions_operator.reconcile.run_observed import RunObserved
from labfunctions_operator.reconcile.story import with_story
from labfunctions_operator.reconcile.workflow import WorkflowObserved, reconcile_workflow
from labfunctions_operator.settings import Settings
from labfunctions_operator.telemetry import speak_of

# A Run whose time to live is over waits so long to be counted before it looks again.
COUNT_SECONDS = 5.0


class Reconcilers:
    """Brings one object nearer to what it should be; what the engine calls for each key."""

    def __init__(
        self,
        *,
        client: KubeClient,
        world: World,
        sources: SourceTracker,
        runs: RunObserver,
        cron_jobs: CronJobs,
        archive: Archive,
        past: PastReader,
        notifier: Notifier,
        executor: Executor,
        node_groups: NodeGroups,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._client = client
        self._world = world
        self._sources = sources
        self._runs = runs
        self._cron_jobs = cron_jobs
        self._archive = archive
        self._past = past
        self._notifier = notifier
        self._executor = executor
        self._node_groups = node_groups
        self._settings = settings
        self._clock = clock

    async def reconcile(self, key: Key) -> float | None:
        """Reconcile one object; return the seconds until it wants to be looked at again."""
        if key.kind != "Run":
            return await self._reconcile(key)
        # First, as another one may have its name by now.
        wait = await self._archive.record_deleted(key)
        return _sooner(await self._reconcile(key), wait)

    async def _reconcile(self, key: Key) -> float | None:
        obj = self._world.get(key)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            if key.kind == "Project":
                self._sources.forget(key)
            elif key.kind == "Backfill":
                self._past.forget(key)
            elif key.kind == "NodeGroup":
                await self._node_groups.leave(key)
            self._notifier.forget(key)
            if key.kind == "Workflow" and obj is None:
                await self._executor.delete(self._cron_jobs.left_behind(key))
            return None
        speak_of(obj)
        try:
            return await self._bring_nearer(key, obj)
        except InvalidSpec as error:
            # The user's words, refused by us or by the API server: said on the object itself.
            final = key.kind == "Run" or not isinstance(error, ChildRefused)
            wait = await self._refuse(obj, reason="InvalidSpec", message=str(error), final=final)
            if final:
                return wait
            # A policy may have refused its child, and nothing tells when that changes.
            raise Denied(str(error)) from error
        except Denied as error:
            await self._refuse(obj, reason="Forbidden", message=str(error), final=False)
            raise

    async def _bring_nearer(self, key: Key, obj: Object) -> float | None:
        if key.kind == "NodeGroup":
            return await self._node_groups.reconcile(key, obj, self._clock())
        decide = {
            "Project": self._project,
            "Workflow": self._workflow,
            "Backfill": self._backfill,
            "Run": self._run,
        }[key.kind]
        plan = await decide(key, obj)
        try:
            return await self._carry_out(plan, obj)
        except (Denied, NameTaken) as error:
            if key.kind != "Run" or not plan.apply:
                raise
            hindrance = job_refused(str(error))
            if isinstance(error, NameTaken):
                hindrance = Waiting(reason="NameTaken", message=str(error))
        return await self._carry_out(await self._run(key, obj, hindrance), obj)

    async def _refuse(self, obj: Object, **why: Any) -> float | None:
        plan = Plan(status=refuse(obj, now=self._clock(), **why))
        if obj["kind"] == "Run":
            plan = self._tell(plan, obj)
        return await self._carry_out(plan, obj)

    async def _carry_out(self, plan: Plan, obj: Object) -> float | None:
        if obj["kind"] == "Run":
            plan = await self._archive.complete(plan, obj)
        await self._executor.execute(with_story(plan, obj), obj)
        return plan.requeue_after

    def _tell(self, plan: Plan, obj: Object) -> Plan:
        """Tell of a Run that ends because it is refused, as far as it says whom to tell."""
        run = readable_run(obj)
        if run.is_finished:
            return self._ended_run(Key("Run", run.metadata.namespace, run.metadata.name), obj, run)
        namespace, ref = run.metadata.namespace, run.spec.workflow_ref
        found = self._world.workflow(namespace, ref.name) if ref else None
        execution = merge_execution(run, found if isinstance(found, Workflow) else None)
        name = execution.project_ref.name if execution.project_ref else ""
        return announce(
            plan,
            run,
            workflow=found,
            project=self._world.project(namespace, name),
            before=None,
            now=self._clock(),
        )

    async def _project(self, key: Key, obj: Object) -> Plan:
        project = parse(Project, obj)
        wait = None
        if project.spec.suspend:
            self._sources.pause(key)
        else:
            wait = self._sources.follow(key, project)
        seen = ProjectObserved(
            source=self._sources.view(key),
            jobs=self._world.labelled("Job", labels.PROJECT, key.name, key.namespace),
            pods=self._world.labelled("Pod", labels.PROJECT, key.name, key.namespace),
            certificate=self._certificate(),
        )
        plan = reconcile_project(project, seen, self._settings, self._clock())
        return _no_later(plan, wait)

    async def _workflow(self, key: Key, obj: Object) -> Plan:
        workflow = parse(Workflow, obj)
        await self._confirm_active(key, workflow.status.active)
        seen = WorkflowObserved(
            runs=self._world.scheduled_runs(key.namespace, key.name),
            node_group=self._world.node_group(self._world.group_named(obj) or ""),
        )
        if ref := workflow.spec.project_ref:
            seen = replace(
                seen,
                project=self._world.project(key.namespace, ref.name),
                source=self._sources.view(Key("Project", key.namespace, ref.name)).snapshot,
            )
        seen = replace(
            seen,
            cron=self._cron_jobs.observe(key, workflow, seen.node_group),
            outcomes=self._missed_outcomes(key, workflow, seen.project),
        )
        if is_edited(workflow):
            # Asked for, as the caches do not keep who has written an object.
            stored = await self._confirm_version(obj)
            managers = stored["metadata"].get("managedFields") or ()
            seen = replace(seen, edited=time_of_edit(managers))
        plan = reconcile_workflow(workflow, seen, self._clock())
        if any(manifest["kind"] == "Run" for manifest in plan.apply):
            await self._confirm_version(obj)
        return plan

    def _missed_outcomes(
        self, key: Key, workflow: Workflow, project: object
    ) -> Mapping[str, Outcome]:
        if not pending(workflow):
            self._notifier.forget(key)
            return {}
        own = project.spec.notification_template if isinstance(project, Project) else None
        return self._notifier.offer_missed(key, workflow, own)

    async def _backfill(self, key: Key, obj: Object) -> Plan:
        backfill = parse(Backfill, obj)
        if backfill.status.completion_time:
            self._past.forget(key)
            return Plan()
        await self._confirm_active(key, backfill.status.active)
        name, now = backfill.spec.workflow_ref.name, self._clock()
        seen = BackfillObserved(
            workflow=self._world.workflow(key.namespace, name),
            namesake=self._world.get(Key("Workflow", key.namespace, key.name)) is not None,
            run=partial(self._world.caches["Run"].get, key.namespace),
            known=partial(self._world.past_runs, key.namespace, name),
        )
        if isinstance(seen.workflow, Workflow) and find_obstacle(backfill, seen, now) is None:
            seen = replace(seen, past=self._past.view(key, backfill, seen.workflow))
        plan = reconcile_backfill(backfill, seen, now)
        if plan.apply:
            await self._confirm_version(obj)
        return plan

    async def _confirm_version(self, obj: Object) -> Object:
        """Ask whether an object is still what the cache says; return it if it is.

        Another operator may have gone on with it, and the Runs that it made may be gone again.
        """
        meta = obj["metadata"]
        with suppress(NotFound):
            found = await self._client.get(
                obj["apiVersion"], obj["kind"], meta["namespace"], meta["name"]
            )
            if found["metadata"]["resourceVersion"] == meta["resourceVersion"]:
                return found
            self._world.caches[obj["kind"]].upsert(found)
        raise Conflict(f"{obj['kind']} {meta['namespace']}/{meta['name']} has changed meanwhile")

    async def _confirm_active(self, key: Key, active: Sequence[LocalRef] | None) -> None:
        """Ask for live Runs which the cache lacks: deleted, or made by another operator just now.

        The watch of Runs may lag behind that of who made them.
        """
        cache = self._world.caches["Run"]
        for ref in active or ():
            if cache.get(key.namespace, ref.name) is None:
                with suppress(NotFound):
                    cache.upsert(
                        await self._client.get(labels.API_VERSION, "Run", key.namespace, ref.name)
                    )

    async def _run(self, key: Key, obj: Object, hindrance: Waiting | None = None) -> Plan:
        run = parse(Run, obj)
        if run.is_finished:
            return self._ended_run(key, obj, run)
        seen = replace(await self._runs.observe(key, obj, run), hindrance=hindrance)
        return reconcile_run(run, seen, self._settings, self._clock())

    def _ended_run(self, key: Key, obj: Object, run: Run) -> Plan:
        outcomes: Mapping[int, Outcome] = {}
        if is_pending(run):
            outcomes = self._notifier.offer(key, run)
        else:
            self._notifier.forget(key)
        jobs = self._world.labelled("Job", labels.RUN, key.name, key.namespace)
        seen = RunObserved(outcomes=outcomes, jobs=jobs)
        plan = reconcile_run(run, seen, self._settings, self._clock())
        if plan.delete and self._world.is_awaited(obj):
            return Plan(requeue_after=COUNT_SECONDS)
        return plan

    def _certificate(self) -> dict[str, str]:
        """Read the builder's client certificate anew each time: it may be rotated under us."""
        folder = self._settings.builder.tls_dir
        if self._settings.builder.mode != "shared" or folder is None:
            return {}
        return {n: (folder / n).read_text() for n in ("ca.crt", "tls.crt", "tls.key")}


def _no_later(plan: Plan, wait: float | None) -> Plan:
    return replace(plan, requeue_after=_sooner(plan.requeue_after, wait))


def _sooner(*waits: float | None) -> float | None:
    return min((wait for wait in waits if wait is not None), default=None)
