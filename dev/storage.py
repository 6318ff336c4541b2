"""Reads results from the embedded store of the local cluster, through a forwarded port."""

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from dev.cluster.kubectl import Kubectl
from dev.install import NAMESPACE

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

STORE = "labfunctions-store"


def copy_outputs(
    kubectl: Kubectl, outputs: Mapping[str, Any], folder: Path
) -> list[tuple[str, Path]]:
    """Copy the files that a Run's `status.outputs` names; return (URI, path) of each."""
    copied = []
    with open_store(kubectl) as store:
        for uri in (value for name, value in outputs.items() if name != "etags"):
            bucket, _, key = uri.removeprefix("s3://").partition("/")
            path = folder / key.rpartition("/")[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            store.download_file(bucket, key, str(path))
            copied.append((uri, path))
    return copied


@contextmanager
def open_store(kubectl: Kubectl) -> Iterator["S3Client"]:
    """Reach the store with the operator's own keys."""
    secret = kubectl.get("secret", STORE, "-n", NAMESPACE)["data"]
    with kubectl.forwarded_port(NAMESPACE, f"service/{STORE}", 7070) as port:
        yield boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id=base64.b64decode(secret["accessKeyID"]).decode(),
            aws_secret_access_key=base64.b64decode(secret["secretAccessKey"]).decode(),
            config=Config(s3={"addressing_style": "path"}),
        )
