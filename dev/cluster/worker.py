"""One node's containerd and kubelet, on this machine."""

import ipaddress
import json
import os
import signal
from datetime import datetime
from pathlib import Path

from dev.cluster import cgroups
from dev.cluster.binaries import executable
from dev.cluster.controlplane import ControlPlane
from dev.cluster.mounts import unmount_below
from dev.cluster.network import ADDRESS, BRIDGE
from dev.cluster.network import POD_RANGE as NODE_RANGE
from dev.cluster.packages import CNI_FOLDER
from dev.cluster.pki import LOOPBACK, Identity, ensure_pki
from dev.cluster.processes import Service, Supervisor
from dev.cluster.progress import wait_for
from dev.cluster.registry import HOST, HOST_FROM_PODS, PORT
from dev.cluster.templates import write_config
from dev.cluster.traces import accepts

DNS = "10.96.0.10"
# The chart's registry, which the nodes know by this NodePort.
CHART_REGISTRY = "localhost:30500"
PROCESSES = ("kubelet", "containerd")


class Worker:
    """A node that runs pods; what it keeps lies in one folder."""

    def __init__(
        self,
        control: ControlPlane,
        *,
        root: Path,
        name: str,
        pause: str,
        identity: str = "kubelet",
        cgroup: str = cgroups.CGROUP,
        port: int = 10250,
        healthz_port: int = 10248,
        taint: str = "",
        system_bus: str = "",
        shutdown_grace: int = 0,
    ) -> None:
        """Describe the node.

        Args:
            control: The control plane that it joins.
            root: The folder that holds everything of it.
            name: Of the node.
            pause: The image that holds a pod's namespaces.
            identity: The file name of kubelet's certificate.
            cgroup: Holds its pods, and no other node's: kubelet ends what it does not know there.
            port: Where kubelet listens.
            healthz_port: Where kubelet tells that it is well.
            taint: The key of a taint that keeps pods away from it.
            system_bus: The D-Bus address of the logind that tells of a shutdown.
            shutdown_grace: How many seconds its pods have when the machine goes down, 10 of them
                the critical ones'; 0 is none at all.
        """
        self._control = control
        self._root = root
        self._name = name
        self._pause = pause
        self._identity = Identity(
            identity, f"system:node:{name}", "system:nodes", hosts=(name, LOOPBACK, ADDRESS)
        )
        self._cgroup = cgroup
        self._port, self._healthz_port = port, healthz_port
        self._taint = taint
        self._system_bus, self._shutdown_grace = system_bus, shutdown_grace
        self._supervisor = Supervisor(root)
        self._socket = root / "containerd" / "containerd.sock"

    def start(self) -> datetime:
        """Start what does not run; return since when kubelet runs, in whole seconds."""
        ensure_pki(self._control.pki, (self._identity,))
        cgroups.ensure_cgroup(self._cgroup)
        self._write_hosts()
        self._supervisor.ensure(self._containerd())

        def serves() -> bool:
            self._supervisor.require("containerd")
            return accepts(self._socket)

        wait_for("containerd", serves, seconds=30)
        self._supervisor.ensure(self._kubelet())
        return self._supervisor.started_at("kubelet").replace(microsecond=0)

    def require(self) -> None:
        """Check that the node's processes live."""
        self._supervisor.require(*PROCESSES)

    def stop(self) -> None:
        """End the node with all of its pods, their mounts and their cgroup."""
        for name in PROCESSES:
            self._supervisor.stop(name)
        cgroups.kill_all(self._cgroup)
        self._kill_shims()
        cgroups.kill_all(self._cgroup)
        unmount_below(self._root)
        cgroups.remove_cgroup(self._cgroup)

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
            # All nodes' pods hang on one bridge.
            addresses=self._control.root / "cni" / "addresses",
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
        taints = [{"key": self._taint, "effect": "NoSchedule"}] if self._taint else []
        config = write_config(
            self._root / "config" / "kubelet.yaml",
            "kubelet.yaml",
            root=self._root,
            pki=self._control.pki,
            identity=self._identity.file,
            address=ADDRESS,
            port=self._port,
            healthz_port=self._healthz_port,
            dns=DNS,
            cgroup=self._cgroup,
            resolver=resolver_file(),
            taints=json.dumps(taints),
            shutdown_grace=self._shutdown_grace,
            critical_grace=min(10, self._shutdown_grace),
        )
        return Service(
            "kubelet",
            (
                str(executable("kubelet")),
                f"--config={config}",
                f"--kubeconfig={self._control.kubeconfig_for(self._identity.file)}",
                f"--root-dir={self._root / 'kubelet'}",
                f"--hostname-override={self._name}",
                f"--node-ip={ADDRESS}",
            ),
            env={"DBUS_SYSTEM_BUS_ADDRESS": self._system_bus} if self._system_bus else {},
            files=(config,),
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
