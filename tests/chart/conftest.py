import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "helm" / "labfunctions"
Manifest = dict[str, Any]


class Release:
    """What the chart renders for some values."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self.manifests = manifests

    def get(self, kind: str, name: str) -> Manifest:
        [found] = [m for m in self.manifests if (m["kind"], m["metadata"]["name"]) == (kind, name)]
        return found

    def names(self, kind: str) -> set[str]:
        return {m["metadata"]["name"] for m in self.manifests if m["kind"] == kind}

    @property
    def config(self) -> dict[str, Any]:
        text = self.get("ConfigMap", "labfunctions-config")["data"]["config.yaml"]
        loaded: dict[str, Any] = yaml.safe_load(text)
        return loaded


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    binary = os.environ.get("LABFUNCTIONS_HELM") or shutil.which("helm")
    if not binary:
        pytest.fail("helm is missing: put it on PATH or name it in LABFUNCTIONS_HELM")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([binary, *arguments], capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def template(
    helm: Callable[..., subprocess.CompletedProcess[str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*values: str) -> subprocess.CompletedProcess[str]:
        sets = [argument for value in values for argument in ("--set", value)]
        return helm("template", "labfunctions", str(CHART), "-n", "lf", *sets)

    return run


@pytest.fixture(scope="session")
def render(
    template: Callable[..., subprocess.CompletedProcess[str]],
) -> Callable[..., Release]:
    rendered: dict[tuple[str, ...], Release] = {}

    def run(*values: str) -> Release:
        if values not in rendered:
            done = template(*values)
            assert done.returncode == 0, done.stderr
            manifests = [m for m in yaml.load_all(done.stdout, yaml.CSafeLoader) if m]
            rendered[values] = Release(manifests)
        return rendered[values]

    return run
