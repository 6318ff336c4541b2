"""Managed node groups at moto's server, each with an Auto Scaling group made for it."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count

import pytest

from labfunctions_operator.api.nodegroup import Taint
from labfunctions_operator.errors import Denied, Drifted, InvalidSpec, NotFound, Transient
from labfunctions_operator.providers.nodes.eks import EksNodegroup
from labfunctions_operator.providers.nodes.hints import HINTS, asg_tags
from labfunctions_operator.reconcile.nodes import Bounds, GroupSize, NodeTemplate
from tests.providers.aws_servers import REGION, Account, Front

UNTIL = "2026-11-25T09:00:00Z"
RAISED = "labfunctions.io/raised-until"
HINT = "k8s.io/cluster-autoscaler/node-template"
_numbers = count(1)


@pytest.fixture
def cluster() -> str:
    return f"cluster-{next(_numbers)}"


@pytest.fixture
def behind(cluster: str, account: Account) -> str:
    """The Auto Scaling group behind the node group."""
    return account.add_nodegroup(cluster, "gpu", low=0, high=5, desired=1)


@pytest.fixture
async def pool(cluster: str, front: Front) -> AsyncIterator[EksNodegroup]:
    pool = EksNodegroup(cluster=cluster, name="gpu", region=REGION)
    yield pool
    await pool.close()


def update(status: str, *errors: tuple[str, str]) -> str:
    listed = [{"errorCode": code, "errorMessage": message} for code, message in errors]
    return json.dumps({"update": {"id": "u-1", "status": status, "errors": listed}})


async def test_desired_is_what_the_autoscaler_set(
    pool: EksNodegroup, behind: str, account: Account
) -> None:
    account.autoscaling.set_desired_capacity(AutoScalingGroupName=behind, DesiredCapacity=3)

    assert await pool.read() == GroupSize(min=0, max=5, desired=3)


async def test_bounds_go_to_eks_and_hints_to_the_group_behind(
    pool: EksNodegroup, cluster: str, behind: str, account: Account, front: Front
) -> None:
    template = NodeTemplate(
        labels={"pool": "gpu"}, taints=(Taint(key="gpu"),), resources={"nvidia.com/gpu": "1"}
    )
    bounds = Bounds(min=1, max=4, raised_until=UNTIL, template=template)

    written = await pool.write(bounds, await pool.read())

    assert front.writes == ["CreateOrUpdateTags", "UpdateNodegroupConfig"]
    assert account.scaling(cluster, "gpu") == {"minSize": 1, "maxSize": 4, "desiredSize": 1}
    assert account.tags(behind) == {
        f"{HINT}/label/pool": "gpu",
        f"{HINT}/taint/gpu": ":NoSchedule",
        f"{HINT}/resources/nvidia.com/gpu": "1",
        RAISED: UNTIL,
        HINTS: asg_tags(bounds)[HINTS],
    }
    assert "desiredSize" not in "".join(front.sent)
    assert written == await pool.read()

    front.forget()
    assert await pool.write(bounds, written) == written
    assert front.writes == []


async def test_a_min_above_desired_takes_desired_along(
    pool: EksNodegroup, cluster: str, behind: str, account: Account
) -> None:
    """EKS refuses such a min alone; desired must not fall below what the autoscaler asked for."""
    account.autoscaling.set_desired_capacity(AutoScalingGroupName=behind, DesiredCapacity=3)

    await pool.write(Bounds(min=2, max=5), await pool.read())

    assert account.scaling(cluster, "gpu") == {"minSize": 2, "maxSize": 5, "desiredSize": 3}


async def test_what_someone_else_changed_is_left_alone(
    pool: EksNodegroup, cluster: str, behind: str, account: Account, front: Front
) -> None:
    seen = await pool.read()
    account.eks.update_nodegroup_config(
        clusterName=cluster, nodegroupName="gpu", scalingConfig={"maxSize": 9}
    )

    with pytest.raises(Drifted, match="max 9"):
        await pool.write(Bounds(min=0, max=4), seen)

    assert front.writes == []


async def test_no_such_node_group(pool: EksNodegroup, cluster: str) -> None:
    with pytest.raises(NotFound, match="describe_nodegroup"):
        await pool.read()


async def test_a_pending_update_of_someone_else(
    pool: EksNodegroup, cluster: str, behind: str, account: Account, front: Front
) -> None:
    front.refuse("UpdateNodegroupConfig", "ResourceInUseException", status=409)

    with pytest.raises(Transient, match="ResourceInUseException"):
        await pool.write(Bounds(min=0, max=4), await pool.read())

    front.recover()
    await pool.write(Bounds(min=0, max=4), await pool.read())
    assert account.scaling(cluster, "gpu")["maxSize"] == 4


async def test_the_update_is_seen_to_its_end(pool: EksNodegroup, behind: str, front: Front) -> None:
    seen = await pool.read()
    front.fail("UpdateNodegroupConfig", status=200, body=update("InProgress"))
    front.fail("DescribeUpdate", status=200, body=update("InProgress"), times=2)
    front.fail("DescribeUpdate", status=200, body=update("Successful"), times=1)
    written = await pool.write(Bounds(min=0, max=4), seen)

    assert written == replace(seen, max=4, is_changing=True)
    assert await pool.read() == replace(seen, is_changing=True)
    with pytest.raises(Transient, match="still being updated"):
        await pool.write(Bounds(min=0, max=3), written)
    assert await pool.read() == seen  # moto was never told
    assert front.calls.count("DescribeUpdate") == 3


@pytest.mark.parametrize(
    ("code", "kind"), [("AccessDenied", Denied), ("NodeCreationFailure", Transient)]
)
async def test_an_update_that_failed_says_why_and_is_tried_again(
    code: str, kind: type[Exception], pool: EksNodegroup, behind: str, front: Front
) -> None:
    seen = await pool.read()
    front.fail("UpdateNodegroupConfig", status=200, body=update("InProgress"), times=1)
    front.fail("DescribeUpdate", status=200, body=update("Failed", (code, "no\nluck")), times=1)
    await pool.write(Bounds(min=0, max=4), seen)

    with pytest.raises(kind, match=f"ended as Failed: {code}: no luck"):
        await pool.read()

    written = await pool.write(Bounds(min=0, max=4), await pool.read())
    assert (written.min, written.max) == (0, 4)


async def test_bounds_wait_while_eks_updates_nodes(
    pool: EksNodegroup, behind: str, front: Front
) -> None:
    seen = await pool.read()
    busy = {
        "status": "UPDATING",
        "scalingConfig": {"minSize": 0, "maxSize": 5, "desiredSize": 1},
        "resources": {"autoScalingGroups": [{"name": behind}]},
    }
    front.fail("DescribeNodegroup", status=200, body=json.dumps({"nodegroup": busy}))

    assert await pool.read() == replace(seen, is_changing=True)
    assert await pool.write(Bounds(min=0, max=5), seen) == seen
    with pytest.raises(Transient, match="is UPDATING: bounds have to wait"):
        await pool.write(Bounds(min=1, max=5), seen)
    assert front.writes == []


async def test_a_node_group_that_is_still_made(
    pool: EksNodegroup, cluster: str, behind: str, front: Front
) -> None:
    made = {"status": "CREATING", "scalingConfig": {"minSize": 0, "maxSize": 5, "desiredSize": 0}}
    front.fail("DescribeNodegroup", status=200, body=json.dumps({"nodegroup": made}))

    with pytest.raises(Transient, match="no Auto Scaling group yet"):
        await pool.read()


async def test_a_max_that_eks_refuses_names_the_field(
    pool: EksNodegroup, behind: str, front: Front
) -> None:
    front.refuse("UpdateNodegroupConfig", "InvalidParameterException")

    with pytest.raises(InvalidSpec) as caught:
        await pool.write(Bounds(min=0, max=4), await pool.read())

    assert caught.value.path == "spec.provider.eksNodegroup"


async def test_refused_tags_do_not_hold_the_bounds_back(
    pool: EksNodegroup, cluster: str, behind: str, account: Account, front: Front
) -> None:
    front.refuse("CreateOrUpdateTags", "AccessDenied", status=403)

    with pytest.raises(Denied, match="are as wanted, its tags are not"):
        await pool.write(Bounds(min=1, max=4, raised_until=UNTIL), await pool.read())

    assert account.scaling(cluster, "gpu")["maxSize"] == 4
