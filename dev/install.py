"""Installs the operator from this checkout into the local cluster: `python -m dev.install`."""

import os
import sys
from pathlib import Path

from dev.cluster import local, ourimages
from dev.cluster.binaries import executable
from dev.cluster.cache import cluster_root
from dev.cluster.command import run
from dev.cluster.errors import ClusterError
from dev.cluster.progress import say, step
from dev.cluster.versions import HERE

CHART = HERE.parent.parent / "helm" / "labfunctions"
NAMESPACE = "labfunctions-system"
RELEASE = "labfunctions"


def install() -> dict[str, str]:
    """Bring the cluster up, build what has changed and install or upgrade the chart.

    Returns:
        The images' references by name.
    """
    os.environ["KUBECONFIG"] = str(local.up())
    references = ourimages.push_all()
    with step("installing the operator by Helm"):
        # Whoever works on the kinds applies CRDs by hand, too.
        own = ("--create-namespace", "--force-conflicts")
        helm("upgrade", "--install", RELEASE, str(CHART), *own, *values_files())
    return references


def values_files() -> list[str]:
    """Return Helm's arguments for the local cluster."""
    files: list[Path] = [HERE / "values.yaml", cluster_root() / ourimages.VALUES_FILE]
    return [word for file in files for word in ("--values", str(file))]


def helm(*arguments: str) -> str:
    """Run Helm in the operator's namespace, waiting for what it changes."""
    wait = ["--wait", "--timeout=5m"] if arguments[0] in ("upgrade", "uninstall") else []
    return run([str(executable("helm")), "--namespace", NAMESPACE, *arguments, *wait])


def main() -> int:
    """Install; a failure is one line."""
    try:
        install()
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say(f"the operator runs in namespace {NAMESPACE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
