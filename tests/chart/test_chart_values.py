"""What the values switch, and what the chart refuses."""

import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from labfunctions_operator.settings import Settings

CHART = Path(__file__).parents[2] / "helm" / "labfunctions"
EXTERNAL_BUILDER = (
    "builder.enabled=false",
    "builder.external.address=tcp://buildkitd.ci.svc:1234",
    "builder.external.tlsSecret=my-client",
)
EXTERNAL_REGISTRY = (
    "registry.enabled=false",
    "registry.external.push=registry.example.com/lab",
    "registry.external.pull=registry.example.com/lab",
)
EXTERNAL_STORE = (
    "store.enabled=false",
    "store.external.bucket=results",
    "store.external.region=eu-west-1",
)


def operator_secrets(release: Any) -> set[str]:
    spec = release.get("Deployment", "labfunctions-operator")["spec"]["template"]["spec"]
    [config] = [volume for volume in spec["volumes"] if volume["name"] == "config"]
    return {s["secret"]["name"] for s in config["projected"]["sources"] if "secret" in s}


def buildkitd_config(release: Any) -> dict[str, Any]:
    return tomllib.loads(release.config["builder"]["buildkitdConfig"])


def test_chart_lints(helm: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = helm("lint", "--strict", str(CHART))

    assert done.returncode == 0, done.stdout + done.stderr


def test_values_of_the_local_cluster_are_valid(
    helm: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    values = CHART.parents[1] / "dev" / "cluster" / "values.yaml"

    done = helm("template", "labfunctions", str(CHART), "-n", "lf", "--values", str(values))

    assert done.returncode == 0, done.stderr


def test_default_configuration_of_the_operator(render: Callable[..., Any]) -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    config = render().config
    config["builder"].pop("buildkitdConfig")

    Settings.model_validate(config)
    assert config == {
        "namespace": "lf",
        "images": {
            "courier": f"ghcr.io/labfunctions/courier:{version}",
            "builder": f"ghcr.io/labfunctions/builder:{version}",
        },
        "builder": {
            "mode": "shared",
            "address": "tcp://labfunctions-buildkitd.lf.svc:1234",
            "tlsDir": "/etc/labfunctions/builder-tls",
        },
        "registry": {
            "pushRepository": "labfunctions-registry.lf.svc:5000",
            "pullRepository": "localhost:30500",
            "insecure": True,
        },
        "store": {
            "endpoint": "http://labfunctions-store.lf.svc:7070",
            "region": "us-east-1",
            "bucket": "labfunctions",
            "prefix": "",
            "credentialsDir": "/etc/labfunctions/store",
        },
        "reports": {
            "url": "http://labfunctions-operator.lf.svc:8080",
            "keyFile": "/etc/labfunctions/reports/key",
            "port": 8080,
        },
        "metrics": {"port": 9090},
        "notifications": {
            "allowedHosts": {"*": ["*"]},
            "deniedCidrs": [],
            "slackUrl": "https://slack.com/api/",
            "consoleUrl": "",
            "linkSeconds": 0,
        },
        "autoscaling": {"enabled": False},
        "cacheDir": "/var/cache/labfunctions",
    }


def test_where_messages_may_go_and_what_they_link_to(render: Callable[..., Any]) -> None:
    hosts = "notifications.allowedHosts.team={alerts.team.svc:8080,[::1]:25,*.example.com}"
    console = "notifications.consoleUrl=https://console.example.com"
    denied = "notifications.deniedCIDRs={2001:db8:7::/48,203.0.113.0/24}"
    config = render(hosts, denied, console, *EXTERNAL_STORE).config
    said = Settings.model_validate(config).notifications

    assert [str(network) for network in said.denied_cidrs] == ["2001:db8:7::/48", "203.0.113.0/24"]
    assert said.allowed_hosts == {
        "*": ["*"],
        "team": ["alerts.team.svc:8080", "[::1]:25", "*.example.com"],
    }
    assert said.console_url == "https://console.example.com"
    # Only the embedded store cannot be reached from where people read.
    assert said.link_seconds == 86400


def test_buildkitd_knows_plain_http_hosts(render: Callable[..., Any]) -> None:
    release = render("builder.mirrors={10.0.0.1:5000}")
    text = release.get("ConfigMap", "labfunctions-buildkitd")["data"]["buildkitd.toml"]

    assert tomllib.loads(text) == buildkitd_config(release)
    assert buildkitd_config(release)["registry"] == {
        "docker.io": {"mirrors": ["10.0.0.1:5000"]},
        "labfunctions-registry.lf.svc:5000": {"http": True},
        "10.0.0.1:5000": {"http": True},
    }
    assert buildkitd_config(release)["worker"]["oci"]["rootless"] is True


def test_a_mirror_list_cannot_break_out_of_its_string(
    template: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    assert template('builder.mirrors={a"]\nx=1}').returncode != 0


def test_external_builder(render: Callable[..., Any]) -> None:
    release = render(*EXTERNAL_BUILDER)

    assert "labfunctions-buildkitd" not in release.names("Deployment") | release.names("Service")
    assert not {name for name in release.names("Secret") if "builder" in name}
    assert release.config["builder"]["address"] == "tcp://buildkitd.ci.svc:1234"
    assert "my-client" in operator_secrets(release)


def test_builder_in_every_build_pod(render: Callable[..., Any]) -> None:
    release = render("builder.mode=perBuild")

    assert "labfunctions-buildkitd" not in release.names("Deployment") | release.names("Service")
    assert release.config["builder"]["mode"] == "perBuild"
    assert release.config["builder"].keys() == {"mode", "buildkitdConfig"}
    assert buildkitd_config(release)["worker"]["oci"]["rootless"] is True
    assert operator_secrets(release) == {"labfunctions-reports", "labfunctions-store"}


def test_external_registry(render: Callable[..., Any]) -> None:
    release = render(*EXTERNAL_REGISTRY)

    assert "labfunctions-registry" not in release.names("Deployment") | release.names("Service")
    assert release.config["registry"] == {
        "pushRepository": "registry.example.com/lab",
        "pullRepository": "registry.example.com/lab",
        "insecure": False,
    }
    assert "registry" not in buildkitd_config(release)


def test_insecure_external_registry_is_plain_http_for_buildkit(
    render: Callable[..., Any],
) -> None:
    release = render(*EXTERNAL_REGISTRY, "registry.external.insecure=true")

    assert buildkitd_config(release)["registry"] == {"registry.example.com": {"http": True}}


def test_external_store_with_the_operators_own_identity(render: Callable[..., Any]) -> None:
    release = render(*EXTERNAL_STORE)

    assert "labfunctions-store" not in release.names("Deployment") | release.names("Secret")
    assert release.config["store"] == {
        "endpoint": "",
        "region": "eu-west-1",
        "bucket": "results",
        "prefix": "",
    }
    assert operator_secrets(release) == {"labfunctions-reports", "labfunctions-builder-client"}


def test_external_store_with_keys(render: Callable[..., Any]) -> None:
    release = render(*EXTERNAL_STORE, "store.external.credentialsSecret=my-keys")

    assert release.config["store"]["credentialsDir"] == "/etc/labfunctions/store"
    assert "my-keys" in operator_secrets(release)


def test_secrets_of_ones_own_replace_all_generated_ones(render: Callable[..., Any]) -> None:
    names = {"builderServer": "a", "builderClient": "b", "store": "c", "reports": "d"}
    release = render(*(f"existingSecrets.{key}={name}" for key, name in names.items()))

    assert release.names("Secret") == set()
    assert operator_secrets(release) == {"b", "c", "d"}


@pytest.mark.parametrize("part", ["builder", "registry", "store"])
def test_persistence_gives_each_part_its_claim(render: Callable[..., Any], part: str) -> None:
    name = "labfunctions-buildkitd" if part == "builder" else f"labfunctions-{part}"
    release = render(f"{part}.persistence.enabled=true", f"{part}.persistence.storageClass=fast")
    claim = release.get("PersistentVolumeClaim", name)
    volumes = release.get("Deployment", name)["spec"]["template"]["spec"]["volumes"]

    assert release.names("PersistentVolumeClaim") == {name}
    assert claim["spec"]["storageClassName"] == "fast"
    assert {"claimName": name} in [volume.get("persistentVolumeClaim") for volume in volumes]
    kept = claim["metadata"].get("annotations", {}).get("helm.sh/resource-policy")
    assert kept == (None if part == "builder" else "keep")


def test_new_configuration_restarts_the_operator(render: Callable[..., Any]) -> None:
    def checksum(*values: str) -> str:
        deployment = render(*values).get("Deployment", "labfunctions-operator")
        found: str = deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        return found

    assert checksum() == checksum("operator.priorityClassName=high")
    assert checksum() != checksum("store.bucket=another")


@pytest.mark.parametrize("part", ["operator", "builder", "registry", "store"])
def test_pods_are_placed_where_the_values_say(render: Callable[..., Any], part: str) -> None:
    name = "labfunctions-buildkitd" if part == "builder" else f"labfunctions-{part}"
    release = render(
        f"{part}.priorityClassName=high",
        f"{part}.nodeSelector.pool=infra",
        f"{part}.tolerations[0].key=infra",
        f"{part}.resources.limits.memory=123Mi",
        "imagePullSecrets[0].name=pull",
    )
    spec = release.get("Deployment", name)["spec"]["template"]["spec"]

    assert spec["priorityClassName"] == "high"
    assert spec["nodeSelector"] == {"pool": "infra"}
    assert spec["tolerations"] == [{"key": "infra"}]
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert spec["containers"][0]["resources"]["limits"]["memory"] == "123Mi"


def test_services_select_the_pods_of_their_own_part_only(render: Callable[..., Any]) -> None:
    release = render()
    pods = {
        m["metadata"]["name"]: m["spec"]["template"]["metadata"]["labels"].items()
        for m in release.manifests
        if m["kind"] == "Deployment"
    }

    for name in release.names("Service"):
        selector = release.get("Service", name)["spec"]["selector"].items()
        assert [pod for pod, labels in pods.items() if selector <= labels] == [name]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("builder.mode=sharde", "/builder/mode"),
        ("builder.mirrors=a", "/builder/mirrors"),
        ("builder.external.address=buildkitd:1234", "/builder/external/address"),
        ("builder.cacheLimit=lots", "/builder/cacheLimit"),
        ("imagePullPolicy=Sometimes", "/imagePullPolicy"),
        ("registry.nodePort=99999", "/registry/nodePort"),
        ("registry.nodePort=abc", "/registry/nodePort"),
        ("registry.external.push=https://registry.example.com", "/registry/external/push"),
        ("store.bucket=Not_A_Bucket", "/store/bucket"),
        ("store.external.endpoint=minio:9000", "/store/external/endpoint"),
        ("store.persistence.size=much", "/store/persistence/size"),
        ("operator.replicas=2", "replicas"),
        ("image.operator=x", "image"),
        ("images.opertor=x", "opertor"),
        ("images.store=", "/images/store"),
        ("existingSecrets.store=Not A Name", "/existingSecrets/store"),
        ("notifications.allowedHosts.team={http://a}", "/notifications/allowedHosts/team/0"),
        ("notifications.allowedHosts.team={*.a:80}", "/notifications/allowedHosts/team/0"),
        ("notifications.allowedHosts.Team={a}", "invalid propertyName 'Team'"),
        ("notifications.deniedCIDRs={10.0.0.1}", "/notifications/deniedCIDRs/0"),
        ("notifications.linkSeconds=604801", "/notifications/linkSeconds"),
        ("notifications.consoleUrl=console", "/notifications/consoleUrl"),
        ("notifications.slackUrl=https://slack.com/api", "/notifications/slackUrl"),
        ("builder.enabled=false", "set builder.external.address"),
        ("registry.enabled=false", "set registry.external.push"),
        ("store.enabled=false", "set store.external.bucket"),
        ("builder.external.address=tcp://b:1", "set builder.enabled to false"),
        ("registry.external.push=r.example.com", "set registry.enabled to false"),
        ("store.external.bucket=results", "set store.enabled to false"),
        ("existingSecrets.builderServer=a", "belong together"),
    ],
)
def test_wrong_values_are_refused_by_name(
    template: Callable[..., subprocess.CompletedProcess[str]], value: str, complaint: str
) -> None:
    done = template(value)

    assert done.returncode != 0
    assert complaint in done.stderr
