"""The local cluster where a Docker engine answers: kind makes it.

Not tried where this was written, as no Docker engine was to be had there.
"""

import shutil
from functools import cache
from pathlib import Path

from dev.cluster import binaries
from dev.cluster.binaries import executable
from dev.cluster.cache import cluster_root, locked
from dev.cluster.command import run, succeeds
from dev.cluster.images import Image, assembled
from dev.cluster.kubectl import Kubectl
from dev.cluster.progress import say, step
from dev.cluster.versions import HERE

NAME = "labfunctions"
CHECKOUT = HERE.parent.parent
CONFIG = CHECKOUT / "kind-config.yaml"
COMPONENTS = ("kind", "kubectl")


@cache
def is_available() -> bool:
    """Tell whether a Docker engine answers."""
    return shutil.which("docker") is not None and succeeds(["docker", "info"])


def up() -> Path:
    """Create the cluster unless it is there; return the kubeconfig's path."""
    binaries.ensure(COMPONENTS)
    kubeconfig = _kubeconfig()
    kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    with locked("cluster", doing="starting or stopping the cluster"):
        if NAME in _kind("get", "clusters").split():
            _kind("export", "kubeconfig", "--name", NAME, "--kubeconfig", str(kubeconfig))
            return kubeconfig
        with step("creating a kind cluster (a minute or two)"):
            arguments = ["--config", str(CONFIG), "--kubeconfig", str(kubeconfig)]
            _kind("create", "cluster", "--name", NAME, "--wait", "180s", *arguments)
    return kubeconfig


def down() -> None:
    """Delete the cluster."""
    binaries.ensure(COMPONENTS)
    with locked("cluster", doing="starting or stopping the cluster"), step("deleting the cluster"):
        _kind("delete", "cluster", "--name", NAME)
        shutil.rmtree(cluster_root(), ignore_errors=True)


def status() -> bool:
    """Print the cluster's nodes; tell whether there are any."""
    binaries.ensure(COMPONENTS)
    if NAME not in _kind("get", "clusters").split():
        say("no cluster is there")
        return False
    say(Kubectl(_kubeconfig()).run("get", "nodes").rstrip())
    say(f"export KUBECONFIG={_kubeconfig()}")
    return True


def ensure_image(image: Image) -> str:
    """Build an image with Docker and load it into the node; return its reference."""
    reference = f"{image.name}:{image.tag()}"
    if not succeeds(["docker", "image", "inspect", reference]):
        with step(f"building image {reference}"), assembled(image) as context:
            arguments = ["--file", str(image.dockerfile), "--tag", reference]
            run(["docker", "build", *arguments, str(context)])
    with step(f"loading image {reference} into the node"):
        _kind("load", "docker-image", reference, "--name", NAME)
    return reference


def _kubeconfig() -> Path:
    return cluster_root() / "kubeconfig"


def _kind(*args: str) -> str:
    # The configuration names a folder of the checkout relative to where kind runs.
    return run([executable("kind"), *args], cwd=CHECKOUT)
