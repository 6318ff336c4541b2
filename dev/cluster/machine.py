"""The local cluster without a container engine: its processes run on this machine itself."""

import os
import shutil
from datetime import datetime
from pathlib import Path

from dev.cluster import binaries, controlplane, dns, node, systemimages
from dev.cluster.cache import cluster_root, locked
from dev.cluster.controlplane import ControlPlane
from dev.cluster.errors import ClusterError
from dev.cluster.kubectl import Kubectl
from dev.cluster.mounts import unmount_below
from dev.cluster.network import ADDRESS
from dev.cluster.node import Node
from dev.cluster.packages import ensure_packages
from dev.cluster.processes import Supervisor
from dev.cluster.progress import say, step, wait_for
from dev.cluster.registry import start_registry
from dev.cluster.spare import Spare
from dev.cluster.templates import render
from dev.cluster.worker import DNS

COMPONENTS = (*controlplane.COMPONENTS, *node.COMPONENTS, "coredns", "registry")
PROCESSES = ("registry", *reversed(controlplane.PROCESSES), *reversed(node.PROCESSES))


def up() -> Path:
    """Start what does not run, wait until pods can, and return the kubeconfig's path."""
    _require_root()
    with locked("cluster", doing="starting or stopping the cluster"):
        ensure_packages()
        binaries.ensure(COMPONENTS)
        root = cluster_root()
        control = _control_plane(root)
        with step("starting the node's registry"):
            start_registry(root)
        pause, coredns = systemimages.pause_image(), systemimages.coredns_image()
        systemimages.base_image()
        worker = Node(control, pause=pause)
        with step("starting the control plane"):
            worker.prepare()
            control.start()
        with step("starting the node"):
            since = worker.start()
            kubectl = Kubectl(control.kubeconfig)
            kubectl.apply(render("coredns.yaml", image=coredns, address=DNS))
            _await_node(kubectl, worker, since=since)
            _await_dns(worker)
            control.await_default_service_account()
    return control.kubeconfig


def down() -> None:
    """End the cluster and remove all that it left, but for the cache of binaries and images."""
    _require_root()
    root = cluster_root()
    with locked("cluster", doing="starting or stopping the cluster"):
        if not root.exists():
            say("no cluster is there")
            return
        control = _control_plane(root)
        with step("stopping the node and its pods"):
            Spare(control, pause="").stop()
            Node(control, pause="").stop()
        with step("stopping the control plane"):
            control.stop()
            Supervisor(root).stop("registry")
        unmount_below(root)
        shutil.rmtree(root)


def status() -> bool:
    """Print what runs; tell whether all of it does."""
    supervisor = Supervisor(cluster_root())
    pids = {name: supervisor.pid(name) for name in PROCESSES}
    for name, pid in pids.items():
        say(f"{name:<26}{'running, pid ' + str(pid) if pid else 'not running'}")
    kubeconfig = cluster_root() / "kubeconfig"
    if all(pids.values()):
        say(Kubectl(kubeconfig).run("get", "nodes").rstrip())
        say(f"export KUBECONFIG={kubeconfig}")
    return all(pids.values())


def _control_plane(root: Path) -> ControlPlane:
    return ControlPlane(root, node_address=ADDRESS)


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ClusterError("the local cluster needs root, or a Docker engine in its place")


def _await_node(kubectl: Kubectl, worker: Node, *, since: datetime) -> None:
    """Wait until kubelet itself has said, after `since`, that the node is ready."""

    def ready() -> bool:
        worker.require()
        nodes = kubectl.get("nodes")["items"]
        conditions = [c for n in nodes for c in n["status"].get("conditions", [])]
        return any(
            c["type"] == "Ready"
            and c["status"] == "True"
            and datetime.fromisoformat(c["lastHeartbeatTime"]) >= since
            for c in conditions
        )

    wait_for("the node to be ready", ready, seconds=120, interval=0.5)


def _await_dns(worker: Node) -> None:
    def serves() -> bool:
        worker.require()
        return dns.answers(DNS)

    hint = "see `kubectl -n kube-system describe pods`"
    wait_for("the cluster's DNS", serves, seconds=180, interval=0.5, hint=hint)
