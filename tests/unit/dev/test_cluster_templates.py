import json
import tomllib

import pytest
import yaml

from dev.cluster.templates import render


def test_unknown_place_in_a_template_is_an_error() -> None:
    with pytest.raises(KeyError):
        render("hosts.toml")


def test_containerd_configuration_is_toml_that_names_our_folders() -> None:
    text = render("containerd.toml", root="/r", pause="p:1", cni="/cni", runc="/bin/runc")
    config = tomllib.loads(text)

    runtime = config["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]["runc"]
    assert config["state"] == "/r/containerd/state"
    assert runtime["options"]["BinaryName"] == "/bin/runc"


def test_bridge_configuration_is_json() -> None:
    config = json.loads(render("bridge.conflist", addresses="/r", bridge="b0", range="10.1.0.0/24"))

    assert config["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.1.0.0/24"}]]


def test_kubelet_configuration_throws_nothing_away_early() -> None:
    values = {"root": "/r", "pki": "/p", "identity": "kubelet", "address": "10.1.0.1"}
    places = {"dns": "10.2.0.10", "cgroup": "/c", "resolver": "/etc/resolv.conf"}
    ports = {"port": 1, "healthz_port": 2, "shutdown_grace": 30, "critical_grace": 10}
    config = yaml.safe_load(render("kubelet.yaml", **values, **places, **ports, taints="[]"))

    assert config["imageGCHighThresholdPercent"] == 100
    assert config["clusterDNS"] == ["10.2.0.10"]
    assert config["shutdownGracePeriod"] == "30s"
