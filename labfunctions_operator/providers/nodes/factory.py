"""Chooses the provider that a NodeGroup names."""

from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.providers.nodes.asg import AutoScalingGroup
from labfunctions_operator.providers.nodes.cluster_api import MachineGroup, MachineObjects
from labfunctions_operator.providers.nodes.eks import EksNodegroup
from labfunctions_operator.providers.nodes.protocol import NodeProvider


def make_provider(group: NodeGroup, kube: MachineObjects) -> NodeProvider:
    """Return a new provider for a NodeGroup whose pool is kept elsewhere.

    Args:
        group: Names the pool.
        kube: For pools that are objects of this cluster.
    """
    provider = group.spec.provider
    if pool := provider.aws_auto_scaling_group:
        return AutoScalingGroup(name=pool.name, region=pool.region)
    if nodegroup := provider.eks_nodegroup:
        return EksNodegroup(cluster=nodegroup.cluster, name=nodegroup.name, region=nodegroup.region)
    if machines := provider.cluster_api:
        return MachineGroup(
            kube, kind=machines.kind, namespace=machines.namespace, name=machines.name
        )
    raise InvalidSpec("spec.provider", f"{provider.name} has no pool outside of the operator")
