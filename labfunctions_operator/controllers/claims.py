"""Answers couriers that ask what they may do, because they could not be told, or not for so long.

The template of a CronJob is one text for all its Jobs. So their couriers are given a URL that is
signed for the Workflow, and ask there by the name of their Job. And the store's signatures end,
long before an attempt may: then its courier asks at a URL that is signed for this attempt alone.
A notebook does not see these URLs; whoever can read the pod does, and gets what that pod may do
anyway.
"""

import json

from aiohttp import web

from labfunctions_operator.api import labels
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.workflow import DEFAULT_TIMEOUT_SECONDS
from labfunctions_operator.controllers.cron_jobs import CronJobs
from labfunctions_operator.controllers.grants import Grants
from labfunctions_operator.controllers.world import World
from labfunctions_operator.desired.run_job import courier_config
from labfunctions_operator.reconcile.attempt import find_current, snapshot_of_live

NOT_SIGNED = "this URL was not signed by the operator\n"


class Claims:
    """Grants the uploads of one attempt to its courier, for as long as that is not over.

    Args:
        grants: Signs, and says whom a signed URL belongs to.
        world: Knows the Run.
        cron_jobs: Know its Job, where a CronJob made that.
    """

    def __init__(self, grants: Grants, world: World, cron_jobs: CronJobs) -> None:
        self._grants = grants
        self._world = world
        self._cron_jobs = cron_jobs

    def routes(self) -> list[web.RouteDef]:
        """Return what is to be served."""
        return [
            web.post("/v1/claims/{namespace}/{workflow}/{uid}", self._of_job),
            web.post("/v1/uploads/{namespace}/{run}/{uid}/{attempt}", self._anew),
        ]

    async def _of_job(self, request: web.Request) -> web.Response:
        whose = self._grants.claimant(request.path, request.query.get("signature", ""))
        if whose is None:
            raise web.HTTPForbidden(text=NOT_SIGNED)
        try:
            job = json.loads(await request.read())["job"]
        except (ValueError, KeyError, TypeError):
            raise web.HTTPBadRequest(text='send {"job": "the name of your Job"}\n') from None
        workflow, uid = whose
        held = self._world.get(workflow)
        run = self._world.run(workflow.namespace, str(job))
        made = self._cron_jobs.job_of(run) if isinstance(run, Run) else None
        if (
            held is None
            or held["metadata"]["uid"] != uid
            or not isinstance(run, Run)
            or made is None
            or made["metadata"]["labels"][labels.WORKFLOW] != workflow.name
        ):
            raise web.HTTPNotFound(text="no Run of this Workflow has such a Job yet\n")
        return self._granted(run, 1)

    async def _anew(self, request: web.Request) -> web.Response:
        whose = self._grants.attempt_of(request.path, request.query.get("signature", ""))
        if whose is None:
            raise web.HTTPForbidden(text=NOT_SIGNED)
        key, uid, attempt = whose
        run = self._world.run(key.namespace, key.name)
        if not isinstance(run, Run) or run.metadata.uid != uid:
            raise web.HTTPNotFound(text="there is no such Run\n")
        return self._granted(run, attempt)

    def _granted(self, run: Run, attempt: int) -> web.Response:
        meta = run.metadata
        jobs, _ = self._cron_jobs.attempts(run)
        jobs += self._world.labelled("Job", labels.RUN, meta.name, meta.namespace)
        snapshot = snapshot_of_live(run, find_current(run, jobs, ()), attempt)
        if snapshot is None:
            raise web.HTTPConflict(text="this attempt is over\n")
        grant = self._grants.grant(
            run,
            project=snapshot.project,
            workflow=snapshot.workflow,
            attempt=attempt,
            timeout=snapshot.timeout_seconds or DEFAULT_TIMEOUT_SECONDS,
        )
        return web.json_response(courier_config(grant))
