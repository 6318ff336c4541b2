"""What a user asks for in a Run arrives in its pod, past a real API server and scheduler."""

from collections.abc import Iterator

import pytest

from tests.providers.provider_servers import Repository

from .api import Object, until
from .bench import Bench
from .kubelet import now
from .objects import inline_run, project, secret

MIG = "nvidia.com/mig-1g.5gb"
NODE = "mig-node"
LABELS = {"pool": "mig"}
TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
CLASS = "component-batch"
SAME_HOST = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {
                "labelSelector": {"matchLabels": {"app": "noisy"}},
                "topologyKey": "kubernetes.io/hostname",
            }
        ]
    }
}
RESOURCES = {
    "requests": {"cpu": "500m", "memory": "1Gi"},
    "limits": {"memory": "2Gi", "ephemeral-storage": "1Gi"},
}
TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
ENV = [
    {"name": "ZONE", "value": "eu"},
    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "api", "key": "token"}}},
    {"name": "NODE", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}},
]
VOLUMES = [
    {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
    {"name": "big", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
]
MOUNTS = [
    {"name": "data", "mountPath": "/data", "readOnly": True},
    {"name": "big", "mountPath": "/dev/shm"},
]
EVERYTHING: Object = {
    "resources": RESOURCES,
    "gpu": {"count": 2, "resourceName": MIG},
    "nodeSelector": LABELS,
    "tolerations": [TOLERATION],
    "affinity": SAME_HOST,
    "volumes": VOLUMES,
    "volumeMounts": MOUNTS,
    "env": ENV,
    "envFrom": [{"secretRef": {"name": "api"}}, {"configMapRef": {"name": "settings"}}],
    "serviceAccountName": "analyst",
    "priorityClassName": CLASS,
    "imagePullSecrets": [{"name": "login"}],
    "queueName": "team",
}


@pytest.fixture
def mig_node(bench: Bench) -> Iterator[None]:
    """A node with slices of a GPU, kept free for who asks for them."""
    metadata = {"name": NODE, "labels": {"kubernetes.io/hostname": NODE, **LABELS}}
    size = {"cpu": "4", "memory": "16Gi", "ephemeral-storage": "10Gi", "pods": "10", MIG: "7"}
    ready = {"type": "Ready", "status": "True", "reason": "Test"}
    ready |= {"lastHeartbeatTime": now(), "lastTransitionTime": now()}
    api = bench.api
    api.create(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": metadata,
            "spec": {"taints": [TAINT]},
            "status": {"capacity": size, "allocatable": size, "conditions": [ready]},
        }
    )
    until(
        lambda: (api.get("Node", "", NODE) or {})["spec"]["taints"] == [TAINT],
        "the node takes pods",
    )
    yield
    api.delete("Node", "", NODE)


@pytest.fixture
def surroundings(bench: Bench) -> Iterator[None]:
    """What the Run names."""
    class_ = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": CLASS},
        "value": 1000,
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": bench.namespace, "name": "data"},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "",
            "volumeName": bench.namespace,
        },
    }
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": bench.namespace},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "capacity": {"storage": "1Gi"},
            "nfs": {"server": "files.example.org", "path": "/"},
        },
    }
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"namespace": bench.namespace, "name": "analyst"},
    }
    bench.api.request("POST", CLASSES, class_)
    bench.create(volume, claim, account, secret(bench.namespace, "api", token="t0ken"))
    yield
    bench.api.request("DELETE", f"{CLASSES}/{CLASS}")
    bench.api.delete("PersistentVolume", "", bench.namespace)


@pytest.mark.usefixtures("mig_node", "surroundings")
def test_everything_at_once_arrives_and_is_scheduled(bench: Bench, repository: Repository) -> None:
    bench.create(
        project(bench.namespace, repository.url), inline_run(bench.namespace, **EVERYTHING)
    )
    bench.await_reason("Run", "first", "Queued")
    [job] = bench.jobs(run="first")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    check_template(job["spec"]["template"])
    bench.api.patch("Job", bench.namespace, "first-1", {"spec": {"suspend": False}})
    pod = bench.pod("first")
    check_template(pod)
    assert pod["spec"]["nodeName"] == NODE
    assert pod["spec"]["priority"] == 1000
    done = bench.complete("first")
    assert done["status"]["attempts"][0]["node"] == NODE


def check_template(found: Object) -> None:
    """Compare with what was asked for; the API server adds to it, and takes nothing away."""
    spec = found["spec"]
    [notebook] = spec["containers"]
    assert notebook["resources"]["limits"] == {**RESOURCES["limits"], MIG: "2"}
    requests = notebook["resources"]["requests"]
    assert {**requests, **RESOURCES["requests"]} == requests
    assert spec["nodeSelector"] == LABELS
    assert TOLERATION in spec["tolerations"]
    assert spec["affinity"] == SAME_HOST
    assert [v for v in spec["volumes"] if v in VOLUMES] == VOLUMES
    assert [m for m in notebook["volumeMounts"] if m in MOUNTS] == MOUNTS
    assert notebook["env"][: len(ENV)] == ENV
    assert notebook["envFrom"][:2] == EVERYTHING["envFrom"]
    assert spec["serviceAccountName"] == "analyst"
    assert spec["automountServiceAccountToken"] is True
    assert spec["priorityClassName"] == CLASS
    assert spec["imagePullSecrets"] == [{"name": "login"}]
    assert found["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
