"""A real Prometheus reads the operator, and judges what it reads by the chart's alerts."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from tests.providers.provider_servers import Repository, free_port

from .api import until
from .bench import Bench
from .objects import built_project, project, run, workflow
from .process import ROOT
from .test_metrics import finish

ALERTS = ROOT / "helm" / "labfunctions" / "monitoring" / "alerts.yaml"


class Prometheus:
    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return found

    def alerts(self) -> set[tuple[str, str]]:
        """Return name and namespace of all alerts that are pending or fire."""
        return {
            (alert["labels"]["alertname"], alert["labels"].get("namespace", ""))
            for alert in self._get("alerts")["alerts"]
        }

    def is_up(self) -> bool:
        # It listens before its storage is opened, and answers 503 in between.
        try:
            return self._request("-/ready").status == 200 and bool(self.query("up == 1"))
        except urllib3.exceptions.HTTPError:
            return False

    def _get(self, what: str, **fields: str) -> Any:
        answer = self._request(f"api/v1/{what}", **fields)
        assert answer.status == 200, answer.data
        return answer.json()["data"]

    def _request(self, path: str, **fields: str) -> urllib3.BaseHTTPResponse:
        with urllib3.PoolManager(retries=False, timeout=5) as pool:
            return pool.request("GET", f"{self._url}/{path}", fields=fields)


@pytest.fixture
def prometheus(bench: Bench, tmp_path: Path) -> Iterator[Prometheus]:
    """Scrapes as the chart's ServiceMonitor says, but every second."""
    target = {
        "job_name": "labfunctions-operator",
        "honor_labels": True,
        "static_configs": [
            {"targets": [bench.operator.metrics_address], "labels": {"namespace": "system"}}
        ],
    }
    config = tmp_path / "prometheus.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(ALERTS)],
                "scrape_configs": [target],
            }
        )
    )
    address = f"127.0.0.1:{free_port()}"
    options = ["--config.file", config, "--storage.tsdb.path", tmp_path / "data"]
    with subprocess.Popen(
        ["prometheus", *options, "--web.listen-address", address, "--log.level=warn"]
    ) as process:
        server = Prometheus(f"http://{address}")
        try:
            until(server.is_up, "Prometheus has read the operator")
            yield server
        finally:
            process.terminate()


def test_prometheus_reads_the_operator_and_its_alerts_hold(
    bench: Bench, repository: Repository, prometheus: Prometheus
) -> None:
    team = bench.namespace
    bench.create(
        project(team, repository.url),
        built_project(team, repository.url, "broken"),
        workflow(team),
        run(team, "bad"),
    )
    bench.kubelet.finish_build(bench.build_pod("broken"), {"error": "no such package"})
    bench.await_reason("Project", "broken", "ImageBuildFailed")
    finish(bench, "bad", failed=True)

    def is_told() -> bool:
        return bool(prometheus.query(f'labfunctions_runs_ended_total{{namespace="{team}"}} == 1'))

    until(is_told, "the failed Run has come to Prometheus")
    expected = {
        ("LabFunctionsRunFailing", team),
        ("LabFunctionsWorkflowNeverSucceeded", team),
        ("LabFunctionsBuildFailing", team),
    }
    until(lambda: expected <= prometheus.alerts(), "what is wrong is alerted")
    assert ("LabFunctionsOperatorDown", "") not in prometheus.alerts()
    [requests] = prometheus.query('labfunctions_api_requests_total{verb="create",code="201"}')
    assert requests["metric"]["namespace"] == "system"

    bench.create(run(team, "good"))
    finish(bench, "good")
    mended = {("LabFunctionsRunFailing", team), ("LabFunctionsWorkflowNeverSucceeded", team)}
    until(lambda: not mended & prometheus.alerts(), "a success ends the alerts")
    bench.operator.stop()
    down = ("LabFunctionsOperatorDown", "")
    until(lambda: down in prometheus.alerts(), "an operator that is gone is missed")
    bench.operator.ensure()
    until(lambda: down not in prometheus.alerts(), "an operator that is back is seen")
