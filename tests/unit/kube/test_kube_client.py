"""What the client makes of answers that are hard to provoke at a real server."""

from typing import Any

import pytest
from kubernetes.aio.client import Configuration

from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.reconcile.plan import Ref

POD = Ref(api_version="v1", kind="Pod", namespace="team", name="placeholder-0", uid="u1")


@pytest.mark.parametrize("version", [None, "7"])
async def test_a_deleted_pod_that_others_deleted_meanwhile_is_gone(
    monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    metadata = {"name": POD.name, "uid": POD.uid, "resourceVersion": version}
    known = {key: value for key, value in metadata.items() if value}
    answer = {"apiVersion": "v1", "kind": "Pod", "metadata": known}

    async def request(*_: Any, **__: Any) -> Any:
        return answer

    client = KubeClient(Configuration())
    monkeypatch.setattr(client, "request", request)
    assert await client.delete(POD) == (answer if version else None)
