"""The CapacityBuffer kind as it is published, from a Go module that carries its CRD."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.cluster.command import run
from dev.cluster.kubectl import Kubectl

MODULE = "sigs.k8s.io/karpenter@v1.14.1"
SUM = "h1:GjqvOHLjl2+OXM0ti5VEZSQuvcitB0pETd8zdChXEtI="
FILE = "pkg/apis/crds/autoscaling.x-k8s.io_capacitybuffers.yaml"
CRD = "crd/capacitybuffers.autoscaling.x-k8s.io"


def published_crd() -> Path:
    """Return the file of the CRD, downloaded unless the module cache has it."""
    got = json.loads(run(["go", "mod", "download", "-json", MODULE], cwd=Path("/"), seconds=120))
    assert got["Sum"] == SUM
    return Path(got["Dir"]) / FILE


@contextmanager
def installed(kubectl: Kubectl, crd: Path) -> Iterator[None]:
    """Serve CapacityBuffers for a while."""
    kubectl.run("create", "-f", str(crd))
    try:
        kubectl.await_kinds(CRD)
        yield
    finally:
        kubectl.run("delete", CRD)
