"""Auto Scaling groups at moto's server."""

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count

import pytest

from labfunctions_operator.api.nodegroup import Taint
from labfunctions_operator.errors import Denied, Drifted, InvalidSpec, NotFound, Transient
from labfunctions_operator.providers.nodes.asg import AutoScalingGroup
from labfunctions_operator.providers.nodes.hints import HINTS, asg_tags
from labfunctions_operator.reconcile.nodes import Bounds, GroupSize, NodeTemplate
from tests.providers.aws_servers import REGION, Account, Front

UNTIL = "2026-11-25T09:00:00Z"
RAISED = "labfunctions.io/raised-until"
HINT = "k8s.io/cluster-autoscaler/node-template"
GPU_NODE = NodeTemplate(
    labels={"pool": "gpu", "k8s.amazonaws.com/accelerator": "nvidia-tesla-t4"},
    taints=(Taint(key="gpu", value="true"),),
    resources={"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"},
)
_numbers = count(1)


@pytest.fixture
def name() -> str:
    return f"pool-{next(_numbers)}"


@pytest.fixture
async def pool(name: str, front: Front) -> AsyncIterator[AutoScalingGroup]:
    pool = AutoScalingGroup(name=name, region=REGION)
    yield pool
    await pool.close()


async def test_the_pool_is_reported(pool: AutoScalingGroup, name: str, account: Account) -> None:
    account.add_group(name, low=1, high=4, desired=2, **{RAISED: UNTIL, "team": "lab"})

    size = await pool.read()

    assert size == GroupSize(min=1, max=4, desired=2, tags={RAISED: UNTIL})


async def test_bounds_and_hints_are_written_once(
    pool: AutoScalingGroup, name: str, account: Account, front: Front
) -> None:
    account.add_group(name, low=0, high=1, team="lab")
    bounds = Bounds(min=2, max=5, raised_until=UNTIL, idle_seconds=600, template=GPU_NODE)

    written = await pool.write(bounds, await pool.read())

    assert front.writes == ["CreateOrUpdateTags", "UpdateAutoScalingGroup"]
    assert account.bounds(name) == (2, 5)
    assert account.tags(name) == {
        "team": "lab",
        f"{HINT}/label/pool": "gpu",
        f"{HINT}/label/k8s.amazonaws.com/accelerator": "nvidia-tesla-t4",
        f"{HINT}/taint/gpu": "true:NoSchedule",
        f"{HINT}/resources/nvidia.com/gpu": "1",
        f"{HINT}/autoscaling-options/scaledownunneededtime": "600s",
        RAISED: UNTIL,
        HINTS: asg_tags(bounds)[HINTS],
    }
    assert written == await pool.read()
    assert "DesiredCapacity" not in "".join(front.sent)

    front.forget()
    assert await pool.write(bounds, written) == written
    assert front.writes == []


async def test_a_raise_ends_with_its_expiry(
    pool: AutoScalingGroup, name: str, account: Account, front: Front
) -> None:
    account.add_group(name, low=2, high=5, desired=2, **{RAISED: UNTIL})

    await pool.write(Bounds(min=0, max=5), await pool.read())

    assert front.writes == ["UpdateAutoScalingGroup", "DeleteTags"]
    assert account.bounds(name) == (0, 5)
    assert account.tags(name) == {}
    assert account.group(name)["DesiredCapacity"] == 2


async def _change_bounds(account: Account, name: str) -> None:
    account.autoscaling.update_auto_scaling_group(AutoScalingGroupName=name, MaxSize=7)


async def _end_the_raise(account: Account, name: str) -> None:
    account.untag(name, RAISED)


@pytest.mark.parametrize("change", [_change_bounds, _end_the_raise])
async def test_what_someone_else_changed_is_left_alone(
    change: Callable[[Account, str], Awaitable[None]],
    pool: AutoScalingGroup,
    name: str,
    account: Account,
    front: Front,
) -> None:
    account.add_group(name, low=0, high=5, **{RAISED: UNTIL})
    seen = await pool.read()
    await change(account, name)

    with pytest.raises(Drifted, match=name):
        await pool.write(Bounds(min=1, max=5), seen)

    assert front.writes == []


async def test_a_hint_that_someone_else_changed_is_theirs(
    pool: AutoScalingGroup, name: str, account: Account, front: Front
) -> None:
    account.add_group(name)
    idle = f"{HINT}/autoscaling-options/scaledownunneededtime"
    await pool.write(Bounds(min=0, max=5, idle_seconds=600), await pool.read())
    account.tag(name, idle, "90s")
    front.forget()

    await pool.write(Bounds(min=1, max=5, idle_seconds=600), await pool.read())

    assert front.writes == ["UpdateAutoScalingGroup"]
    assert account.tags(name)[idle] == "90s"

    await pool.write(Bounds(min=1, max=5, idle_seconds=300), await pool.read())
    assert account.tags(name)[idle] == "300s"


async def test_the_autoscaler_moves_desired_freely(
    pool: AutoScalingGroup, name: str, account: Account
) -> None:
    account.add_group(name, low=0, high=5)
    seen = await pool.read()
    account.autoscaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=3)

    written = await pool.write(Bounds(min=0, max=4), seen)

    assert written.desired == 3
    assert account.bounds(name) == (0, 4)


async def test_max_never_goes_below_the_nodes_there_are(
    pool: AutoScalingGroup, name: str, account: Account, front: Front
) -> None:
    account.add_group(name, low=0, high=5, desired=3)

    with pytest.raises(Drifted, match="has 3 nodes, more than 2"):
        await pool.write(Bounds(min=0, max=2), await pool.read())

    assert front.writes == []


async def test_bounds_that_cannot_be(
    pool: AutoScalingGroup, name: str, account: Account, front: Front
) -> None:
    account.add_group(name)

    with pytest.raises(InvalidSpec, match="6 is not between 0 and max, 5"):
        await pool.write(Bounds(min=6, max=5), await pool.read())

    assert front.writes == []


async def test_no_such_pool(pool: AutoScalingGroup, name: str) -> None:
    with pytest.raises(NotFound, match=name):
        await pool.read()


@pytest.mark.parametrize("operation", ["CreateOrUpdateTags", "DeleteTags"])
async def test_refused_tags_do_not_hold_the_bounds_back(
    operation: str, pool: AutoScalingGroup, name: str, account: Account, front: Front
) -> None:
    old = "2026-11-24T09:00:00Z"
    account.add_group(name, low=0, high=5, **{RAISED: old})
    front.refuse(operation, "AccessDenied", status=403)
    until = UNTIL if operation == "CreateOrUpdateTags" else None
    bounds = Bounds(min=2, max=5, raised_until=until)
    messages = set()

    for _ in range(2):
        with pytest.raises(Denied, match="are as wanted, its tags are not") as caught:
            await pool.write(bounds, await pool.read())
        messages.add(str(caught.value))

    assert len(messages) == 1
    assert account.bounds(name) == (2, 5)
    assert front.writes.count("UpdateAutoScalingGroup") == 1

    front.recover()
    front.forget()
    await pool.write(bounds, await pool.read())
    assert front.writes == [operation]


async def test_a_raise_that_was_cut_short_has_its_expiry(
    pool: AutoScalingGroup, name: str, account: Account, front: Front
) -> None:
    account.add_group(name)
    front.refuse("UpdateAutoScalingGroup", "ScalingActivityInProgress")

    with pytest.raises(Transient):
        await pool.write(Bounds(min=2, max=5, raised_until=UNTIL), await pool.read())

    assert account.bounds(name) == (0, 5)
    assert account.tags(name) == {RAISED: UNTIL}


async def test_a_label_without_a_value_stays_as_it_is(
    pool: AutoScalingGroup, name: str, account: Account, front: Front
) -> None:
    account.add_group(name)
    bounds = Bounds(min=0, max=5, template=NodeTemplate(labels={"spot": ""}))

    await pool.write(bounds, await pool.read())
    front.forget()
    await pool.write(bounds, await pool.read())

    assert account.tags(name)[f"{HINT}/label/spot"] == ""
    assert front.writes == []
