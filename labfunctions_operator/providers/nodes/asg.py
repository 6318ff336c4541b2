"""Auto Scaling groups of EC2: their bounds, and the tags that the cluster-autoscaler reads."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from labfunctions_operator.errors import Denied, InvalidSpec, NotFound
from labfunctions_operator.providers.nodes.aws import Aws
from labfunctions_operator.providers.nodes.hints import (
    TagChange,
    asg_tags,
    check_bounds,
    own_notes,
    tag_change,
)
from labfunctions_operator.reconcile.nodes import Bounds, GroupSize

Group = Mapping[str, Any]

PATH = "spec.provider.awsAutoScalingGroup"
_LEAVING = ("Terminat", "Detach", "Warmed")


class AutoScalingGroup:
    """One Auto Scaling group; its desired capacity belongs to the cluster-autoscaler.

    Args:
        name: Of the group.
        region: Of the group.
    """

    def __init__(self, *, name: str, region: str) -> None:
        self._name = name
        self._aws = Aws("autoscaling", region=region, path=PATH)

    async def read(self) -> GroupSize:
        """Return the group as it is."""
        return _size_of(await describe_group(self._aws, self._name))

    async def write(self, bounds: Bounds, seen: GroupSize) -> GroupSize:
        """Set the bounds and the tags that differ.

        The expiry of a raise is there before the raise and goes after it, so that a restart in
        between finds no raise without an end. Tags that are refused do not hold the bounds back.
        """
        group = await describe_group(self._aws, self._name)
        now = _size_of(group)
        what = f"Auto Scaling group {self._name}"
        check_bounds(what, bounds, now=now, seen=seen, size=nodes_of(group))
        wanted = asg_tags(bounds)
        change = tag_change(wanted, tags_of(group))
        refused = await put_tags(self._aws, self._name, change)
        if (now.min, now.max) != (bounds.min, bounds.max):
            await self._aws.call(
                "update_auto_scaling_group",
                AutoScalingGroupName=self._name,
                MinSize=bounds.min,
                MaxSize=bounds.max,
            )
        refused = await delete_tags(self._aws, self._name, change) or refused
        report_refused(what, refused)
        return replace(
            now,
            min=bounds.min,
            max=bounds.max,
            desired=max(now.desired or 0, bounds.min),
            tags=own_notes(wanted),
        )

    async def close(self) -> None:
        """Let go of connections."""
        await self._aws.close()


async def describe_group(aws: Aws, name: str) -> Group:
    """Return an Auto Scaling group as the service describes it, or raise NotFound."""
    answer = await aws.call("describe_auto_scaling_groups", AutoScalingGroupNames=[name])
    for group in answer["AutoScalingGroups"]:
        found: Group = group
        if "Status" in found:  # only a group that is being deleted has one
            raise NotFound(f"the Auto Scaling group {name} is being deleted")
        return found
    raise NotFound(f"there is no Auto Scaling group {name} in this account and region")


def tags_of(group: Group) -> dict[str, str]:
    """Return the tags of an Auto Scaling group."""
    return {tag["Key"]: tag.get("Value") or "" for tag in group.get("Tags") or ()}


def nodes_of(group: Group) -> int:
    """Return how many nodes a group has, or will have once it is as asked for."""
    staying = [
        instance
        for instance in group.get("Instances") or ()
        if not instance["LifecycleState"].startswith(_LEAVING)
    ]
    asked: int = group["DesiredCapacity"]
    return max(asked, len(staying))


async def put_tags(aws: Aws, name: str, change: TagChange) -> Exception | None:
    """Write tags, or return what stands against it; what may pass is raised."""
    tags = [
        {**_of_group(name), "Key": key, "Value": value, "PropagateAtLaunch": False}
        for key, value in change.put.items()
    ]
    return await _tag(aws, "create_or_update_tags", tags)


async def delete_tags(aws: Aws, name: str, change: TagChange) -> Exception | None:
    """Delete tags, or return what stands against it; what may pass is raised."""
    return await _tag(
        aws, "delete_tags", [{**_of_group(name), "Key": key} for key in change.delete]
    )


def report_refused(what: str, refused: Exception | None) -> None:
    """Raise for tags that were refused while the bounds are as wanted."""
    if refused is not None:
        raise Denied(
            f"the bounds of {what} are as wanted, its tags are not: {refused}"
        ) from refused


def _size_of(group: Group) -> GroupSize:
    return GroupSize(
        min=group["MinSize"],
        max=group["MaxSize"],
        desired=group["DesiredCapacity"],
        tags=own_notes(tags_of(group)),
    )


def _of_group(name: str) -> dict[str, str]:
    return {"ResourceId": name, "ResourceType": "auto-scaling-group"}


async def _tag(aws: Aws, operation: str, tags: list[dict[str, Any]]) -> Exception | None:
    try:
        if tags:
            await aws.call(operation, Tags=tags)
    except (Denied, InvalidSpec) as error:
        return error
    return None
