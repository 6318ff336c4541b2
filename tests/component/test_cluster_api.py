"""Cluster API's annotations on a real API server, among other managers of the same object."""

from collections.abc import Iterator
from typing import Any

import pytest

from dev.cluster.kubectl import Kubectl
from labfunctions_operator.api.nodegroup import Taint
from labfunctions_operator.errors import Drifted, NotFound
from labfunctions_operator.kube.client import KubeClient
from labfunctions_operator.providers.nodes.cluster_api import MachineGroup
from labfunctions_operator.reconcile.nodes import Bounds, GroupSize, NodeTemplate

from .harness import Audit

# As much of Cluster API's kinds as an autoscaler looks at.
MACHINE_CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: {plural}.cluster.x-k8s.io
  annotations: {{api-approved.kubernetes.io: "unapproved, a test"}}
spec:
  group: cluster.x-k8s.io
  scope: Namespaced
  names: {{kind: {kind}, listKind: {kind}List, plural: {plural}, singular: {singular}}}
  versions:
    - name: {version}
      served: true
      storage: true
      subresources: {{status: {{}}}}
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec: {{type: object, properties: {{replicas: {{type: integer}}}}}}
            status: {{type: object, properties: {{replicas: {{type: integer}}}}}}
"""
KINDS = {"MachineDeployment": "v1beta2", "MachinePool": "v1beta2", "MachineSet": "v1beta1"}
MIN = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-min-size"
MAX = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size"
ADOPTED = "labfunctions.io/bounds"
RAISED = "labfunctions.io/raised-until"
CAPACITY = "capacity.cluster-autoscaler.kubernetes.io"
UNTIL = "2026-11-25T09:00:00Z"


@pytest.fixture(scope="module")
def _machine_kinds(kubectl: Kubectl) -> Iterator[None]:
    for kind, version in KINDS.items():
        singular = kind.lower()
        kubectl.apply(
            MACHINE_CRD.format(kind=kind, version=version, singular=singular, plural=f"{singular}s")
        )
    crds = [f"crd/{kind.lower()}s.cluster.x-k8s.io" for kind in KINDS]
    kubectl.await_kinds(*crds)
    yield
    kubectl.run("delete", *crds)


class Machines:
    """What an administrator and the autoscaler do to one object, by kubectl."""

    def __init__(self, kubectl: Kubectl, namespace: str, kind: str) -> None:
        self._kubectl = kubectl
        self._namespace = namespace
        self.kind = kind

    def make(self, *, replicas: int = 0, **annotations: str) -> None:
        lines = "".join(f'\n    {key}: "{value}"' for key, value in annotations.items())
        self._kubectl.apply(
            f"apiVersion: cluster.x-k8s.io/{KINDS[self.kind]}\n"
            f"kind: {self.kind}\n"
            f"metadata:\n  name: gpu\n  namespace: {self._namespace}\n"
            + (f"  annotations:{lines}\n" if lines else "")
            + f"spec: {{replicas: {replicas}}}\n"
        )

    def annotate(self, *changes: str) -> None:
        self._run("annotate", "--overwrite", self.kind, "gpu", *changes)

    def scale(self, replicas: int) -> None:
        self._run(
            "patch", self.kind, "gpu", "--type=merge", "-p", f'{{"spec":{{"replicas":{replicas}}}}}'
        )

    def remove(self) -> None:
        self._run("delete", self.kind, "gpu")

    def _run(self, verb: str, *arguments: str) -> None:
        self._kubectl.run(verb, "--namespace", self._namespace, *arguments)


@pytest.fixture
def machines(kubectl: Kubectl, namespace: str, _machine_kinds: None) -> Machines:
    return Machines(kubectl, namespace, "MachineDeployment")


@pytest.fixture
def pool(client: KubeClient, namespace: str) -> MachineGroup:
    return MachineGroup(client, kind="MachineDeployment", namespace=namespace, name="gpu")


async def annotations(client: KubeClient, machines: Machines, namespace: str) -> dict[str, Any]:
    obj = await client.get(
        f"cluster.x-k8s.io/{KINDS[machines.kind]}", machines.kind, namespace, "gpu"
    )
    found: dict[str, Any] = obj["metadata"]["annotations"]
    found.pop("kubectl.kubernetes.io/last-applied-configuration", None)
    return found


async def test_cluster_api_is_not_installed(client: KubeClient, namespace: str) -> None:
    pool = MachineGroup(client, kind="MachinePool", namespace=namespace, name="none")
    with pytest.raises(NotFound, match="there is no MachinePool"):
        await pool.read()


@pytest.mark.usefixtures("_machine_kinds")
@pytest.mark.parametrize("kind", KINDS)
async def test_bounds_and_capacity_are_written_once(
    kind: str,
    kubectl: Kubectl,
    client: KubeClient,
    namespace: str,
    audit: Audit,
) -> None:
    machines = Machines(kubectl, namespace, kind)
    machines.make(replicas=1, team="lab")
    pool = MachineGroup(client, kind=kind, namespace=namespace, name="gpu")
    template = NodeTemplate(
        labels={"pool": "gpu"},
        taints=(Taint(key="gpu"),),
        resources={"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"},
    )
    bounds = Bounds(min=1, max=4, raised_until=UNTIL, template=template)
    seen = await pool.read()

    written = await pool.write(bounds, seen)
    again = await pool.write(bounds, written)

    assert seen == GroupSize(min=0, max=0, desired=1)
    assert written == again == await pool.read()
    assert (written.min, written.max, written.desired) == (1, 4, 1)
    assert await annotations(client, machines, namespace) == {
        "team": "lab",
        ADOPTED: "adopted",
        MIN: "1",
        MAX: "4",
        RAISED: UNTIL,
        f"{CAPACITY}/cpu": "4",
        f"{CAPACITY}/memory": "16Gi",
        f"{CAPACITY}/gpu-type": "nvidia.com/gpu",
        f"{CAPACITY}/gpu-count": "1",
        f"{CAPACITY}/labels": "pool=gpu",
        f"{CAPACITY}/taints": "gpu=:NoSchedule",
    }
    assert await audit.writes() == [f"patch {kind.lower()}s"]


async def test_what_is_no_longer_wanted_goes(
    pool: MachineGroup, machines: Machines, client: KubeClient, namespace: str
) -> None:
    machines.make()
    raised = Bounds(min=2, max=4, raised_until=UNTIL, idle_seconds=60)
    seen = await pool.write(raised, await pool.read())

    await pool.write(Bounds(min=0, max=4), seen)

    assert await annotations(client, machines, namespace) == {
        ADOPTED: "adopted",
        MIN: "0",
        MAX: "4",
    }


async def test_bounds_of_someone_else_are_taken_over_once(
    pool: MachineGroup, machines: Machines
) -> None:
    machines.make(**{MIN: "0", MAX: "9"})
    seen = await pool.read()
    assert (seen.min, seen.max) == (0, 9)

    written = await pool.write(Bounds(min=1, max=4), seen)

    assert (written.min, written.max) == (1, 4)


async def test_a_field_that_was_taken_over_stays_with_its_manager(
    pool: MachineGroup, machines: Machines, audit: Audit
) -> None:
    machines.make()
    await pool.write(Bounds(min=0, max=4), await pool.read())
    machines.annotate(f"{MAX}=7")

    for _ in range(2):
        with pytest.raises(Drifted, match=r'"kubectl-annotate".*once annotation'):
            await pool.write(Bounds(min=0, max=5), await pool.read())
    assert (await pool.read()).max == 7

    machines.annotate(f"{ADOPTED}-")
    assert (await pool.write(Bounds(min=0, max=5), await pool.read())).max == 5


async def test_the_same_value_of_someone_else_is_no_quarrel(
    pool: MachineGroup, machines: Machines, audit: Audit
) -> None:
    machines.make()
    await pool.write(Bounds(min=0, max=4), await pool.read())
    machines.annotate(f"{MAX}=5")

    seen = await pool.read()
    assert await pool.write(Bounds(min=0, max=5), seen) == seen
    assert len([write for write in await audit.writes() if write.startswith("patch")]) == 1


async def test_bounds_that_moved_since_are_left_alone(
    pool: MachineGroup, machines: Machines, audit: Audit
) -> None:
    machines.make(**{MIN: "0", MAX: "9"})
    seen = await pool.read()
    machines.annotate(f"{MAX}=7")

    with pytest.raises(Drifted, match="max 7"):
        await pool.write(Bounds(min=0, max=5), seen)

    assert await audit.writes() == []


async def test_replicas_are_the_autoscalers(pool: MachineGroup, machines: Machines) -> None:
    machines.make(**{MIN: "0", MAX: "9"})
    seen = await pool.read()
    machines.scale(3)

    with pytest.raises(Drifted, match="has 3 nodes, more than 2"):
        await pool.write(Bounds(min=0, max=2), seen)
    written = await pool.write(Bounds(min=0, max=3), seen)

    assert written.desired == 3


async def test_annotations_that_are_no_numbers_count_as_none(
    pool: MachineGroup, machines: Machines
) -> None:
    machines.make(**{MIN: "-1", MAX: "many"})
    assert await pool.read() == GroupSize(min=0, max=0, desired=0)


async def test_no_such_machines(pool: MachineGroup, machines: Machines) -> None:
    with pytest.raises(NotFound, match="there is no MachineDeployment"):
        await pool.read()

    machines.make()
    seen = await pool.read()
    machines.remove()
    with pytest.raises(NotFound):
        await pool.write(Bounds(min=0, max=5), seen)
