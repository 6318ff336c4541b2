"""Starts the git server in the cluster: `python -m dev.gitserver.deploy IMAGE`."""

import argparse
import json
from pathlib import Path

from dev.cluster.kubectl import Kubectl
from dev.cluster.progress import wait_for
from dev.gitserver.credentials import NAMESPACE, Credentials

_MANIFEST = Path(__file__).with_name("manifest.yaml")
_IMAGE = "image: labfunctions/gitserver"


def deploy(image: str) -> Credentials:
    """Applies the server's objects and waits until it answers.

    Args:
        image: What dev/gitserver/Dockerfile was built as.
    """
    text = _MANIFEST.read_text()
    namespace, rest = text.split("---\n", 1)
    kubectl = Kubectl.of_environment()
    kubectl.run("apply", "-f", "-", text=namespace)
    credentials = Credentials.load()
    if credentials is None:
        credentials = Credentials.generate()
        kubectl.run("create", "-f", "-", text=json.dumps(credentials.manifest()))
    kubectl.run("apply", "-f", "-", text=rest.replace(_IMAGE, f"image: {image}"))
    deployment = ("deployment", "gitserver", "-n", NAMESPACE)

    def is_ready() -> bool:
        found = kubectl.get(*deployment)
        status = found["status"]
        if status.get("observedGeneration") != found["metadata"]["generation"]:
            return False
        return bool(status.get("updatedReplicas") and status.get("readyReplicas"))

    wait_for("the git server", is_ready, seconds=120)
    return credentials


def main() -> None:
    """Deploys the image that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    deploy(parser.parse_args().image)


if __name__ == "__main__":
    main()
