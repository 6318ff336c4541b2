"""What of a NodeGroup is refused, and where."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from crd_schema import errors, schema_of
from objects import make_node_group

from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.api.parse import parse
from labfunctions_operator.errors import InvalidSpec

WARM = {"schedule": "0 9 * * 1-5", "duration": "1h", "min": 2}
CLUSTER_API = {"name": "gpu", "namespace": "capi"}


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"labels": {}}, "spec.labels"),
        ({"labels": {"a b": "c"}}, "spec.labels.a b"),
        ({"max": None}, "spec.max"),
        ({"min": 11}, "spec"),
        ({"warm": [{**WARM, "min": 11}]}, "spec"),
        ({"provider": {}}, "spec.provider"),
        ({"provider": {"static": {}, "capacity": {}}}, "spec.provider"),
        ({"provider": {"clusterApi": {"kind": "Node", **CLUSTER_API}}}, "spec.provider.clusterApi"),
        ({"idle": {"after": "soon"}}, "spec.idle.after"),
        ({"cooldown": {"up": "0s"}}, "spec.cooldown.up"),
        ({"warmAhead": "0s"}, "spec.warmAhead"),
        ({"warm": [{**WARM, "duration": "0s"}]}, "spec.warm[0].duration"),
        ({"policy": {"steps": {"idleTimeGt": "x"}}}, "spec.policy.steps.idleTimeGt"),
    ],
)
def test_a_wrong_field_is_named(spec: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        make_node_group(**spec)
    assert refused.value.path.startswith(path)


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        (None, "capacity"),
        ({"capacity": {}}, "capacity"),
        ({"awsAutoScalingGroup": {"name": "g", "region": "eu-west-1"}}, "awsAutoScalingGroup"),
        ({"eksNodegroup": {"cluster": "c", "name": "g", "region": "eu-west-1"}}, "eksNodegroup"),
        ({"clusterApi": CLUSTER_API}, "clusterApi"),
        ({"static": {"deleteNodes": True}}, "static"),
    ],
)
def test_the_provider_is_the_field_that_is_set(provider: Any, name: str) -> None:
    group = make_node_group(**({"provider": provider} if provider else {}))
    assert group.spec.provider.name == name


def test_the_example_is_one() -> None:
    text = (Path(__file__).parents[3] / "examples" / "manifests" / "nodegroup.yaml").read_text()
    obj = yaml.safe_load(text)
    assert parse(NodeGroup, obj).spec.provider.name == "capacity"
    assert list(errors(schema_of("NodeGroup")["properties"]["spec"], obj["spec"], "spec")) == []
