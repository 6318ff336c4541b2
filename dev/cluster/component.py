"""A control plane with fake nodes, for tests: seconds to start, and gone when the test ends."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev.cluster import binaries, controlplane, kwok
from dev.cluster.cache import cache_root
from dev.cluster.controlplane import ControlPlane, free_ports
from dev.cluster.kwok import Kwok
from dev.cluster.processes import Supervisor, start_time


@dataclass(frozen=True)
class ComponentCluster:
    """What a test gets."""

    control: ControlPlane
    kwok: Kwok

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.control.kubeconfig

    @property
    def audit_log(self) -> Path:
        """The file to which the API server writes each request it answered."""
        return self.control.audit_log


@contextmanager
def component_cluster(
    root: Path, *, nodes: int = 1, audit: bool = True, complete_jobs: bool = True
) -> Iterator[ComponentCluster]:
    """Run a control plane with fake nodes.

    Args:
        root: An empty folder for keys, data and logs.
        nodes: How many fake nodes; more, with labels and sizes, come by `kwok.add_nodes`.
        audit: Whether the API server logs every request.
        complete_jobs: Whether the pods of Jobs succeed at once; else they run until the test
            patches their status.
    """
    binaries.ensure((*controlplane.COMPONENTS, *kwok.COMPONENTS))
    ports = free_ports()
    control = ControlPlane(
        root,
        etcd_port=ports.etcd,
        etcd_peer_port=ports.etcd_peer,
        apiserver_port=ports.apiserver,
        audit=audit,
    )
    fake = Kwok(control, complete_jobs=complete_jobs)
    end_abandoned()
    mark = _mark(root)
    try:
        control.start()
        fake.start()
        if nodes:
            fake.add_nodes(nodes)
        control.await_default_service_account()
        yield ComponentCluster(control, fake)
    finally:
        fake.stop()
        control.stop()
        mark.unlink()


def end_abandoned() -> None:
    """End the clusters of test processes that were killed before they could do it."""
    for mark in _marks().glob("*-*"):
        pid, started, _ = mark.name.split("-")
        if start_time(int(pid)) != int(started):
            supervisor = Supervisor(mark.readlink())
            for name in supervisor.names():
                supervisor.stop(name, grace=0)
            mark.unlink()


def _mark(root: Path) -> Path:
    """Leave a link to a cluster, named after the process that owns it."""
    mark = _marks() / f"{os.getpid()}-{start_time(os.getpid())}-{time.monotonic_ns()}"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.symlink_to(root.resolve())
    return mark


def _marks() -> Path:
    return cache_root() / "component"
