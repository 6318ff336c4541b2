"""ServiceMonitor, alerts and dashboard: off by default, and judged by Prometheus's own tool."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ALERTS = ROOT / "helm" / "labfunctions" / "monitoring" / "alerts.yaml"
DOCS = ROOT / "docs" / "metrics.md"
PARTS = {
    "serviceMonitor": ("ServiceMonitor", "labfunctions-operator"),
    "prometheusRule": ("PrometheusRule", "labfunctions-operator"),
    "dashboard": ("ConfigMap", "labfunctions-dashboard"),
}
METRIC = re.compile(r"\blabfunctions_[a-z_]+")
# What a histogram named in the docs is stored as.
SUFFIX = re.compile(r"_(bucket|sum|count)$")

Promtool = Callable[..., None]


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    binary = shutil.which("promtool")
    if not binary:
        pytest.fail("promtool is missing: install Debian's package prometheus")

    def run(*arguments: str | Path) -> None:
        done = subprocess.run([binary, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture
def dashboard(render: Callable[..., Any]) -> dict[str, Any]:
    release = render("metrics.dashboard.enabled=true")
    text = release.get(*PARTS["dashboard"])["data"]["labfunctions.json"]
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m").replace("$namespace", "team|lab")


def documented() -> set[str]:
    return set(re.findall(r"^\| `(labfunctions_[a-z_]+)`", DOCS.read_text(), re.MULTILINE))


def named(expression: str) -> set[str]:
    known = documented()
    return {m if m in known else SUFFIX.sub("", m) for m in METRIC.findall(expression)}


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_off_by_default_and_switched_on_its_own(
    render: Callable[..., Any], part: str
) -> None:
    release = render(f"metrics.{part}.enabled=true", f"metrics.{part}.labels.release=monitoring")
    found = {p for p, (kind, name) in PARTS.items() if name in release.names(kind)}
    default = {p for p, (kind, name) in PARTS.items() if name in render().names(kind)}

    assert default == set()
    assert found == {part}
    assert release.get(*PARTS[part])["metadata"]["labels"]["release"] == "monitoring"


def test_service_monitor_leads_to_the_operators_metrics(render: Callable[..., Any]) -> None:
    release = render("metrics.serviceMonitor.enabled=true")
    spec = release.get(*PARTS["serviceMonitor"])["spec"]
    service = release.get("Service", "labfunctions-operator")
    container = release.get("Deployment", "labfunctions-operator")["spec"]["template"]["spec"][
        "containers"
    ][0]
    [endpoint] = spec["endpoints"]
    [port] = [p for p in service["spec"]["ports"] if p["name"] == endpoint["port"]]
    [target] = [p for p in container["ports"] if p["name"] == port["targetPort"]]

    assert spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert target["containerPort"] == release.config["metrics"]["port"]
    assert endpoint["honorLabels"] is True
    assert spec["jobLabel"] in service["metadata"]["labels"]


def test_alerts_are_those_that_promtool_judged(render: Callable[..., Any]) -> None:
    release = render("metrics.prometheusRule.enabled=true")

    assert release.get(*PARTS["prometheusRule"])["spec"] == yaml.safe_load(ALERTS.read_text())


def test_alerts_are_valid(promtool: Promtool) -> None:
    promtool("check", "rules", ALERTS)


def test_alerts_fire_when_they_should(promtool: Promtool) -> None:
    promtool("test", "rules", HERE / "alerts_test.yaml")


def test_every_alert_is_tried_both_ways() -> None:
    tried: dict[str, set[bool]] = {}
    for test in yaml.safe_load((HERE / "alerts_test.yaml").read_text())["tests"]:
        for case in test["alert_rule_test"]:
            tried.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]

    assert tried == {rule["alert"]: {True, False} for rule in group["rules"]}


def test_alerts_and_dashboard_name_only_documented_metrics(dashboard: dict[str, Any]) -> None:
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    for expression in [*(rule["expr"] for rule in group["rules"]), *expressions(dashboard)]:
        assert named(expression), expression
        assert named(expression) <= documented()


def test_dashboard_shows_every_metric_that_is_not_about_time(dashboard: dict[str, Any]) -> None:
    shown = {metric for expression in expressions(dashboard) for metric in named(expression)}
    aside = {
        "labfunctions_operator_info",
        "labfunctions_workflow_last_schedule_timestamp_seconds",
        "labfunctions_workflow_next_schedule_timestamp_seconds",
    }
    assert shown == documented() - aside


def test_dashboard_asks_what_prometheus_understands(
    dashboard: dict[str, Any], promtool: Promtool, tmp_path: Path
) -> None:
    rules = [
        {"record": f"panel:expression_{number}", "expr": expression}
        for number, expression in enumerate(expressions(dashboard))
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    promtool("check", "rules", path)


def test_panels_lie_side_by_side(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("metrics.serviceMonitor.enabled=yes", "/metrics/serviceMonitor/enabled"),
        ("metrics.serviceMonitor.interval=often", "/metrics/serviceMonitor/interval"),
        ("metrics.prometheusRules.enabled=true", "prometheusRules"),
        ("metrics.dashboard.label=a", "label"),
    ],
)
def test_wrong_values_of_monitoring_are_refused(
    template: Callable[..., subprocess.CompletedProcess[str]], value: str, complaint: str
) -> None:
    done = template(value)

    assert done.returncode != 0
    assert complaint in done.stderr
