"""Kueue itself, by its own chart."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.cluster import images, kind
from dev.cluster.binaries import ensure, executable, source_of
from dev.cluster.command import run
from dev.cluster.images import Image
from dev.cluster.kubectl import Kubectl
from dev.cluster.versions import HERE, components

from .objects import Object

NAME = "kueue"
NAMESPACE = "kueue-system"
_API = "kueue.x-k8s.io/v1beta2"
_FLAVOR = "anywhere"


@contextmanager
def installed_kueue(kubectl: Kubectl) -> Iterator[None]:
    """Install it, and take it away: its webhooks see every Job."""
    ensure((NAME,))
    chart = source_of(components()[NAME]) / "charts" / NAME
    repository, tag = _image().rsplit(":", 1)
    manager = {
        "image.repository": repository,
        "image.tag": tag,
        "image.pullPolicy": "IfNotPresent",
        "resources.requests.cpu": "50m",
        "resources.requests.memory": "128Mi",
    }
    values = [f"--set=controllerManager.manager.{name}={value}" for name, value in manager.items()]
    try:
        _helm("upgrade", "--install", NAME, chart, "--create-namespace", *values)
        yield
    finally:
        _helm("uninstall", NAME, "--ignore-not-found")
        kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")


def queue_of(namespace: str, *, cpu: str) -> list[Object]:
    """Return a queue `team` of a namespace, and what lets Jobs of that much CPU through it."""
    quota = {"name": "cpu", "nominalQuota": cpu}
    resources = {
        "coveredResources": ["cpu", "memory"],
        "flavors": [
            {"name": _FLAVOR, "resources": [quota, {"name": "memory", "nominalQuota": "64Gi"}]}
        ],
    }
    return [
        _object("ResourceFlavor", _FLAVOR, {}),
        _object(
            "ClusterQueue", namespace, {"namespaceSelector": {}, "resourceGroups": [resources]}
        ),
        _object("LocalQueue", "team", {"clusterQueue": namespace}),
    ]


def _object(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": _API, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _image() -> str:
    folder = HERE / "images" / NAME
    image = Image(
        name="labfunctions/kueue",
        dockerfile=folder / "Dockerfile",
        context=folder,
        extra_files={NAME: executable(NAME)},
    )
    return kind.ensure_image(image) if kind.is_available() else images.ensure_image(image)


def _helm(*arguments: str | Path) -> None:
    words = ["--namespace", NAMESPACE, "--wait", "--timeout=3m"]
    run([executable("helm"), *arguments, *words])
