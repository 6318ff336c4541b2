"""Starts the git server in the cluster: `python -m dev.gitserver.deploy IMAGE`."""

import argparse
import json
from pathlib import Path

from dev.gitserver.credentials import Credentials
from dev.gitserver.kubectl import NAMESPACE, kubectl

_MANIFEST = Path(__file__).with_name("manifest.yaml")
_IMAGE = "image: labfunctions/gitserver"


def deploy(image: str) -> Credentials:
    """Applies the server's objects and waits until it answers.

    Args:
        image: What dev/gitserver/Dockerfile was built as.
    """
    text = _MANIFEST.read_text()
    namespace, rest = text.split("---\n", 1)
    kubectl("apply", "-f", "-", text=namespace)
    credentials = Credentials.load()
    if credentials is None:
        credentials = Credentials.generate()
        kubectl("create", "-f", "-", text=json.dumps(credentials.manifest()))
    kubectl("apply", "-f", "-", text=rest.replace(_IMAGE, f"image: {image}"))
    print(f"waiting for the git server in the namespace {NAMESPACE}", flush=True)
    kubectl("rollout", "status", "deployment/gitserver", "--timeout=120s")
    return credentials


def main() -> None:
    """Deploys the image that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    deploy(parser.parse_args().image)


if __name__ == "__main__":
    main()
