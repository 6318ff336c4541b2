"""What a user, a kubelet or an administrator asks of the API server."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import urllib3

Object = dict[str, Any]
T = TypeVar("T")

GROUP = "/apis/labfunctions.io/v1alpha1"
ROOTS = {
    "Project": GROUP,
    "Workflow": GROUP,
    "Backfill": GROUP,
    "Run": GROUP,
    "NodeGroup": GROUP,
    "Job": "/apis/batch/v1",
    "CronJob": "/apis/batch/v1",
    "CapacityBuffer": "/apis/autoscaling.x-k8s.io/v1beta1",
    "NodePool": "/apis/karpenter.sh/v1",
    "Lease": "/apis/coordination.k8s.io/v1",
    "SubjectAccessReview": "/apis/authorization.k8s.io/v1",
}
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON = "application/json"


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


def until(look: Callable[[], T | None], what: str, *, seconds: float = 60) -> T:
    """Call `look` until it returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


class Api:
    """Speaks to the API server with the administrator's certificate."""

    def __init__(self, server: str, pki: Path) -> None:
        self._server = server
        self._pool = urllib3.PoolManager(
            cert_file=str(pki / "admin.crt"),
            key_file=str(pki / "admin.key"),
            ca_certs=str(pki / "ca.crt"),
            maxsize=8,
            retries=False,
            timeout=10,
        )

    def close(self) -> None:
        self._pool.clear()

    def request(
        self, method: str, path: str, body: Any = None, *, content_type: str = JSON
    ) -> Object:
        answer = self._pool.request(
            method,
            f"{self._server}{path}",
            body=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type, "User-Agent": "test"},
        )
        content: Object = json.loads(answer.data)
        if answer.status >= 400:
            raise ApiError(answer.status, content.get("message", ""))
        return content

    def create(self, manifest: Object) -> Object:
        namespace = manifest["metadata"].get("namespace", "")
        query = urlencode({"fieldValidation": "Strict", "fieldManager": "user"})
        return self.request("POST", f"{_path(manifest['kind'], namespace)}?{query}", manifest)

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        try:
            return self.request("GET", _path(kind, namespace, name))
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def list(self, kind: str, namespace: str, selector: str = "") -> list[Object]:
        query = urlencode({"labelSelector": selector})
        items: list[Object] = self.request("GET", f"{_path(kind, namespace)}?{query}")["items"]
        return items

    def patch(
        self,
        kind: str,
        namespace: str,
        name: str,
        change: Object,
        *,
        subresource: str = "",
        content_type: str = MERGE,
    ) -> Object:
        path = _path(kind, namespace, name) + subresource + "?fieldManager=user"
        return self.request("PATCH", path, change, content_type=content_type)

    def delete(self, kind: str, namespace: str, name: str, *, grace: int | None = None) -> None:
        options: Object = {"propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        self.request("DELETE", _path(kind, namespace, name), options)


def condition(obj: Object | None, type: str) -> Object:
    """Return a condition of an object, or an empty one."""
    conditions = ((obj or {}).get("status") or {}).get("conditions") or []
    found: Object = next((c for c in conditions if c["type"] == type), {})
    return found


def _path(kind: str, namespace: str, name: str = "") -> str:
    path = ROOTS.get(kind, "/api/v1")
    if namespace:
        path += f"/namespaces/{namespace}"
    path += f"/{kind.lower()}s"
    return f"{path}/{name}" if name else path
