"""The connection to one API server: credentials, a bounded number of requests, and failures.

Configuration, credentials and transport are those of `kubernetes.aio`; what is sent and received
are plain dictionaries, as the operator handles kinds that the generated models do not know.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config as kubeconfigs
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from labfunctions_operator.errors import Transient
from labfunctions_operator.kube.events import COMPONENT
from labfunctions_operator.kube.failures import failure_of

Object = dict[str, Any]

MAX_IN_FLIGHT = 32
REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
# Bookmarks come once a minute on a live watch.
WATCH_SILENCE = 70.0

_JSON = "application/json"
_BROKEN = (aiohttp.ClientError, TimeoutError, OSError)


class Connection:
    """Sends requests to one API server; every failure is one of ours (`errors`, `kube.failures`).

    Attributes:
        requests: How many requests ended, by verb and HTTP code; code 0 had no answer.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self._configuration: Any = configuration
        # Like kopf's. Else threads look for .netrc and proxies before each request, and wait for
        # the interpreter that is busy with others.
        self._configuration.client_session_kwargs = {"trust_env": False}
        self._rest: Any = RESTClientObject(configuration)
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._refresh: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> Self:
        """Return a client of the cluster around us, or of the kubeconfig's current context.

        Args:
            kubeconfig: Path of a kubeconfig. Without it the pod's service account is used, or,
                outside of a pod, the file that kubectl would use.
        """
        configuration: Any = Configuration()
        configs: Any = kubeconfigs
        if kubeconfig is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            # This one rereads the projected token, which rotates, once a minute.
            configs.load_incluster_config(configuration)
            return cls(configuration)
        loader = await configs.load_kube_config(
            config_file=kubeconfig, client_configuration=configuration, persist_config=False
        )
        client = cls(configuration)
        # Ends at once unless the kubeconfig gets its tokens from a plugin.
        client._refresh = asyncio.create_task(configs.refresh_token(loader, configuration))
        return client

    async def close(self) -> None:
        """Close all connections; open watches end."""
        if self._refresh:
            self._refresh.cancel()
            with suppress(asyncio.CancelledError):
                await self._refresh
        await self._rest.close()

    async def request(
        self,
        verb: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = _JSON,
    ) -> Object:
        """Send one request and return the answer.

        Args:
            verb: What is done, for counts and messages.
            method: The HTTP method.
            path: Of the object or list.
            query: Empty values are left out.
            body: Anything that JSON can hold.
            content_type: Of the body.
        """
        what = f"{verb} {path}"
        code = 0
        async with self._slots:
            try:
                response = await self._send(
                    method,
                    path,
                    query=query or {},
                    body=body,
                    content_type=content_type,
                    limits=REQUEST_TIMEOUT,
                )
                content = await response.read()
                code = response.status
            except _BROKEN as error:
                raise Transient(f"{what}: {_describe(error)}") from error
            finally:
                self.requests[verb, code] += 1
        if code >= 400:
            raise failure_of(what, code, content, response.headers)
        answer: Object = json.loads(content)
        return answer

    async def stream(
        self, what: str, path: str, query: Mapping[str, str]
    ) -> AsyncGenerator[Object, None]:
        """Yield what a watch sends, until it ends or nothing was heard for a while."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=WATCH_SILENCE)
        try:
            response = await self._send("GET", path, query=query, content_type=_JSON, limits=limits)
            try:
                self.requests["watch", response.status] += 1
                if response.status >= 400:
                    raise failure_of(what, response.status, await response.read(), response.headers)
                async for line in response.content:
                    yield json.loads(line)
            finally:
                _tear(response)
        except aiohttp.SocketTimeoutError:
            return
        except (*_BROKEN, ValueError) as error:
            raise Transient(f"{what}: {_describe(error)}") from error

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        content_type: str,
        limits: aiohttp.ClientTimeout,
        body: Any = None,
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": _JSON, "Content-Type": content_type, "User-Agent": COMPONENT}
        for credential in (await self._configuration.auth_settings()).values():
            headers[credential["key"]] = credential["value"]
        url = f"{self._configuration.host}{path}"
        arguments = urlencode({key: value for key, value in query.items() if value})
        answer = await self._rest.request(
            method,
            f"{url}?{arguments}" if arguments else url,
            headers=headers,
            body=body,
            _request_timeout=limits,
        )
        response: aiohttp.ClientResponse = answer.response
        return response


def _tear(response: aiohttp.ClientResponse) -> None:
    """End a response at once: a goodbye of TLS would wait for the server, and nobody for it."""
    if response.connection and response.connection.transport:
        response.connection.transport.abort()
    response.close()


def _describe(error: BaseException) -> str:
    return str(error) or type(error).__name__
