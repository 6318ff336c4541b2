"""Answers couriers of CronJobs' pods, which cannot be given what one Job may do in advance.

The template of a CronJob is one text for all its Jobs. So their couriers are given a URL that is
signed for the Workflow, and ask there by the name of their Job. A notebook does not see that URL;
whoever can read the pod does, and gets what that pod may do anyway.
"""

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from labfunctions_operator.api import labels
from labfunctions_operator.api.run import Run
from labfunctions_operator.api.workflow import DEFAULT_TIMEOUT_SECONDS
from labfunctions_operator.controllers.cron_jobs import CronJobs
from labfunctions_operator.controllers.grants import Grants
from labfunctions_operator.controllers.world import World
from labfunctions_operator.desired.run_job import CHECKPOINT_SECONDS


class Claims:
    """Grants the uploads of one Job to its courier.

    Args:
        grants: Signs, and says whom a signed URL belongs to.
        world: Knows the Run.
        cron_jobs: Know its Job.
    """

    def __init__(self, grants: Grants, world: World, cron_jobs: CronJobs) -> None:
        self._grants = grants
        self._world = world
        self._cron_jobs = cron_jobs

    def routes(self) -> list[web.RouteDef]:
        """Return what is to be served."""
        return [web.post("/v1/claims/{namespace}/{workflow}/{uid}", self._receive)]

    async def _receive(self, request: web.Request) -> web.Response:
        whose = self._grants.claimant(request.path, request.query.get("signature", ""))
        if whose is None:
            raise web.HTTPForbidden(text="this URL was not signed by the operator\n")
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
        if run.is_finished:
            raise web.HTTPConflict(text="the Run of this Job has ended\n")
        return web.json_response(self._answer(run, made))

    def _answer(self, run: Run, job: Mapping[str, Any]) -> dict[str, Any]:
        names = job["metadata"]["labels"]
        grant = self._grants.grant(
            run,
            project=names[labels.PROJECT],
            workflow=names[labels.WORKFLOW],
            attempt=1,
            timeout=_timeout(job),
        )
        return {
            "uploads": dict(grant.uploads),
            "report": grant.report,
            "checkpointSeconds": CHECKPOINT_SECONDS,
        }


def _timeout(job: Mapping[str, Any]) -> int:
    try:
        snapshot = json.loads(job["metadata"]["annotations"][labels.SNAPSHOT_ANNOTATION])
        return int(snapshot["timeoutSeconds"])
    except (KeyError, TypeError, ValueError):
        return DEFAULT_TIMEOUT_SECONDS
