"""Which provider a NodeGroup gets."""

from typing import Any

import pytest

from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.providers.nodes.asg import AutoScalingGroup
from labfunctions_operator.providers.nodes.cluster_api import MachineGroup
from labfunctions_operator.providers.nodes.eks import EksNodegroup
from labfunctions_operator.providers.nodes.factory import make_provider

REGION = "eu-central-1"


class NoCluster:
    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> dict[str, Any]:
        raise AssertionError("nothing is asked before a read")

    async def apply(self, manifest: dict[str, Any], *, force: bool = True) -> dict[str, Any]:
        raise AssertionError("nothing is applied before a write")


def group(**provider: object) -> NodeGroup:
    spec = {"provider": provider, "labels": {"pool": "gpu"}, "max": 3}
    return NodeGroup.model_validate({"metadata": {"name": "gpu"}, "spec": spec})


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ({"awsAutoScalingGroup": {"name": "gpu", "region": REGION}}, AutoScalingGroup),
        ({"eksNodegroup": {"cluster": "lab", "name": "gpu", "region": REGION}}, EksNodegroup),
        ({"clusterApi": {"kind": "MachinePool", "name": "gpu"}}, MachineGroup),
    ],
)
async def test_each_pool_has_its_provider(provider: dict[str, object], expected: type) -> None:
    made = make_provider(group(**provider), NoCluster())
    assert type(made) is expected
    await made.close()


@pytest.mark.parametrize("name", ["capacity", "static"])
def test_a_group_without_a_pool(name: str) -> None:
    with pytest.raises(InvalidSpec, match=f"{name} has no pool"):
        make_provider(group(**{name: {}}), NoCluster())
