"""What the chart asks of the Prometheus operator, judged by that one's own definitions."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.cluster.binaries import executable
from dev.cluster.command import run
from dev.cluster.errors import ClusterError
from dev.cluster.kubectl import Kubectl

from .process import ROOT

MODULE = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
SUM = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
DEFINITIONS = "example/prometheus-operator-crd/monitoring.coreos.com_{}.yaml"
KINDS = ("servicemonitors", "prometheusrules")


@pytest.fixture(scope="module")
def definitions(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The two kinds, as of a release: a Go module of 4 MB, and nothing of it is built."""
    outside = tmp_path_factory.mktemp("no-module")
    env = {"GOFLAGS": "-mod=mod", "GOWORK": "off"}
    found = json.loads(run(["go", "mod", "download", "-json", MODULE], cwd=outside, env=env))
    assert found["Sum"] == SUM
    files = [Path(found["Dir"]) / DEFINITIONS.format(kind) for kind in KINDS]
    kubectl.apply("---\n".join(file.read_text() for file in files))
    names = [f"crd/{kind}.monitoring.coreos.com" for kind in KINDS]
    kubectl.await_kinds(*names)
    yield
    kubectl.run("delete", *names)


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    values = [
        "metrics.serviceMonitor.enabled=true",
        "metrics.serviceMonitor.labels.release=monitoring",
        "metrics.serviceMonitor.interval=90s",
        "metrics.prometheusRule.enabled=true",
        "metrics.prometheusRule.labels.release=monitoring",
    ]
    sets = [argument for value in values for argument in ("--set", value)]
    chart = ROOT / "helm" / "labfunctions"
    text = run([str(executable("helm")), "template", "labfunctions", str(chart), *sets])
    group = "monitoring.coreos.com/"
    return [m for m in yaml.safe_load_all(text) if m and m["apiVersion"].startswith(group)]


def try_out(kubectl: Kubectl, manifests: list[dict[str, Any]]) -> None:
    """Have the API server check objects, unknown fields included, and store nothing."""
    placed = [{**m, "metadata": {**m["metadata"], "namespace": "default"}} for m in manifests]
    words = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    kubectl.run(*words, text=yaml.safe_dump_all(placed))


def test_the_prometheus_operator_takes_what_the_chart_renders(
    kubectl: Kubectl, definitions: None, rendered: list[dict[str, Any]]
) -> None:
    assert sorted(m["kind"] for m in rendered) == ["PrometheusRule", "ServiceMonitor"]
    try_out(kubectl, rendered)


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PrometheusRule"])
def test_a_field_that_is_none_would_be_refused(
    kubectl: Kubectl, definitions: None, rendered: list[dict[str, Any]], kind: str
) -> None:
    [wrong] = [json.loads(json.dumps(m)) for m in rendered if m["kind"] == kind]
    part = wrong["spec"]["endpoints"] if kind == "ServiceMonitor" else wrong["spec"]["groups"]
    part[0]["intervall"] = "30s"
    with pytest.raises(ClusterError, match="intervall"):
        try_out(kubectl, [wrong])
