"""What the client promises, kept by a real API server."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import yaml
from kubernetes.aio.config import incluster_config

from dev.cluster.controlplane import ControlPlane
from dev.cluster.kubectl import Kubectl
from labfunctions_operator.errors import Denied, InvalidSpec, NotFound, Transient
from labfunctions_operator.kube import client as client_module
from labfunctions_operator.kube import connection
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.kube.connection import MAX_IN_FLIGHT
from labfunctions_operator.kube.failures import AlreadyExists, Conflict
from labfunctions_operator.kube.resources import CONFIG_MAPS, JOBS, NODES
from labfunctions_operator.reconcile.plan import Event

from .harness import PROBES, Audit, Proxy, config_map, job, probe, ref_of, until

Object = dict[str, Any]


async def set_status(client: KubeClient, obj: Object, status: Object, **changes: Any) -> Object:
    metadata = obj["metadata"]
    arguments = {
        "api_version": obj["apiVersion"],
        "kind": obj["kind"],
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        **changes,
    }
    return await client.patch_status(status=status, **arguments)


async def test_client_writes_a_guarded_status_onto_the_version_that_was_read_only(
    client: KubeClient, namespace: str
) -> None:
    read = await client.create(probe(namespace))
    version = read["metadata"]["resourceVersion"]
    written = await set_status(client, read, {"phase": "One"}, version=version)
    with pytest.raises(Conflict):
        await set_status(client, read, {"phase": "Two"}, version=version)
    assert (await client.get(PROBES.api_version, "Probe", namespace, "p")) == written
    with pytest.raises(NotFound):
        await set_status(client, read, {"phase": "Two"}, version=version, uid="another")


async def test_client_starts_no_thread_for_a_request(
    client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.create(config_map(namespace))

    def refuse(*_: object) -> None:
        raise AssertionError("a thread")

    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)
    await client.list(CONFIG_MAPS, namespace=namespace)


async def exhaust(events: AsyncGenerator[Any, None]) -> None:
    async for _ in events:
        pass


async def test_client_apply_creates_and_a_repeat_changes_nothing(
    client: KubeClient, namespace: str
) -> None:
    first = await client.apply(config_map(namespace, key="1"))
    again = await client.apply(config_map(namespace, key="1"))
    assert first["metadata"]["managedFields"][0]["manager"] == "labfunctions"
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert client.requests["apply", 201] == client.requests["apply", 200] == 1


async def test_client_apply_removes_fields_it_no_longer_wants_and_takes_others(
    client: KubeClient, kubectl: Kubectl, namespace: str
) -> None:
    await client.apply(config_map(namespace, ours="1", dropped="1"))
    kubectl.run("patch", "cm", "c", "-n", namespace, "-p", '{"data": {"ours": "2", "theirs": "2"}}')
    applied = await client.apply(config_map(namespace, ours="1"))
    assert applied["data"] == {"ours": "1", "theirs": "2"}


async def test_client_create_says_when_it_exists(client: KubeClient, namespace: str) -> None:
    await client.create(job(namespace))
    with pytest.raises(AlreadyExists):
        await client.create(job(namespace))


@pytest.mark.parametrize(
    ("container", "path"),
    [
        ({"resources": {"limits": {"cpu": "lots"}}}, "spec"),
        (
            {"resources": {"limits": {"cpu": "-1"}}},
            "spec.template.spec.containers[0].resources.limits[cpu]",
        ),
        ({"comand": ["x"]}, "spec.template.spec.containers[0].comand"),
        ({"env": [{"value": "nameless"}]}, "spec.template.spec.containers[0].env[0].name"),
        ({"env": 7}, "spec.template.spec.containers.env"),
    ],
)
async def test_client_reports_what_the_server_refuses_in_a_users_manifest(
    client: KubeClient, namespace: str, container: Object, path: str
) -> None:
    with pytest.raises(InvalidSpec) as refused:
        await client.create(job(namespace, **container))
    assert refused.value.path == path
    assert refused.value.message


@pytest.mark.parametrize(
    "container", [{"comand": ["x"]}, {"resources": {"limits": {"cpu": "lots"}}}]
)
async def test_client_reports_what_apply_refuses(
    client: KubeClient, namespace: str, container: Object
) -> None:
    with pytest.raises(InvalidSpec):
        await client.apply(job(namespace, **container))


async def test_client_status_is_replaced_as_a_whole(client: KubeClient, namespace: str) -> None:
    obj = await client.apply(probe(namespace, size=1))
    await set_status(
        client, obj, {"phase": "Running", "progress": {"cell": 1, "cells": 2}, "list": [1, 2]}
    )
    written = await set_status(client, obj, {"phase": "Done", "progress": {"cells": 2}})
    assert written["status"] == {"phase": "Done", "progress": {"cells": 2}}
    assert written["spec"] == {"size": 1}
    stored = await client.get(PROBES.api_version, "Probe", namespace, "p")
    assert stored["status"] == {"phase": "Done", "progress": {"cells": 2}}


async def test_client_status_of_another_uid_is_refused(client: KubeClient, namespace: str) -> None:
    obj = await client.apply(probe(namespace))
    await set_status(client, obj, {"phase": "Mine"})
    with pytest.raises(NotFound):
        await set_status(client, obj, {"phase": "Stolen"}, uid="11111111-2222")
    stored = await client.get(PROBES.api_version, "Probe", namespace, "p")
    assert stored["status"] == {"phase": "Mine"}


async def test_client_status_of_a_missing_object_is_not_found(
    client: KubeClient, namespace: str
) -> None:
    obj = await client.apply(probe(namespace))
    with pytest.raises(NotFound):
        await set_status(client, obj, {}, name="absent")


async def test_client_status_that_the_schema_refuses_names_the_field(
    client: KubeClient, namespace: str
) -> None:
    obj = await client.apply(probe(namespace))
    with pytest.raises(InvalidSpec) as refused:
        await set_status(client, obj, {"phase": 3})
    assert refused.value.path == "status.phase"


async def test_client_get_of_a_missing_object_is_not_found(
    client: KubeClient, namespace: str
) -> None:
    with pytest.raises(NotFound):
        await client.get("v1", "Secret", namespace, "absent")


async def test_client_delete_succeeds_and_again(client: KubeClient, namespace: str) -> None:
    obj = await client.apply(config_map(namespace))
    assert await client.delete(ref_of(obj, obj["metadata"]["uid"])) is None
    assert await client.delete(ref_of(obj)) is None
    with pytest.raises(NotFound):
        await client.get("v1", "ConfigMap", namespace, "c")


async def test_client_delete_spares_another_object_of_the_name(
    client: KubeClient, namespace: str
) -> None:
    obj = await client.apply(config_map(namespace))
    assert await client.delete(ref_of(obj, "11111111-2222")) is None
    assert await client.get("v1", "ConfigMap", namespace, "c")


async def test_client_delete_returns_what_lives_on(client: KubeClient, namespace: str) -> None:
    manifest = config_map(namespace)
    manifest["metadata"]["finalizers"] = ["test.labfunctions.io/hold"]
    obj = await client.apply(manifest)
    remaining = await client.delete(ref_of(obj))
    assert remaining is not None
    assert "deletionTimestamp" in remaining["metadata"]
    await client.apply(config_map(namespace))


async def test_client_lists_in_pages_and_says_what_items_are(
    client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await client.apply(probe(namespace, f"p{number}"))
    monkeypatch.setattr(client_module, "PAGE", 2)
    items, version = await client.list(PROBES, namespace=namespace)
    assert [item["metadata"]["name"] for item in items] == ["p0", "p1", "p2", "p3", "p4"]
    assert {(item["apiVersion"], item["kind"]) for item in items} == {(PROBES.api_version, "Probe")}
    assert int(version) > 0
    assert client.requests["list", 200] == 3


async def test_client_list_honours_a_label_selector(client: KubeClient, namespace: str) -> None:
    marked = job(namespace, "marked")
    marked["metadata"]["labels"] = {"labfunctions.io/run": "r"}
    await client.create(marked)
    await client.create(job(namespace, "foreign"))
    listed = await client.list(JOBS, namespace=namespace, label_selector="labfunctions.io/run")
    assert [item["metadata"]["name"] for item in listed.items] == ["marked"]
    assert listed.items[0]["kind"] == "Job"


async def test_client_watch_shows_what_happens_after_a_version(
    client: KubeClient, namespace: str
) -> None:
    version = (await client.list(PROBES)).resource_version
    obj = await client.apply(probe(namespace))
    await set_status(client, obj, {"phase": "Done"})
    await client.delete(ref_of(obj))
    seen = []
    async with aclosing(client.watch(PROBES, resource_version=version)) as events:
        async for kind, seen_object in events:
            if seen_object["metadata"].get("namespace") == namespace:
                seen.append((kind, (seen_object.get("status") or {}).get("phase")))
            if kind == "DELETED":
                break
    assert seen == [("ADDED", None), ("MODIFIED", "Done"), ("DELETED", "Done")]


async def test_client_watch_of_a_broken_connection_is_transient(
    proxied: KubeClient, proxy: Proxy
) -> None:
    version = (await proxied.list(PROBES)).resource_version
    asyncio.get_running_loop().call_later(0.5, proxy.cut)
    with pytest.raises(Transient):
        await exhaust(proxied.watch(PROBES, resource_version=version))


async def test_client_watch_ends_when_it_hears_nothing(
    proxied: KubeClient, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "WATCH_SILENCE", 0.5)
    version = (await proxied.list(PROBES)).resource_version
    started = time.monotonic()
    await exhaust(proxied.watch(PROBES, resource_version=version))
    assert 0.5 <= time.monotonic() - started < 5


async def test_client_keeps_a_bounded_number_of_requests_in_flight_beside_its_watches(
    proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    await proxied.apply(config_map(namespace))
    version = (await proxied.list(PROBES)).resource_version
    async with aclosing(proxied.watch(PROBES, resource_version=version)) as events:
        watching = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.3)
        proxy.delay = 0.02
        reads = (proxied.get("v1", "ConfigMap", namespace, "c") for _ in range(300))
        assert len(await asyncio.gather(*reads)) == 300
        watching.cancel()
        await asyncio.wait([watching])
    # A connection carries one request at a time, so this counts requests too.
    assert proxy.peak == MAX_IN_FLIGHT + 1


async def test_client_refused_connection_is_transient(proxied: KubeClient, proxy: Proxy) -> None:
    proxy.cut()
    with pytest.raises(Transient):
        await proxied.list(NODES)
    assert proxied.requests["list", 0] == 1


@asynccontextmanager
async def scripted_server(answer: bytes | None) -> AsyncIterator[str]:
    """Serve one answer to everything; None keeps the caller waiting."""
    release = asyncio.Event()
    open_connections: set[asyncio.StreamWriter] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_connections.add(writer)
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await release.wait()
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        open_connections.remove(writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        release.set()
        await until(lambda: not open_connections, "all connections are closed")


async def connect_to(server: str, folder: Path) -> KubeClient:
    kubeconfig = folder / "scripted"
    cluster = {"name": "c", "cluster": {"server": server}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    document = {
        "clusters": [cluster],
        "contexts": [context],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c",
    }
    kubeconfig.write_text(yaml.safe_dump(document))
    return await KubeClient.connect(str(kubeconfig))


async def test_client_gives_up_on_a_server_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REQUEST_TIMEOUT", aiohttp.ClientTimeout(total=0.3))
    async with scripted_server(None) as server:
        client = await connect_to(server, tmp_path)
        with pytest.raises(Transient):
            await client.list(NODES)
        await client.close()


async def test_client_passes_on_how_long_to_wait(tmp_path: Path) -> None:
    head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n"
    async with scripted_server(head) as server:
        client = await connect_to(server, tmp_path)
        with pytest.raises(Transient) as busy:
            await client.list(NODES)
        assert busy.value.retry_after == 3.0
        await client.close()


async def test_client_events_are_told_once_and_shown_by_describe(
    client: KubeClient, kubectl: Kubectl, namespace: str
) -> None:
    obj = await client.apply(probe(namespace))
    event = Event(type="Warning", reason="BuildFailed", message="no such image")
    name = await client.create_event(obj, event)
    assert await client.create_event(obj, event) == name
    await client.count_event(obj, name, 3)
    [told] = kubectl.get("events", "-n", namespace)["items"]
    assert told["count"] == 3
    described = kubectl.run("describe", "probes.test.labfunctions.io/p", "-n", namespace)
    line = described.splitlines()[-1].split()
    assert line[:2] == ["Warning", "BuildFailed"]
    assert line[-4:] == ["labfunctions-operator", "no", "such", "image"]


def write_service_account(
    kubectl: Kubectl, namespace: str, *, name: str, role: str | None
) -> Callable[[Path], None]:
    """Make an account, with a role if named, and return what writes a token of it to a file."""
    kubectl.run("create", "serviceaccount", name, "-n", namespace)
    if role:
        kubectl.run(
            "create",
            "rolebinding",
            name,
            f"--clusterrole={role}",
            f"--serviceaccount={namespace}:{name}",
            "-n",
            namespace,
        )
    token = kubectl.run("create", "token", name, "-n", namespace).strip()
    return lambda path: path.write_text(token) and None


async def test_client_in_the_cluster_follows_a_rotated_token(
    control_plane: ControlPlane,
    kubectl: Kubectl,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = write_service_account(kubectl, namespace, name="nobody", role=None)
    second = write_service_account(kubectl, namespace, name="viewer", role="view")
    token = tmp_path / "token"
    first(token)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(control_plane.ports.apiserver))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    authority = str(control_plane.pki / "ca.crt")
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", authority)
    client = await KubeClient.connect()
    with pytest.raises(Denied):
        await client.list(CONFIG_MAPS, namespace=namespace)
    second(token)
    now = incluster_config.datetime.datetime.now
    later = incluster_config.datetime.timedelta(minutes=2)
    clock = SimpleNamespace(
        datetime=SimpleNamespace(now=lambda: now() + later),
        timedelta=incluster_config.datetime.timedelta,
    )
    monkeypatch.setattr(incluster_config, "datetime", clock)
    assert (await client.list(CONFIG_MAPS, namespace=namespace)).resource_version
    await client.close()


async def test_client_writes_are_seen_by_the_audit(
    client: KubeClient, audit: Audit, namespace: str
) -> None:
    obj = await client.apply(probe(namespace))
    await set_status(client, obj, {"phase": "Done"})
    await client.get(PROBES.api_version, "Probe", namespace, "p")
    await client.delete(ref_of(obj))
    assert await audit.writes() == ["patch probes", "patch probes/status", "delete probes"]
