"""A second node, for tests that shut one down: it has a system bus, where a logind can tell it to.

The pods on it are those that tolerate its taint and nobody else's, so that what the cluster itself
runs stays where it is.
"""

import shutil
from datetime import datetime

from dev.cluster.cgroups import CGROUP
from dev.cluster.controlplane import ControlPlane
from dev.cluster.packages import ensure_packages
from dev.cluster.processes import Service, Supervisor
from dev.cluster.progress import wait_for
from dev.cluster.templates import write_config
from dev.cluster.traces import accepts
from dev.cluster.worker import Worker

NAME = "labfunctions-spare"
TAINT = "labfunctions.io/spare"
BUS = "dbus-daemon"
# Seconds.
SHUTDOWN_GRACE = 70


class Spare:
    """The second node of the local cluster."""

    def __init__(self, control: ControlPlane, *, pause: str) -> None:
        """Describe the node; arguments are those of `Worker`."""
        self._root = control.root / "spare"
        self._supervisor = Supervisor(self._root)
        self._socket = self._root / "bus.sock"
        self.bus = f"unix:path={self._socket}"
        self._worker = Worker(
            control,
            root=self._root,
            name=NAME,
            pause=pause,
            identity="kubelet-spare",
            cgroup=f"{CGROUP}/spare",
            port=10350,
            healthz_port=10348,
            taint=TAINT,
            system_bus=self.bus,
            shutdown_grace=SHUTDOWN_GRACE,
        )

    def start_bus(self) -> None:
        """Start the bus: kubelet looks for a logind only as it starts."""
        ensure_packages((BUS,))
        path = self._root / "config" / "system-bus.conf"
        config = write_config(path, path.name, socket=self._socket)
        program = shutil.which(BUS) or BUS
        self._supervisor.ensure(
            Service(BUS, (program, f"--config-file={config}", "--nofork"), files=(config,))
        )

        def serves() -> bool:
            self._supervisor.require(BUS)
            return accepts(self._socket)

        wait_for("the system bus", serves, seconds=10)

    def start(self) -> datetime:
        """Start the node; return since when kubelet runs, in whole seconds."""
        return self._worker.start()

    def stop(self) -> None:
        """End the node with all of its pods, and remove what it kept."""
        self._worker.stop()
        self._supervisor.stop(BUS)
        shutil.rmtree(self._root, ignore_errors=True)
