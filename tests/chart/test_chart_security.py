"""What the chart grants and how its pods run."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa

PODS = ["labfunctions-operator", "labfunctions-registry", "labfunctions-store"]


def violations(spec: dict[str, Any]) -> list[str]:
    """Say what Pod Security `restricted` would refuse."""
    found = []
    pod = spec.get("securityContext", {})
    if pod.get("runAsNonRoot") is not True or pod.get("runAsUser") == 0:
        found.append("may run as root")
    if pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append("seccomp")
    found += [field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    allowed = {"configMap", "secret", "projected", "emptyDir", "persistentVolumeClaim"}
    for volume in spec.get("volumes", []):
        found += [f"volume {kind}" for kind in volume.keys() - {"name"} - allowed]
    for container in spec.get("initContainers", []) + spec["containers"]:
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False:
            found.append(f"{container['name']}: privilege escalation")
        if context.get("capabilities") != {"drop": ["ALL"]}:
            found.append(f"{container['name']}: capabilities")
    return found


@pytest.mark.parametrize("name", PODS)
def test_pods_are_restricted_with_a_read_only_root(render: Callable[..., Any], name: str) -> None:
    spec = render().get("Deployment", name)["spec"]["template"]["spec"]

    assert violations(spec) == []
    for container in spec.get("initContainers", []) + spec["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_no_other_pods_than_those_and_buildkitd(render: Callable[..., Any]) -> None:
    release = render()

    assert release.names("Deployment") == {*PODS, "labfunctions-buildkitd"}
    assert {m["kind"] for m in release.manifests} == {
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "CustomResourceDefinition",
        "Deployment",
        "Secret",
        "Service",
        "ServiceAccount",
    }


def test_buildkitd_is_unprivileged(render: Callable[..., Any]) -> None:
    spec = render().get("Deployment", "labfunctions-buildkitd")["spec"]["template"]["spec"]

    assert spec["securityContext"]["runAsUser"] == 1000
    assert spec["automountServiceAccountToken"] is False
    assert "privileged" not in str(spec)


def test_only_the_operator_has_a_token(render: Callable[..., Any]) -> None:
    tokens = {
        m["metadata"]["name"]: m["spec"]["template"]["spec"]["automountServiceAccountToken"]
        for m in render().manifests
        if m["kind"] == "Deployment"
    }

    assert [name for name, mounted in tokens.items() if mounted] == ["labfunctions-operator"]


def granted(role: dict[str, Any]) -> dict[str, set[str]]:
    """Return the verbs of each group/resource."""
    verbs: dict[str, set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                verbs.setdefault(f"{group}/{resource}", set()).update(rule["verbs"])
    return verbs


def test_the_operator_is_granted_what_it_needs_and_nothing_else(
    render: Callable[..., Any],
) -> None:
    release = render()
    read = {"get", "list", "watch"}

    assert release.names("ClusterRole") == {"labfunctions-operator"}
    assert granted(release.get("ClusterRole", "labfunctions-operator")) == {
        "labfunctions.io/projects": read,
        "labfunctions.io/workflows": read,
        "labfunctions.io/backfills": read,
        "labfunctions.io/runs": read | {"create", "patch", "delete"},
        "labfunctions.io/nodegroups": read,
        "labfunctions.io/nodegroups/status": {"patch"},
        "labfunctions.io/projects/status": {"patch"},
        "labfunctions.io/workflows/status": {"patch"},
        "labfunctions.io/backfills/status": {"patch"},
        "labfunctions.io/runs/status": {"patch"},
        "batch/jobs": read | {"create", "delete"},
        "batch/cronjobs": read | {"create", "patch", "delete"},
        "/pods": read,
        "/nodes": {"get"},
        "/events": {"list", "create", "patch"},
        "/secrets": {"get", "create", "patch"},
    }


NODES = {
    "/nodes": {"get", "list", "watch"},
    "cluster.x-k8s.io/machinedeployments": {"get", "patch"},
    "cluster.x-k8s.io/machinesets": {"get", "patch"},
    "cluster.x-k8s.io/machinepools": {"get", "patch"},
}


@pytest.mark.parametrize(
    ("values", "more"),
    [
        (["enabled=true"], NODES),
        (
            ["enabled=true", "deleteNodes=true"],
            {
                **NODES,
                "/nodes": {"get", "list", "watch", "patch", "delete"},
                "/pods/eviction": {"create"},
            },
        ),
        (["deleteNodes=true"], {}),
    ],
)
def test_rights_on_nodes_come_with_autoscaling_only(
    render: Callable[..., Any], values: list[str], more: dict[str, set[str]]
) -> None:
    name = "labfunctions-operator"
    usual = granted(render().get("ClusterRole", name))
    release = render(*(f"autoscaling.{value}" for value in values))
    assert granted(release.get("ClusterRole", name)) == {**usual, **more}


def test_placeholders_are_made_in_the_operators_namespace_and_push_nobody_aside(
    render: Callable[..., Any],
) -> None:
    release = render("autoscaling.enabled=true")
    role = release.get("Role", "labfunctions-placeholders")
    assert role["metadata"]["namespace"] == "lf"
    assert granted(role) == {
        "/pods": {"create", "delete"},
        "/podtemplates": {"get", "create", "patch", "delete"},
        "autoscaling.x-k8s.io/capacitybuffers": {"get", "create", "patch", "delete"},
    }
    priority = release.get("PriorityClass", "labfunctions-placeholder")
    assert (priority["value"], priority["preemptionPolicy"]) == (-10, "Never")


def certificate(secret: dict[str, Any], key: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(base64.b64decode(secret["data"][key]))


@pytest.mark.parametrize("side", ["server", "client"])
def test_builder_certificates_come_from_one_authority(
    render: Callable[..., Any], side: str
) -> None:
    secret = render().get("Secret", f"labfunctions-builder-{side}")
    authority, leaf = certificate(secret, "ca.crt"), certificate(secret, "tls.crt")
    public = authority.public_key()

    assert isinstance(public, rsa.RSAPublicKey)
    assert leaf.signature_hash_algorithm is not None
    public.verify(
        leaf.signature,
        leaf.tbs_certificate_bytes,
        padding.PKCS1v15(),
        leaf.signature_hash_algorithm,
    )


def test_server_certificate_has_every_name_of_the_service(render: Callable[..., Any]) -> None:
    leaf = certificate(render().get("Secret", "labfunctions-builder-server"), "tls.crt")
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert set(names.get_values_for_type(x509.DNSName)) == {
        "labfunctions-buildkitd",
        "labfunctions-buildkitd.lf",
        "labfunctions-buildkitd.lf.svc",
        "labfunctions-buildkitd.lf.svc.cluster.local",
    }


def test_both_sides_have_the_same_authority(render: Callable[..., Any]) -> None:
    release = render()
    sides = [release.get("Secret", f"labfunctions-builder-{side}") for side in ("server", "client")]

    assert sides[0]["data"]["ca.crt"] == sides[1]["data"]["ca.crt"]
    assert sides[0]["data"]["tls.key"] != sides[1]["data"]["tls.key"]


def test_random_keys_are_long_and_differ(render: Callable[..., Any]) -> None:
    release = render()
    report = release.get("Secret", "labfunctions-reports")["data"]["key"]
    store = release.get("Secret", "labfunctions-store")["data"]["secretAccessKey"]

    assert len(base64.b64decode(report)) == 40
    assert len(base64.b64decode(store)) == 40
    assert report != store


def test_custom_resource_definitions_outlive_the_release(render: Callable[..., Any]) -> None:
    crds = [m for m in render().manifests if m["kind"] == "CustomResourceDefinition"]

    assert {crd["spec"]["names"]["kind"] for crd in crds} >= {
        "Project",
        "Workflow",
        "Backfill",
        "Run",
    }
    for crd in crds:
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
