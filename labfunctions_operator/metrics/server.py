"""Serves the metrics to Prometheus."""

import asyncio

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


class MetricsServer:
    """Answers `GET /metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._runner: web.AppRunner | None = None

    async def start(self, port: int) -> None:
        """Serve on all addresses of the pod."""
        app = web.Application()
        app.router.add_get("/metrics", self._scrape)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, port=port).start()

    async def stop(self) -> None:
        """Stop serving."""
        if self._runner:
            await self._runner.cleanup()

    async def _scrape(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        # In a thread: with many objects this takes as long as some reconciliations.
        body = await asyncio.to_thread(encode, self._registry)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})
