"""Handles on the servers that the fixtures start, and how the operator reads from them."""

import getpass
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from labfunctions_operator.providers.git import SourceSnapshot, read_source

_IDENTITY = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada Lovelace",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada Lovelace",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
}


def run_git(*arguments: str, cwd: Path, **environment: str) -> str:
    """Runs git as an author would, but without this machine's configuration."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **_IDENTITY, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@dataclass
class Repository:
    """A bare repository that a server publishes, and a work tree to change it from."""

    bare: Path
    work: Path
    url: str

    @classmethod
    def create(cls, root: Path, name: str, base_url: str, work: Path) -> "Repository":
        bare = root / name
        run_git("init", "--bare", "--quiet", "--initial-branch=main", str(bare), cwd=root)
        run_git("clone", "--quiet", str(bare), str(work), cwd=root)
        run_git("checkout", "--quiet", "-B", "main", cwd=work)
        return cls(bare=bare, work=work, url=f"{base_url}/{name}")

    def commit(self, files: Mapping[str, str | bytes], message: str = "Change") -> str:
        for name, content in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        self.git("push", "--quiet", "origin", "HEAD")
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        return run_git(*arguments, cwd=self.work)


@dataclass
class HttpGit:
    """A running HTTP server and what is needed to fill it."""

    root: Path
    server: ThreadingHTTPServer
    read_tokens: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@dataclass(frozen=True)
class HttpsGit:
    """A running HTTPS server with a certificate of its own."""

    url: str
    certificate: str


def wait_for_port(port: int, what: str, *, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    pytest.fail(f"{what} does not listen on port {port}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class SshGit:
    """A running sshd."""

    port: int
    private_key: str
    known_hosts: str

    def url(self, repository: Repository) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{repository.bare}"


@dataclass
class S3Server:
    """An S3 server that can be stopped and started again with what it holds."""

    command: list[str | Path]
    port: int
    access_key: str
    secret_key: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = {"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}
        self.process = subprocess.Popen(
            self.command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        wait_for_port(self.port, "versitygw")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def read(
    url: str, commit: str, cache: Path, *, ref: str = "main", **changes: Any
) -> SourceSnapshot:
    """Reads the whole of a source, unless told otherwise."""
    arguments = {
        "ref": ref,
        "path": ".",
        "wanted": (),
        "credentials": None,
        "timeout": 10,
        **changes,
    }
    return read_source(url, commit=commit, cache_dir=cache, **arguments)
