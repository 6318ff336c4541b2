#!/usr/bin/env python3
"""Sends the source and its Dockerfile to BuildKit, which builds and pushes the image."""

import collections
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import build_errors
import termination

WORKSPACE = Path("/workspace")
TLS = Path("/etc/buildkit-tls")
REGISTRY_SECRET = Path("/etc/registry-secret/.dockerconfigjson")
WAIT_SECONDS = 60
KEPT_LINES = 400

# Both end up in comma-separated attributes of buildctl.
_REPOSITORY = re.compile(r"[a-z0-9][A-Za-z0-9._-]*(?::[0-9]+)?(?:/[a-z0-9._-]+)+")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class BuildFailed(Exception):
    """There is no image; the message says why, for the user."""


def connection(environ: Mapping[str, str], *, tls: Path = TLS) -> list[str]:
    """Return the arguments of buildctl that reach the daemon."""
    arguments = ["--addr", environ["BUILDKIT_HOST"]]
    if (tls / "tls.crt").exists():
        arguments += ["--tlscacert", str(tls / "ca.crt")]
        arguments += ["--tlscert", str(tls / "tls.crt")]
        arguments += ["--tlskey", str(tls / "tls.key")]
    if name := environ.get("BUILDKIT_TLS_SERVER_NAME"):
        arguments += ["--tlsservername", name]
    return arguments


def build_arguments(
    environ: Mapping[str, str], *, metadata: Path, workspace: Path = WORKSPACE
) -> list[str]:
    """Return the arguments of `buildctl build`."""
    image, tag = environ["IMAGE"], environ["TAG"]
    if not _REPOSITORY.fullmatch(image):
        raise BuildFailed(f"{image!r} is not the name of an image repository")
    if not _TAG.fullmatch(tag):
        raise BuildFailed(f"{tag!r} is not an image tag")
    insecure = ",registry.insecure=true" if environ.get("REGISTRY_INSECURE") == "true" else ""
    arguments = ["build", "--progress=plain", "--frontend", "dockerfile.v0"]
    arguments += ["--local", f"context={workspace / 'context'}"]
    arguments += ["--local", f"dockerfile={workspace / 'dockerfile'}"]
    arguments += ["--output", f"type=image,name={image}:{tag},push=true{insecure}"]
    arguments += ["--metadata-file", str(metadata)]
    if environ.get("CACHE") == "true":
        cache = f"type=registry,ref={image}:buildcache{insecure}"
        arguments += ["--import-cache", cache]
        # An image without its cache is still an image.
        arguments += ["--export-cache", f"{cache},mode=max,ignore-error=true"]
    return arguments


@contextmanager
def registry_login(secret: Path = REGISTRY_SECRET) -> Iterator[dict[str, str]]:
    """Yield the environment in which buildctl finds the registry's credentials."""
    with tempfile.TemporaryDirectory() as home:
        if secret.exists():
            shutil.copyfile(secret, Path(home) / "config.json")
        yield {"HOME": home, "DOCKER_CONFIG": home}


def wait_for_daemon(connect: list[str], env: Mapping[str, str], *, seconds: float) -> None:
    """Return once BuildKit answers; raise BuildFailed if it has not after `seconds`."""
    deadline = time.monotonic() + seconds
    announced = time.monotonic()
    command = ["buildctl", *connect, "debug", "workers"]
    while True:
        try:
            done = subprocess.run(
                command, env=env, capture_output=True, text=True, check=False, timeout=10
            )
        except subprocess.TimeoutExpired:
            reason = "no answer in 10 s"
        else:
            if done.returncode == 0:
                return
            reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        if time.monotonic() >= deadline:
            address = connect[1]
            raise BuildFailed(f"BuildKit at {address} is not available: {reason}")
        if time.monotonic() - announced >= 5:
            announced = time.monotonic()
            print(f"Waiting for BuildKit at {connect[1]}: {reason}", flush=True)
        time.sleep(1)


def run_build(command: list[str], env: Mapping[str, str]) -> tuple[int, list[str]]:
    """Run buildctl, print its progress as it comes, return its exit code and last lines."""
    kept: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
    with subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                text = termination.clean(line.rstrip("\n"))
                print(text, flush=True)
                kept.append(text)
        except BuildFailed:
            process.terminate()
            raise
    return process.returncode, list(kept)


def build_image(
    environ: Mapping[str, str],
    *,
    workspace: Path = WORKSPACE,
    tls: Path = TLS,
    registry_secret: Path = REGISTRY_SECRET,
    wait_seconds: float = WAIT_SECONDS,
) -> str:
    """Build and push the image; return its digest."""
    with tempfile.TemporaryDirectory() as scratch, registry_login(registry_secret) as login:
        metadata = Path(scratch) / "metadata.json"
        arguments = build_arguments(environ, metadata=metadata, workspace=workspace)
        connect = connection(environ, tls=tls)
        env = {**environ, **login}
        wait_for_daemon(connect, env, seconds=wait_seconds)
        print(f"Building {environ['IMAGE']}:{environ['TAG']}", flush=True)
        code, lines = run_build(["buildctl", *connect, *arguments], env)
        if code != 0:
            raise BuildFailed(build_errors.explain(lines))
        digest = json.loads(metadata.read_text())["containerimage.digest"]
        if not isinstance(digest, str):
            raise BuildFailed("BuildKit reported no digest")
        return digest


def _stop(*_: object) -> NoReturn:
    raise BuildFailed("the build was stopped")


def main(*, log: Path = termination.LOG) -> NoReturn:
    """Run as the container's command."""
    # Process 1 of a container ignores signals that it has no handler for.
    signal.signal(signal.SIGTERM, _stop)
    try:
        digest = build_image(os.environ)
    except (BuildFailed, OSError) as failure:
        print(failure, file=sys.stderr)
        termination.write(log, error=str(failure))
        sys.exit(1)
    print(f"Pushed {os.environ['IMAGE']}@{digest}")
    termination.write(log, digest=digest)
    sys.exit(0)


if __name__ == "__main__":
    main()
