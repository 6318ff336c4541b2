"""A client of the API server: a few exact verbs, over plain dictionaries."""

import json
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from labfunctions_operator.api.labels import FIELD_MANAGER
from labfunctions_operator.api.times import rfc3339
from labfunctions_operator.errors import InvalidSpec, NotFound
from labfunctions_operator.kube.connection import Connection, Object
from labfunctions_operator.kube.events import EVENTS_OF_CLUSTER, build_event
from labfunctions_operator.kube.failures import AlreadyExists, Conflict, failure_of
from labfunctions_operator.kube.resources import EVENTS, Resource, find_resource
from labfunctions_operator.reconcile.plan import Event, Manifest, Ref

PAGE = 500
# Drawn for each watch, so that they do not all end at once.
WATCH_SECONDS = (270, 330)

_APPLY = "application/apply-patch+yaml"
_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"


class ListResult(NamedTuple):
    """All objects of a resource as they were at one version."""

    items: list[Object]
    resource_version: str


class KubeClient(Connection):
    """Reads and writes objects."""

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object:
        """Return one object, or raise NotFound."""
        path = find_resource(api_version, kind).path(namespace=namespace, name=name)
        return await self.request("get", "GET", path)

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
            page = await self.request("list", "GET", path, query=query)
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
        async with aclosing(self.stream(what, resource.path(), query)) as events:
            async for event in events:
                yield _read_event(what, event)

    async def create(self, manifest: Manifest) -> Object:
        """Create an object, or raise AlreadyExists."""
        metadata = manifest["metadata"]
        resource = find_resource(manifest["apiVersion"], manifest["kind"])
        return await self.request(
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
        return await self.request(
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
            return await self.request(
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

    async def create_event(self, obj: Mapping[str, Any], event: Event) -> str:
        """Record an Event about this version of an object, once; return its name."""
        manifest = build_event(obj, event, datetime.now(UTC))
        with suppress(AlreadyExists):
            await self.create(manifest)
        name: str = manifest["metadata"]["name"]
        return name

    async def count_event(self, obj: Mapping[str, Any], name: str, count: int) -> None:
        """Say that an Event about an object was told once more."""
        namespace = obj["metadata"].get("namespace", EVENTS_OF_CLUSTER)
        await self.request(
            "count",
            "PATCH",
            EVENTS.path(namespace=namespace, name=name),
            query={"fieldManager": FIELD_MANAGER},
            body={"count": count, "lastTimestamp": rfc3339(datetime.now(UTC))},
            content_type=_MERGE_PATCH,
        )

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
            answer = await self.request("delete", "DELETE", path, body=options)
        except NotFound:
            return None
        except Conflict as error:
            # The server words it in two ways, by how far the deletion came.
            if ref.uid and " UID in " in str(error):
                return None
            raise
        # A pod without a version is the last that was seen of one that others deleted meanwhile.
        lives_on = answer.get("kind") == ref.kind and answer["metadata"].get("resourceVersion")
        return answer if lives_on else None

    async def evict(self, ref: Ref) -> None:
        """Ask a pod to leave its node; being gone is success.

        Raises:
            TooManyRequests: A disruption budget forbids it for now.
        """
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
        with suppress(NotFound):
            await self.request("evict", "POST", path, body=body)


def _read_event(what: str, event: Object) -> tuple[str, Object]:
    if event["type"] != "ERROR":
        return event["type"], event["object"]
    code = event["object"].get("code") or 500
    raise failure_of(what, code, json.dumps(event["object"]).encode())


def _typed(item: Object, resource: Resource) -> Object:
    """Lists leave out what each of their items is."""
    return {"apiVersion": resource.api_version, "kind": resource.kind, **item}
