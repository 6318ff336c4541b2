"""The credentials that a Project's git Secret holds."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from labfunctions_operator.providers.git_errors import SourceError


@dataclass(frozen=True)
class GitCredentials:
    """What git may use to log in; any part may be missing."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)
    known_hosts: str | None = None
    ca: str | None = None

    @classmethod
    def from_secret(cls, data: Mapping[str, str]) -> Self:
        """Reads the data of a Secret.

        Keys: `username` and `password`, or `token`; `ssh-privatekey` or `identity`, with
        `known_hosts`; `ca.crt`. Others are ignored, as Secrets are shared with other tools.

        Args:
            data: The base64 values, as in `Secret.data`.

        Raises:
            SourceError: SecretInvalid, with the key that is wrong.
        """
        values = {key: _decode(key, data[key]) for key in _KEYS if data.get(key)}
        password = _one_of(values, "password", "token")
        private_key = _one_of(values, "ssh-privatekey", "identity")
        username = values.get("username")
        if private_key is None and username and password is None:
            raise _invalid("username has no password or token next to it")
        if "CERTIFICATE" not in values.get("ca.crt", "CERTIFICATE"):
            raise _invalid("ca.crt holds no PEM certificate")
        if private_key is not None:
            _check_key(private_key, values.get("known_hosts"))
        if password is None and private_key is None and "ca.crt" not in values:
            raise _invalid(
                "none of username with password, token, ssh-privatekey with known_hosts, ca.crt"
                " is in it"
            )
        return cls(
            username=username or ("git" if password else None),
            password=password,
            private_key=private_key,
            known_hosts=values.get("known_hosts"),
            ca=values.get("ca.crt"),
        )


_KEYS = (
    "username",
    "password",
    "token",
    "ssh-privatekey",
    "identity",
    "known_hosts",
    "ca.crt",
)
_OPENSSH_MAGIC = b"openssh-key-v1\0"
_MULTILINE = frozenset({"ssh-privatekey", "identity", "known_hosts", "ca.crt"})


def _invalid(message: str) -> SourceError:
    return SourceError("SecretInvalid", f"the Secret for git cannot be used: {message}")


def _decode(key: str, value: str) -> str:
    try:
        text = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        raise _invalid(f"{key} is not base64 of UTF-8 text") from None
    # `echo TOKEN | base64` leaves a newline that no server accepts; ssh insists on one.
    text = text.replace("\r\n", "\n").strip("\n")
    if "\0" in text or (key not in _MULTILINE and not text.isprintable()):
        raise _invalid(f"{key} holds control characters or several lines")
    return text + "\n" if key in _MULTILINE else text


def _one_of(values: Mapping[str, str], first: str, second: str) -> str | None:
    if first in values and second in values and values[first] != values[second]:
        raise _invalid(f"{first} and {second} differ; keep one of them")
    return values.get(first) or values.get(second)


def _check_key(private_key: str, known_hosts: str | None) -> None:
    if not private_key.startswith("-----BEGIN ") or "PRIVATE KEY-----" not in private_key:
        raise _invalid("the ssh key is not a private key in PEM or OpenSSH format")
    # In batch mode ssh passes over such a key without a word, and the server gets the blame.
    if "ENCRYPTED" in private_key or _openssh_cipher(private_key) != b"none":
        raise _invalid("the ssh key is protected by a passphrase; store it without one")
    if not known_hosts or not known_hosts.strip():
        raise _invalid("an ssh key needs known_hosts; write it with ssh-keyscan HOST")


def _openssh_cipher(private_key: str) -> bytes:
    """What an OpenSSH key is encrypted with; PEM says that in plain text instead."""
    if "BEGIN OPENSSH" not in private_key:
        return b"none"
    body = "".join(line for line in private_key.splitlines() if "-----" not in line)
    try:
        key = base64.b64decode(body, validate=True)
    except binascii.Error:
        key = b""
    if not key.startswith(_OPENSSH_MAGIC):
        raise _invalid("the ssh key is damaged")
    length, cipher = key[len(_OPENSSH_MAGIC) :][:4], key[len(_OPENSSH_MAGIC) + 4 :]
    return cipher[: int.from_bytes(length)]
