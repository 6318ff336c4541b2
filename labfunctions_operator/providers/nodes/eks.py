"""Managed node groups of EKS: bounds through EKS, tags on the Auto Scaling group behind them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from labfunctions_operator.errors import Denied, NotFound, Transient
from labfunctions_operator.providers.nodes.asg import (
    Group,
    delete_tags,
    describe_group,
    nodes_of,
    put_tags,
    report_refused,
    tags_of,
)
from labfunctions_operator.providers.nodes.aws import Aws, one_line
from labfunctions_operator.providers.nodes.hints import (
    asg_tags,
    check_bounds,
    own_notes,
    tag_change,
)
from labfunctions_operator.reconcile.nodes import Bounds, GroupSize

PATH = "spec.provider.eksNodegroup"
_SETTLED = ("ACTIVE", "DEGRADED")
_REFUSED = ("AccessDenied", "OperationNotPermitted")


class EksNodegroup:
    """One managed node group.

    Args:
        cluster: Name of the EKS cluster.
        name: Of the node group.
        region: Of both.
    """

    def __init__(self, *, cluster: str, name: str, region: str) -> None:
        self._of = {"clusterName": cluster, "nodegroupName": name}
        self._what = f"EKS node group {cluster}/{name}"
        self._eks = Aws("eks", region=region, path=PATH)
        self._autoscaling = Aws("autoscaling", region=region, path=PATH)
        self._update: str | None = None

    async def read(self) -> GroupSize:
        """Return the node group as it is, and whether an update of it is under way.

        It may be one that an earlier process began.
        """
        is_ours = await self._is_updating()
        nodegroup = await self._describe()
        size = _size_of(nodegroup, await self._group_behind(nodegroup))
        return replace(size, is_changing=is_ours or nodegroup["status"] == "UPDATING")

    async def write(self, bounds: Bounds, seen: GroupSize) -> GroupSize:
        """Set the bounds and the tags that differ; EKS makes the bounds true after the call."""
        if await self._is_updating():
            raise Transient(f"the {self._what} is still being updated")
        nodegroup = await self._describe()
        group = await self._group_behind(nodegroup)
        now = _size_of(nodegroup, group)
        check_bounds(self._what, bounds, now=now, seen=seen, size=nodes_of(group))
        wanted = asg_tags(bounds)
        change = tag_change(wanted, tags_of(group))
        behind = group["AutoScalingGroupName"]
        refused = await put_tags(self._autoscaling, behind, change)
        if (now.min, now.max) != (bounds.min, bounds.max):
            await self._set_bounds(bounds, nodegroup, nodes_of(group))
        refused = await delete_tags(self._autoscaling, behind, change) or refused
        report_refused(self._what, refused)
        return replace(
            now,
            min=bounds.min,
            max=bounds.max,
            desired=max(now.desired or 0, bounds.min),
            tags=own_notes(wanted),
            is_changing=self._update is not None,
        )

    async def close(self) -> None:
        """Let go of connections."""
        await self._eks.close()
        await self._autoscaling.close()

    async def _describe(self) -> Mapping[str, Any]:
        answer = await self._eks.call("describe_nodegroup", **self._of)
        nodegroup: Mapping[str, Any] = answer["nodegroup"]
        if nodegroup["status"] == "DELETING":
            raise NotFound(f"the {self._what} is being deleted")
        return nodegroup

    async def _group_behind(self, nodegroup: Mapping[str, Any]) -> Group:
        groups = (nodegroup.get("resources") or {}).get("autoScalingGroups") or ()
        for group in groups:
            try:
                return await describe_group(self._autoscaling, group["name"])
            except NotFound as error:
                raise Transient(f"{self._what}: {error}") from error
        raise Transient(f"the {self._what} has no Auto Scaling group yet")

    async def _set_bounds(self, bounds: Bounds, nodegroup: Mapping[str, Any], size: int) -> None:
        if nodegroup["status"] not in _SETTLED:
            raise Transient(f"the {self._what} is {nodegroup['status']}: bounds have to wait")
        scaling = {"minSize": bounds.min, "maxSize": bounds.max}
        if bounds.min > nodegroup["scalingConfig"]["desiredSize"]:
            # EKS refuses a min above desired, while EC2 would raise desired along with it.
            scaling["desiredSize"] = max(bounds.min, size)
        answer = await self._eks.call("update_nodegroup_config", **self._of, scalingConfig=scaling)
        self._judge(answer["update"])

    async def _is_updating(self) -> bool:
        """Whether the update that we began is under way; raise why if it ended without success."""
        if self._update is None:
            return False
        answer = await self._eks.call(
            "describe_update",
            name=self._of["clusterName"],
            nodegroupName=self._of["nodegroupName"],
            updateId=self._update,
        )
        self._judge(answer["update"])
        return self._update is not None

    def _judge(self, update: Mapping[str, Any]) -> None:
        self._update = update["id"] if update["status"] == "InProgress" else None
        if update["status"] not in ("Failed", "Cancelled"):
            return
        errors = update.get("errors") or ()
        why = "; ".join(f"{error['errorCode']}: {error['errorMessage']}" for error in errors)
        message = f"the update of {self._what} ended as {update['status']}: {one_line(why)}"
        denied = any(error["errorCode"] in _REFUSED for error in errors)
        raise Denied(message) if denied else Transient(message)


def _size_of(nodegroup: Mapping[str, Any], group: Group) -> GroupSize:
    return GroupSize(
        min=nodegroup["scalingConfig"]["minSize"],
        max=nodegroup["scalingConfig"]["maxSize"],
        # The autoscaler moves it at the Auto Scaling group; EKS learns of that later.
        desired=group["DesiredCapacity"],
        tags=own_notes(tags_of(group)),
    )
