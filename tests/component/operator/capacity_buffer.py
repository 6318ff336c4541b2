"""The CapacityBuffer kind as it is published, in the module of an autoscaler that serves it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.cluster.kubectl import Kubectl

from .karpenter import BUFFERS, source

CRD = "crd/capacitybuffers.autoscaling.x-k8s.io"


def published_crd() -> Path:
    """Return the file of the CRD."""
    return source() / "pkg/apis/crds" / BUFFERS


@contextmanager
def installed(kubectl: Kubectl, crd: Path) -> Iterator[None]:
    """Serve CapacityBuffers for a while."""
    kubectl.run("create", "-f", str(crd))
    try:
        kubectl.await_kinds(CRD)
        yield
    finally:
        kubectl.run("delete", CRD)
