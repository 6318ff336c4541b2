"""A thin hand on kubectl."""

import json
from pathlib import Path
from typing import Any

from dev.cluster.binaries import executable
from dev.cluster.command import run, succeeds


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
