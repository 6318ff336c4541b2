"""A thin hand on kubectl."""

import json
import os
import re
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from dev.cluster.binaries import executable
from dev.cluster.command import run, succeeds
from dev.cluster.errors import ClusterError
from dev.cluster.progress import wait_for

FORWARD_SECONDS = 30


class Kubectl:
    """kubectl against one cluster."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._base = [
            str(executable("kubectl")),
            f"--kubeconfig={kubeconfig}",
            f"--cache-dir={kubeconfig.parent / 'kubectl-cache'}",
        ]

    def command(self, *args: str) -> list[str]:
        """Return the words of a command, for a process of its own."""
        return [*self._base, *args]

    @classmethod
    def of_environment(cls) -> Self:
        """Return kubectl against the cluster that KUBECONFIG names."""
        kubeconfig = os.environ.get("KUBECONFIG")
        if not kubeconfig:
            raise ClusterError('KUBECONFIG is not set: eval "$(python -m dev.cluster env)"')
        return cls(Path(kubeconfig))

    def run(self, *args: str, text: str | None = None) -> str:
        """Run a command and return what it prints."""
        return run([*self._base, "--request-timeout=20s", *args], text=text)

    def succeeds(self, *args: str) -> bool:
        """Tell whether a command succeeds."""
        return succeeds([*self._base, "--request-timeout=5s", *args])

    def get(self, *args: str) -> Any:
        """Return an object or a list, parsed."""
        return json.loads(self.run("get", *args, "-o", "json"))

    def apply(self, manifests: str) -> None:
        """Apply manifests, server-side."""
        self.run("apply", "--server-side", "--force-conflicts", "-f", "-", text=manifests)

    def await_kinds(self, *crds: str) -> None:
        """Wait until custom kinds are served; `wait` itself fails while a new one has no status."""
        probe = ("wait", "--for=condition=Established", *crds, "--timeout=3s")
        wait_for("custom kinds to be served", lambda: self.succeeds(*probe), seconds=30)

    @contextmanager
    def forwarded_port(self, namespace: str, target: str, port: int) -> Iterator[int]:
        """Forward a port of this machine to one in the cluster; yield its number."""
        words = self.command("-n", namespace, "port-forward", target, f":{port}")
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                ready, _, _ = select.select([process.stdout], [], [], FORWARD_SECONDS)
                line = process.stdout.readline() if ready else ""
                found = re.search(r"127\.0\.0\.1:(\d+)", line)
                if found is None:
                    raise ClusterError(f"kubectl cannot forward a port to {target}")
                yield int(found[1])
            finally:
                process.terminate()
