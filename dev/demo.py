"""The product on one screen: `python -m dev.demo` builds a project and runs its notebooks."""

import sys
import time
from pathlib import Path
from typing import Any

from dev.cluster.cache import cluster_root
from dev.cluster.errors import ClusterError
from dev.cluster.kubectl import Kubectl
from dev.cluster.progress import say
from dev.cluster.versions import HERE
from dev.gitserver.deploy import deploy
from dev.gitserver.push import PushError, publish
from dev.install import install
from dev.storage import copy_outputs

CHECKOUT = HERE.parent.parent
EXAMPLES = CHECKOUT / "examples"
NAMESPACE = "team-wine"
RUNS = ("wine-analysis-1", "wine-analysis-small-test", "wine-broken-1")
OUTPUT = CHECKOUT / "demo-output"
FINAL = ("Succeeded", "Failed", "Cancelled")
LIMIT_SECONDS = 900.0


def demo() -> None:
    """Go the whole way, from nothing to executed notebooks."""
    references = install()
    deploy(references["gitserver"])
    commit = publish(EXAMPLES, "wine.git", "The wine analysis")
    say(f"published examples/ as wine.git, commit {commit[:12]}")
    kubectl = Kubectl(cluster_root() / "kubeconfig")
    manifests = EXAMPLES / "manifests"
    _apply(kubectl, manifests / "namespace.yaml")
    kubectl.run("delete", "--ignore-not-found", "-f", str(manifests / "runs.yaml"))
    for name in ("project", "workflow", "runs"):
        _apply(kubectl, manifests / f"{name}.yaml")
    _watch(kubectl)
    _show(kubectl)


def _apply(kubectl: Kubectl, manifest: Path) -> None:
    say(f"$ kubectl apply -f {manifest.relative_to(CHECKOUT)}")
    say(kubectl.run("apply", "-f", str(manifest)).strip())


def _watch(kubectl: Kubectl) -> None:
    """Print each change of a Run until all have ended."""
    seen: dict[str, str] = {}
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        runs = kubectl.get("runs", "-n", NAMESPACE)["items"]
        for run in runs:
            line = _line(run)
            if seen.get(run["metadata"]["name"]) != line:
                seen[run["metadata"]["name"]] = line
                say(line)
        if runs and all(r.get("status", {}).get("phase") in FINAL for r in runs):
            return
        time.sleep(1)
    raise ClusterError(f"the Runs have not ended after {LIMIT_SECONDS:.0f} s; see kubectl get lfr")


def _line(run: dict[str, Any]) -> str:
    status = run.get("status", {})
    conditions = status.get("conditions") or [{"message": "not seen by the operator yet"}]
    progress = (status.get("progress") or {}).get("summary", "")
    name, phase, message = (
        run["metadata"]["name"],
        status.get("phase", ""),
        conditions[0]["message"],
    )
    return f"  {name:26} {phase} {progress}: {message}"


def _show(kubectl: Kubectl) -> None:
    say("\n$ kubectl get projects,workflows,runs -n " + NAMESPACE)
    say(kubectl.run("get", "projects,workflows,runs", "-n", NAMESPACE))
    for name in RUNS:
        run = kubectl.get("run", name, "-n", NAMESPACE)
        outputs = run["status"].get("outputs") or {}
        for uri, path in copy_outputs(kubectl, outputs, OUTPUT / name):
            say(f"{uri}\n    copied to {path.relative_to(CHECKOUT)}")
        if failure := run["status"].get("failure"):
            say(f"{name} failed: {failure['reason']}")
            say(f"    {run['status']['conditions'][0]['message']}")
    say(f"\nexport KUBECONFIG={kubectl.kubeconfig}   # to look around; make cluster-down ends it")


def main() -> int:
    """Run the demo; a failure is one line."""
    try:
        demo()
    except (ClusterError, PushError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
