"""Receives progress from couriers; a lost report costs nothing but freshness."""

import json
import logging
from collections.abc import Callable, Iterable

from aiohttp import web
from pydantic import ValidationError

from labfunctions_operator.api.run import Progress
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.controllers.clock import Clock
from labfunctions_operator.controllers.grants import Grants
from labfunctions_operator.reconcile.plan import Key

logger = logging.getLogger(__name__)

BODY_LIMIT = 4096
NAME_LIMIT = 80
CELLS_LIMIT = 100_000


class Reports:
    """Holds the last progress of each attempt of the live Runs.

    Args:
        grants: Says whom a signed URL belongs to.
        on_report: Called with the Run's key.
        clock: The time of a report.
    """

    def __init__(self, grants: Grants, on_report: Callable[[Key], None], clock: Clock) -> None:
        self._grants = grants
        self._on_report = on_report
        self._clock = clock
        self._progress: dict[tuple[str, int], Progress] = {}
        self._runner: web.AppRunner | None = None

    def progress(self, uid: str, attempt: int) -> Progress | None:
        """Return what was last reported for an attempt of a Run."""
        return self._progress.get((uid, attempt))

    def keep_only(self, uids: Iterable[str]) -> None:
        """Forget all other Runs."""
        live = set(uids)
        self._progress = {k: p for k, p in self._progress.items() if k[0] in live}

    async def start(self, port: int, others: Iterable[web.RouteDef] = ()) -> None:
        """Serve on all addresses of the pod, and whatever else couriers ask for."""
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_routes(others)
        app.router.add_post("/v1/reports/{namespace}/{run}/{uid}/{attempt}", self._receive)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, port=port).start()

    async def stop(self) -> None:
        """Stop serving."""
        if self._runner:
            await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        whose = self._grants.attempt_of(request.path, request.query.get("signature", ""))
        if whose is None:
            raise web.HTTPForbidden(text="this URL was not signed by the operator\n")
        key, uid, attempt = whose
        try:
            reported = Progress.model_validate(json.loads(await request.read())["progress"])
            # A number that the API server cannot hold would count as a Run that is wrong.
            if not 0 <= reported.cell <= reported.cells <= CELLS_LIMIT:
                raise ValueError("no notebook has as many cells")
        except (ValueError, KeyError, TypeError, ValidationError):
            raise web.HTTPBadRequest(
                text='send {"progress": {"cell": n, "cells": m, "name": ".."}}\n'
            ) from None
        news = reported.but(
            name=reported.name[:NAME_LIMIT],
            summary=f"{reported.cell}/{reported.cells}",
            time=rfc3339(self._clock()),
        )
        # Couriers say it again now and then, for an operator that has lost it.
        if self._progress.get((uid, attempt)) != news:
            self._progress[uid, attempt] = news
            self._on_report(key)
        return web.Response(status=204)
