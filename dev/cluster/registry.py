"""The node's registry: where the local cluster's images come from.

Its data lies outside the cluster's folder, so that images outlive the cluster.
"""

import http.client
from pathlib import Path

from dev.cluster.binaries import executable
from dev.cluster.cache import cache_root
from dev.cluster.network import ADDRESS
from dev.cluster.pki import LOOPBACK
from dev.cluster.processes import Service, Supervisor
from dev.cluster.progress import wait_for
from dev.cluster.templates import write_config

PORT = 5000
HOST = f"localhost:{PORT}"
HOST_FROM_PODS = f"{ADDRESS}:{PORT}"

_MANIFESTS = ", ".join(
    [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)


def start_registry(root: Path) -> None:
    """Start the registry unless it runs, and wait until it answers."""
    data = cache_root() / "registry"
    config = write_config(root / "config" / "registry.yaml", "registry.yaml", data=data, port=PORT)
    supervisor = Supervisor(root)
    argv = (str(executable("registry")), "serve", str(config))
    supervisor.ensure(Service("registry", argv, {"OTEL_TRACES_EXPORTER": "none"}, (config,)))

    def answers() -> bool:
        supervisor.require("registry")
        return _status("GET", "/v2/") == 200

    wait_for("the node's registry", answers, seconds=30)


def has_image(name: str, tag: str) -> bool:
    """Tell whether the registry holds an image."""
    return _status("HEAD", f"/v2/{name}/manifests/{tag}") == 200


def _status(method: str, path: str) -> int | None:
    connection = http.client.HTTPConnection(LOOPBACK, PORT, timeout=5)
    try:
        connection.request(method, path, headers={"Accept": _MANIFESTS})
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()
