"""Building the components from their Go modules into the cache."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from dev.cluster.cache import cache_root, locked
from dev.cluster.command import run
from dev.cluster.errors import ClusterError
from dev.cluster.packages import BUILD_PACKAGES, ensure_packages
from dev.cluster.progress import step
from dev.cluster.versions import Component, components

RECIPE = ".recipe"


def executable(name: str) -> Path:
    """Return where the executable `name` lies once it is built."""
    for component in components().values():
        if name in component.executables:
            return folder_of(component) / name
    raise KeyError(name)


def folder_of(component: Component) -> Path:
    """Return the folder that holds a component's executables, by version."""
    return cache_root() / "bin" / f"{component.name}-{component.version}"


def source_of(component: Component) -> Path:
    """Return the folder of a component's module, downloaded unless Go's cache has it."""
    command = ["go", "mod", "download", "-json", component.module]
    answer = run(command, cwd=component.folder, env={"GOFLAGS": "-mod=readonly", "GOWORK": "off"})
    return Path(json.loads(answer)["Dir"])


def ensure(names: Iterable[str]) -> None:
    """Build those of the named components that the cache does not hold.

    Raises:
        ClusterError: Go is missing, or a build failed.
    """
    wanted = [component for name, component in components().items() if name in set(names)]
    if not any(map(_is_missing, wanted)):
        return
    with locked("binaries", doing="building binaries"):
        missing = [component for component in wanted if _is_missing(component)]
        if missing and not shutil.which("go"):
            raise ClusterError("Go 1.26 or newer is needed to build the cluster: install `go`")
        if any(component.cgo for component in missing):
            ensure_packages(BUILD_PACKAGES)
        for number, component in enumerate(missing, 1):
            text = f"building {component.name} {component.version} (about {component.seconds} s)"
            with step(f"[{number}/{len(missing)}] {text}"):
                _build(component)


def _is_missing(component: Component) -> bool:
    recipe = folder_of(component) / RECIPE
    return not recipe.is_file() or recipe.read_text() != _recipe(component)


def _recipe(component: Component) -> str:
    """Return a digest of all that decides what a build yields, apart from the Go toolchain."""
    digest = hashlib.sha256(repr((component.packages, component.ldflags)).encode())
    for file in sorted(component.folder.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _build(component: Component) -> None:
    """Build into a folder beside the final one and rename it: a half build is never found."""
    final = folder_of(component)
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".building-") as scratch:
        fresh = Path(scratch) / "out"
        flags = ["-trimpath", "-buildvcs=false", "-ldflags", component.ldflags]
        if component.tags:
            flags += ["-tags", ",".join(component.tags)]
        run(
            [
                "go",
                "build",
                *flags,
                "-o",
                f"{fresh}/{component.executable or ''}",
                *component.packages,
            ],
            cwd=component.folder,
            env={
                "CGO_ENABLED": "1" if component.cgo else "0",
                "GOFLAGS": "-mod=readonly",
                "GOWORK": "off",
            },
            log=cache_root() / "logs" / f"build-{component.name}.log",
        )
        (fresh / RECIPE).write_text(_recipe(component))
        if final.exists():
            # A running cluster may still use the old files: move them away, never overwrite.
            os.rename(final, Path(scratch) / "old")
        os.rename(fresh, final)
