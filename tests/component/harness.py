"""What component tests share: a kind of their own, faults on the way, and a count of writes."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from labfunctions_operator.kube.events import COMPONENT
from labfunctions_operator.kube.resources import Resource
from labfunctions_operator.reconcile.plan import Ref

Object = dict[str, Any]


def ref_of(obj: Object, uid: str | None = None) -> Ref:
    """Name an object, by default whichever has its name."""
    return Ref.to(obj["apiVersion"], obj["kind"], {**obj["metadata"], "uid": uid})


# A custom resource with a status, so that tests of the client do not hang on our own schemas.
PROBES = Resource("test.labfunctions.io/v1", "Probe", "probes")
PROBE_CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: probes.test.labfunctions.io
spec:
  group: test.labfunctions.io
  scope: Namespaced
  names: {kind: Probe, listKind: ProbeList, plural: probes, singular: probe}
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}}
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec: {type: object, x-kubernetes-preserve-unknown-fields: true}
            status:
              type: object
              x-kubernetes-preserve-unknown-fields: true
              properties:
                phase: {type: string, maxLength: 20}
"""
WRITES = ("create", "patch", "update", "delete")


def probe(namespace: str, name: str = "p", **spec: Any) -> Object:
    return {
        "apiVersion": PROBES.api_version,
        "kind": PROBES.kind,
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec,
    }


def config_map(namespace: str, name: str = "c", **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": name},
        "data": data,
    }


def job(namespace: str, name: str = "j", **container: Any) -> Object:
    """Return a suspended Job: no pod of it will ever want a node."""
    pod = {
        "restartPolicy": "Never",
        "containers": [{"name": "main", "image": "none", **container}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"suspend": True, "template": {"spec": pod}},
    }


def owned(manifest: Object, owner: Object) -> Object:
    """Return the manifest as a child of an owner."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [reference]}}


async def until(condition: Callable[[], Any], what: str, *, seconds: float = 60) -> None:
    """Wait for a condition, or fail with what it was."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 -- what others do has no event
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None


class Audit:
    """What the operator's client asked of the API server about one namespace."""

    def __init__(self, log: Path, namespace: str) -> None:
        self._log = log
        self._namespace = namespace

    async def writes(self) -> list[str]:
        """Return the writes so far as `verb resource[/subresource]`, oldest first."""
        # The log is written once the response is out.
        await asyncio.sleep(0.3)
        found = []
        for line in self._log.read_text().splitlines():
            entry = json.loads(line)
            target = entry.get("objectRef") or {}
            ours = entry.get("userAgent") == COMPONENT and entry["stage"] == "ResponseComplete"
            if ours and entry["verb"] in WRITES and target.get("namespace") == self._namespace:
                parts = (target["resource"], target.get("subresource"))
                found.append(f"{entry['verb']} {'/'.join(filter(None, parts))}")
        return found

    async def count(self) -> Counter[str]:
        return Counter(await self.writes())


class Proxy:
    """A TCP proxy in front of the API server that can fail in several ways.

    Attributes:
        port: Where it listens.
        peak: The most connections that were open at once.
        delay: Seconds that each piece of a response is held back.
        refusing: Close new connections at once.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.peak = 0
        self.delay = 0.0
        self.refusing = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
            self.cut()
            self._flowing.set()
            await until(lambda: not self._open, "the proxy's connections are closed")

    def cut(self) -> None:
        """Break all connections and let none in until `restore`."""
        self.refusing = True
        for writer in self._open:
            writer.transport.abort()

    def silence(self) -> None:
        """Forward nothing more until `restore`, yet keep connections open."""
        self._flowing.clear()

    def restore(self) -> None:
        self.refusing = False
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        self._open.add(writer)
        self.peak = max(self.peak, len(self._open))
        with suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(
                self._pump(reader, back, 0.0), self._pump(there, writer, self.delay)
            )
        self._open.discard(writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float
    ) -> None:
        """Forward one direction; its end is the other's, too."""
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                await asyncio.sleep(delay)
                writer.write(data)
                await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
