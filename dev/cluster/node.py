"""The node: containerd and kubelet on this machine, its network and kube-proxy."""

import shutil
from datetime import datetime

from dev.cluster.binaries import executable
from dev.cluster.command import run
from dev.cluster.controlplane import POD_RANGE, ControlPlane
from dev.cluster.network import Network
from dev.cluster.pki import Identity, ensure_pki
from dev.cluster.processes import Service, Supervisor
from dev.cluster.templates import write_config
from dev.cluster.traces import remove_traces
from dev.cluster.worker import Worker

COMPONENTS = ("containerd", "runc")
NAME = "labfunctions"
PROCESSES = ("kube-proxy", "kubelet", "containerd")


class Node:
    """The single node of the local cluster."""

    def __init__(self, control: ControlPlane, *, pause: str) -> None:
        """Describe the node.

        Args:
            control: The control plane that it joins.
            pause: The image that holds a pod's namespaces.
        """
        self._control = control
        self._root = control.root
        self._supervisor = Supervisor(control.root)
        self._network = Network(control.root)
        self._worker = Worker(control, root=control.root, name=NAME, pause=pause)

    def prepare(self) -> None:
        """Make the network that carries the node's address."""
        self._root.mkdir(parents=True, exist_ok=True)
        self._network.up()

    def start(self) -> datetime:
        """Start what does not run; return since when kubelet runs, in whole seconds."""
        since = self._worker.start()
        ensure_pki(self._control.pki, (Identity("kube-proxy", "system:kube-proxy"),))
        self._supervisor.ensure(self._kube_proxy())
        return since

    def require(self) -> None:
        """Check that the node's processes live."""
        self._supervisor.require(*PROCESSES)

    def stop(self) -> None:
        """End the node with all of its pods, and leave nothing of it in the kernel."""
        self._supervisor.stop("kube-proxy")
        self._worker.stop()
        if executable("kube-proxy").exists() and shutil.which("iptables"):
            run([executable("kube-proxy"), "--cleanup"], log=self._root / "logs" / "cleanup.log")
        self._network.down()
        remove_traces(self._root)

    def _kube_proxy(self) -> Service:
        config = write_config(
            self._root / "config" / "kube-proxy.yaml",
            "kube-proxy.yaml",
            kubeconfig=self._control.kubeconfig_for("kube-proxy"),
            node=NAME,
            pods=POD_RANGE,
        )
        return Service(
            "kube-proxy", (str(executable("kube-proxy")), f"--config={config}"), files=(config,)
        )
