"""The tokens and keys of the git server, made once and kept in a Secret next to it."""

import base64
import json
import secrets
from dataclasses import dataclass
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from dev.cluster.kubectl import Kubectl

NAMESPACE = "labfunctions-demo"
HOST = f"gitserver.{NAMESPACE}.svc"
PRIVATE_REPOSITORY = "private.git"
_SECRET = "gitserver"


@dataclass(frozen=True)
class Credentials:
    """What opens the server's doors.

    Attributes:
        push_token: Password for every push.
        read_token: Password for reading the private repository over HTTP.
        ssh_key: Private key of the user `git`.
        known_hosts: The server's host key, as a line of known_hosts.
        secret_data: Everything that the server's Secret holds.
    """

    push_token: str
    read_token: str
    ssh_key: str
    known_hosts: str
    secret_data: dict[str, str]

    @classmethod
    def generate(cls) -> Self:
        """Makes new ones."""
        host_key, host_public = _key_pair()
        user_key, user_public = _key_pair()
        read_token = secrets.token_urlsafe(24)
        return cls.from_data(
            {
                "push-token": secrets.token_urlsafe(24),
                "read-token": read_token,
                "read-tokens": json.dumps({PRIVATE_REPOSITORY: read_token}),
                "ssh-host-key": host_key,
                "ssh-user-key": user_key,
                "authorized-keys": user_public,
                "known-hosts": f"{HOST} {host_public}",
            }
        )

    @classmethod
    def from_data(cls, data: dict[str, str]) -> Self:
        """Takes them from a Secret's decoded data."""
        return cls(
            push_token=data["push-token"],
            read_token=data["read-token"],
            ssh_key=data["ssh-user-key"],
            known_hosts=data["known-hosts"],
            secret_data=data,
        )

    @classmethod
    def load(cls) -> Self | None:
        """Reads the server's Secret; None if there is none yet."""
        query = ("get", "secret", _SECRET, "-n", NAMESPACE, "--ignore-not-found", "-o", "json")
        found = Kubectl.of_environment().run(*query)
        if not found:
            return None
        data = json.loads(found)["data"]
        return cls.from_data({key: base64.b64decode(data[key]).decode() for key in data})

    def manifest(self) -> dict[str, Any]:
        """The server's Secret."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": _SECRET, "namespace": NAMESPACE},
            "stringData": self.secret_data,
        }


def _key_pair() -> tuple[str, str]:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private.decode(), public.decode() + "\n"
