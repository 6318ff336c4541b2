"""What is observed of Workflows' CronJobs, and of the Jobs that these make."""

from collections.abc import Sequence

from labfunctions_operator.api import labels
from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.workflow import Workflow
from labfunctions_operator.controllers.grants import Grants
from labfunctions_operator.controllers.world import Object, World
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.adoption import (
    as_attempt,
    is_left_behind,
    job_ref,
    ticking_workflow,
)
from labfunctions_operator.reconcile.cron_job import CronObserved
from labfunctions_operator.reconcile.jobs import end_of
from labfunctions_operator.reconcile.plan import Key, Ref
from labfunctions_operator.reconcile.pods import is_over
from labfunctions_operator.settings import Settings


class CronJobs:
    """Looks them up.

    Args:
        world: Holds them.
        grants: Says where couriers ask, and where outputs will lie.
        settings: The operator's.
    """

    def __init__(self, world: World, grants: Grants, settings: Settings) -> None:
        self._world = world
        self._grants = grants
        self._settings = settings

    def observe(
        self, key: Key, workflow: Workflow, node_group: NodeGroup | InvalidSpec | None
    ) -> CronObserved | None:
        """Return what there is of a Workflow's CronJob; None if there is, and will be, none."""
        cron_job = self._world.caches["CronJob"].get(key.namespace, key.name)
        jobs = self._without_run(key)
        if cron_job is None and not jobs and workflow.spec.scheduler != "CronJob":
            return None
        return CronObserved(
            cron_job=cron_job,
            without_run=jobs,
            over=frozenset(job["metadata"]["name"] for job in jobs if self._is_over(job)),
            node_group=node_group,
            claim=self._grants.claim_url(workflow.metadata),
            settings=self._settings,
        )

    def job_of(self, run: Run) -> Object | None:
        """Return the Job of a CronJob that is a Run's first attempt, if there is one."""
        ref = run.spec.workflow_ref
        job = self._world.caches["Job"].get(run.metadata.namespace, run.metadata.name)
        return job if job and ref and ticking_workflow(job) == ref.name else None

    def attempts(self, run: Run) -> tuple[list[Object], list[Object]]:
        """Return the Job and the pods of a Run that a CronJob made."""
        jobs: list[Object] = []
        if made := self.job_of(run):
            names = made["metadata"]["labels"]
            outputs = self._grants.outputs(
                run, project=names[labels.PROJECT], workflow=names[labels.WORKFLOW], attempt=1
            )
            jobs.append(as_attempt(made, run, outputs))
        pods = self._pods(run.metadata.namespace, run.metadata.name)
        return jobs, [pod for pod in pods if labels.RUN not in pod["metadata"]["labels"]]

    def left_behind(self, workflow: Key) -> Sequence[Ref]:
        """Name the Jobs of a Workflow that is gone which outlived their CronJob, and so it."""
        return [job_ref(job) for job in self._without_run(workflow) if is_left_behind(job)]

    def _without_run(self, workflow: Key) -> list[Object]:
        runs = self._world.caches["Run"]
        found = self._world.cron_made(workflow)
        return [job for job in found if not runs.get(workflow.namespace, job["metadata"]["name"])]

    def _is_over(self, job: Object) -> bool:
        pods = self._pods(job["metadata"]["namespace"], job["metadata"]["name"])
        return end_of(job) is not None or any(is_over(pod) for pod in pods)

    def _pods(self, namespace: str, job: str) -> list[Object]:
        return self._world.labelled("Pod", labels.JOB_NAME, job, namespace)
