"""A client of the API server with a bounded number of requests and a few exact verbs.

It borrows configuration, credentials and transport from `kubernetes.aio` and speaks plain
dictionaries, as the operator handles kinds that the generated models do not know.
"""

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config as kubeconfigs
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from labfunctions_operator.errors import InvalidSpec, NotFound, Transient
from labfunctions_operator.kube.events import COMPONENT, build_event
from labfunctions_operator.kube.failures import AlreadyExists, Conflict, TooManyRequests, failure_of
from labfunctions_operator.kube.resources import Resource, find_resource
from labfunctions_operator.reconcile.plan import Event, Manifest, Ref

Object = dict[str, Any]

FIELD_MANAGER = "labfunctions"
MAX_IN_FLIGHT = 32
PAGE = 500
REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
# Bookmarks come once a minute on a live watch.
WATCH_SILENCE = 70.0
WATCH_SECONDS = (270, 330)

_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_JSON_PATCH = "application/json-patch+json"
_BROKEN = (aiohttp.ClientError, TimeoutError, OSError)


class ListResult(NamedTuple):
    """All objects of a resource as they were at one version."""

    items: list[Object]
    resource_version: str


class KubeClient:
    """Talks to one API server; every failure is one of ours (`errors`, `kube.failures`).

    Attributes:
        requests: How many requests ended, by verb and HTTP code; code 0 had no answer.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self._configuration: Any = configuration
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

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object:
        """Return one object, or raise NotFound."""
        path = find_resource(api_version, kind).path(namespace=namespace, name=name)
        return await self._request("get", "GET", path)

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> ListResult:
        """Return a consistent list, read in pages; raises Gone if it takes too long."""
        path = resource.path(namespace=namespace)
        query = {
            "limit": str(PAGE),
            "labelSelector": label_selector or "",
            "fieldSelector": field_selector or "",
            "continue": "",
        }
        items: list[Object] = []
        while True:
            page = await self._request("list", "GET", path, query=query)
            items += (_typed(item, resource) for item in page.get("items") or ())
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                return ListResult(items, page["metadata"]["resourceVersion"])

    async def watch(
        self, resource: Resource, *, resource_version: str, label_selector: str | None = None
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Yield (type, object) for what changes after a version, bookmarks included.

        Ends after some minutes or when nothing was heard for a while: watch again from the last
        version seen. Raises Gone if that version is no longer kept, Transient if the connection
        broke.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "labelSelector": label_selector or "",
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),
        }
        what = f"watch {resource.plural}"
        limits = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=WATCH_SILENCE)
        try:
            response = await self._send(
                "GET", resource.path(), query=query, content_type=_JSON, limits=limits
            )
            try:
                self.requests["watch", response.status] += 1
                if response.status >= 400:
                    raise failure_of(what, response.status, await response.read(), response.headers)
                async for line in response.content:
                    yield _parse_event(what, line)
            finally:
                response.close()
        except aiohttp.SocketTimeoutError:
            return
        except (*_BROKEN, ValueError) as error:
            raise Transient(f"{what}: {_describe(error)}") from error

    async def create(self, manifest: Manifest) -> Object:
        """Create an object, or raise AlreadyExists."""
        metadata = manifest["metadata"]
        resource = find_resource(manifest["apiVersion"], manifest["kind"])
        return await self._request(
            "create",
            "POST",
            resource.path(namespace=metadata.get("namespace")),
            query={"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"},
            body=manifest,
        )

    async def apply(self, manifest: Manifest, *, force: bool = True) -> Object:
        """Create or update an object by server-side apply.

        With force, fields are taken from other managers; without, Drifted is raised for the first
        one that another manager holds with another value.
        """
        metadata = manifest["metadata"]
        resource = find_resource(manifest["apiVersion"], manifest["kind"])
        return await self._request(
            "apply",
            "PATCH",
            resource.path(namespace=metadata.get("namespace"), name=metadata["name"]),
            query={
                "fieldManager": FIELD_MANAGER,
                "force": "true" if force else "",
                "fieldValidation": "Strict",
            },
            body=manifest,
            content_type=_APPLY,
        )

    async def patch_status(
        self,
        *,
        api_version: str,
        kind: str,
        namespace: str,
        name: str,
        status: Mapping[str, Any],
        uid: str,
        version: str | None = None,
    ) -> Object:
        """Replace the whole status of the object with that uid, or raise NotFound.

        With a version, raise Conflict if the object has changed since.

        A JSON patch, since a merge patch keeps fields that are gone from the status, and custom
        resources ignore a foreign `metadata.uid` in it.
        """
        path = find_resource(api_version, kind).path(
            namespace=namespace, name=name, subresource="status"
        )
        # A version that is written is taken for the one that was read.
        guard = {"op": "replace", "path": "/metadata/resourceVersion", "value": version}
        operations: Sequence[Object] = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": status},
            *([guard] if version is not None else []),
        ]
        return await self._patch("patch_status", path, operations)

    async def cancel(self, ref: Ref) -> Object:
        """Set `spec.cancel` of the Run with that uid, or raise NotFound."""
        path = find_resource(ref.api_version, ref.kind).path(namespace=ref.namespace, name=ref.name)
        operations: Sequence[Object] = [
            {"op": "test", "path": "/metadata/uid", "value": ref.uid},
            {"op": "add", "path": "/spec/cancel", "value": True},
        ]
        return await self._patch("cancel", path, operations)

    async def _patch(self, verb: str, path: str, operations: Sequence[Object]) -> Object:
        """Send a JSON patch that begins with a test of the uid."""
        try:
            return await self._request(
                verb,
                "PATCH",
                path,
                query={"fieldManager": FIELD_MANAGER},
                body=operations,
                content_type=_JSON_PATCH,
            )
        except InvalidSpec as error:
            # A failed test has no better sign; a status that the schema refuses names a field.
            if "rejected our request" not in error.message:
                raise
            uid = operations[0]["value"]
            raise NotFound(f"{path} is no longer the object with uid {uid}") from error

    async def create_event(self, obj: Mapping[str, Any], event: Event) -> None:
        """Record an Event about this version of an object; a repeat changes nothing."""
        with suppress(AlreadyExists):
            await self.create(build_event(obj, event, datetime.now(UTC)))

    async def delete(self, ref: Ref) -> Object | None:
        """Delete an object and, in the background, its dependents unless they are to stay.

        Being gone is success.

        Returns:
            The object if it lives on until its finalizers or grace period are over, else None.
        """
        path = find_resource(ref.api_version, ref.kind).path(namespace=ref.namespace, name=ref.name)
        options: Object = {"propagationPolicy": "Orphan" if ref.orphan else "Background"}
        if ref.uid:
            options["preconditions"] = {"uid": ref.uid}
        try:
            answer = await self._request("delete", "DELETE", path, body=options)
        except NotFound:
            return None
        except Conflict as error:
            # The server words it in two ways, by how far the deletion came.
            if ref.uid and " UID in " in str(error):
                return None
            raise
        return answer if answer.get("kind") == ref.kind else None

    async def evict(self, ref: Ref) -> bool:
        """Ask a pod to leave its node; say whether it may, which a budget can forbid for now."""
        path = find_resource(ref.api_version, ref.kind).path(
            namespace=ref.namespace, name=ref.name, subresource="eviction"
        )
        body: Object = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": ref.name, "namespace": ref.namespace},
        }
        if ref.uid:
            body["deleteOptions"] = {"preconditions": {"uid": ref.uid}}
        try:
            await self._request("evict", "POST", path, body=body)
        except NotFound:
            return True
        except TooManyRequests:
            return False
        return True

    async def _request(
        self,
        verb: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = _JSON,
    ) -> Object:
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


def _parse_event(what: str, line: bytes) -> tuple[str, Object]:
    event = json.loads(line)
    if event["type"] != "ERROR":
        return event["type"], event["object"]
    code = event["object"].get("code") or 500
    raise failure_of(what, code, json.dumps(event["object"]).encode())


def _typed(item: Object, resource: Resource) -> Object:
    """Lists leave out what each of their items is."""
    return {"apiVersion": resource.api_version, "kind": resource.kind, **item}


def _describe(error: BaseException) -> str:
    return str(error) or type(error).__name__
