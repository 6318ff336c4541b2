"""The node: containerd, kubelet and kube-proxy on this machine."""

import ipaddress
import os
import shutil
import signal
from datetime import datetime
from pathlib import Path

from dev.cluster import cgroups
from dev.cluster.binaries import executable
from dev.cluster.command import run
from dev.cluster.controlplane import POD_RANGE, ControlPlane
from dev.cluster.mounts import unmount_below
from dev.cluster.network import ADDRESS, BRIDGE, Network
from dev.cluster.network import POD_RANGE as NODE_RANGE
from dev.cluster.packages import CNI_FOLDER
from dev.cluster.pki import LOOPBACK, Identity
from dev.cluster.processes import Service, Supervisor
from dev.cluster.progress import wait_for
from dev.cluster.registry import HOST, HOST_FROM_PODS, PORT
from dev.cluster.templates import write_config
from dev.cluster.traces import accepts, remove_traces

COMPONENTS = ("containerd", "runc")
NAME = "labfunctions"
DNS = "10.96.0.10"
# The chart's registry, which the nodes know by this NodePort.
CHART_REGISTRY = "localhost:30500"
PROCESSES = ("kube-proxy", "kubelet", "containerd")
IDENTITIES = (
    Identity("kubelet", f"system:node:{NAME}", "system:nodes", hosts=(NAME, LOOPBACK, ADDRESS)),
    Identity("kube-proxy", "system:kube-proxy"),
)


class Node:
    """The single node of the local cluster."""

    def __init__(self, control: ControlPlane, *, pause: str) -> None:
        """Describe the node.

        Args:
            control: The control plane that it joins.
            pause: The image that holds a pod's namespaces.
        """
        self._control = control
        self._pause = pause
        self._root = control.root
        self._supervisor = Supervisor(control.root)
        self._network = Network(control.root)
        self._socket = control.root / "containerd" / "containerd.sock"

    def prepare(self) -> None:
        """Make the network that carries the node's address."""
        self._root.mkdir(parents=True, exist_ok=True)
        self._network.up()

    def start(self) -> datetime:
        """Start what does not run; return since when kubelet runs, in whole seconds."""
        cgroups.ensure_cgroup()
        self._write_hosts()
        self._supervisor.ensure(self._containerd())

        def serves() -> bool:
            self._supervisor.require("containerd")
            return accepts(self._socket)

        wait_for("containerd", serves, seconds=30)
        self._supervisor.ensure(self._kubelet())
        self._supervisor.ensure(self._kube_proxy())
        return self._supervisor.started_at("kubelet").replace(microsecond=0)

    def require(self) -> None:
        """Check that the node's processes live."""
        self._supervisor.require(*PROCESSES)

    def stop(self) -> None:
        """End the node with all of its pods, and leave nothing of it in the kernel."""
        for name in PROCESSES:
            self._supervisor.stop(name)
        cgroups.kill_all()
        self._kill_shims()
        cgroups.kill_all()
        if executable("kube-proxy").exists() and shutil.which("iptables"):
            run([executable("kube-proxy"), "--cleanup"], log=self._root / "logs" / "cleanup.log")
        self._network.down()
        unmount_below(self._root)
        cgroups.remove_cgroup()
        remove_traces(self._root)

    def _kill_shims(self) -> None:
        """Kill containerd's shims: they outlive it, and the records know nothing of them."""
        address = str(self._socket).encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                argv = (process / "cmdline").read_bytes().split(b"\0")
                if argv[0].endswith(b"containerd-shim-runc-v2") and address in argv:
                    os.kill(int(process.name), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                continue

    def _write_hosts(self) -> None:
        """Tell containerd which registries are reached in plain HTTP, and the mirror."""
        servers = {
            "docker.io": f"http://{LOOPBACK}:{PORT}",
            HOST: f"http://{LOOPBACK}:{PORT}",
            HOST_FROM_PODS: f"http://{LOOPBACK}:{PORT}",
            CHART_REGISTRY: f"http://{LOOPBACK}:{CHART_REGISTRY.rpartition(':')[2]}",
        }
        for host, server in servers.items():
            write_config(self._root / "hosts" / host / "hosts.toml", "hosts.toml", server=server)

    def _containerd(self) -> Service:
        config = write_config(
            self._root / "config" / "containerd.toml",
            "containerd.toml",
            root=self._root,
            pause=self._pause,
            cni=CNI_FOLDER,
            runc=executable("runc"),
        )
        network = write_config(
            self._root / "cni" / "conf" / "10-bridge.conflist",
            "bridge.conflist",
            root=self._root,
            bridge=BRIDGE,
            range=NODE_RANGE,
        )
        binary = executable("containerd")
        return Service(
            "containerd",
            (str(binary), f"--config={config}"),
            # It finds its shim by the search path.
            env={"PATH": f"{binary.parent}:{os.environ['PATH']}"},
            files=(config, network),
        )

    def _kubelet(self) -> Service:
        config = write_config(
            self._root / "config" / "kubelet.yaml",
            "kubelet.yaml",
            root=self._root,
            address=ADDRESS,
            dns=DNS,
            cgroup=cgroups.CGROUP,
            resolver=resolver_file(),
        )
        return Service(
            "kubelet",
            (
                str(executable("kubelet")),
                f"--config={config}",
                f"--kubeconfig={self._control.kubeconfig_for('kubelet')}",
                f"--root-dir={self._root / 'kubelet'}",
                f"--hostname-override={NAME}",
                f"--node-ip={ADDRESS}",
            ),
            files=(config,),
        )

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


def resolver_file() -> Path:
    """Return the resolver configuration that pods can use: not one that names the loopback."""
    usual, beyond_stub = Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")
    servers = [
        line.split()[1] for line in usual.read_text().splitlines() if line.startswith("nameserver ")
    ]
    if beyond_stub.exists() and all(ipaddress.ip_address(s).is_loopback for s in servers):
        return beyond_stub
    return usual
