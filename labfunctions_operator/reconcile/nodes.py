"""What passes between decisions about a group of nodes and the provider that holds them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from labfunctions_operator.api.nodegroup import Taint
from labfunctions_operator.reconcile.plan import Problem


@dataclass(frozen=True, kw_only=True)
class NodeTemplate:
    """What a node of the group will be like, for autoscalers that scale from zero.

    Attributes:
        labels: On each node.
        taints: On each node.
        resources: Kubernetes resource name to quantity, as last seen on a node of the group, GPUs
            included; empty while none was seen.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    resources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GroupSize:
    """What a provider reports.

    Attributes:
        min: The fewest nodes the provider keeps.
        max: The most nodes an autoscaler may ask for there.
        desired: How many nodes are asked for now; None where the provider does not know.
        tags: The operator's own notes kept at the provider, such as the expiry of a raise.
        is_changing: Whether an update is under way: until its end the bounds may be the old ones.
    """

    min: int
    max: int
    desired: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    is_changing: bool = False


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What the operator wants at a provider; desired belongs to the autoscaler.

    Attributes:
        min: The fewest nodes, perhaps raised for a time.
        max: The most nodes.
        raised_until: When `min` falls back to the group's own, RFC 3339; kept at the provider as a
            tag or an annotation. None while it is not raised.
        idle_seconds: How long an autoscaler is to leave an idle node, where that can be said.
        template: For scale-from-zero hints.
    """

    min: int
    max: int
    raised_until: str | None = None
    idle_seconds: int | None = None
    template: NodeTemplate | None = None


@dataclass(frozen=True, kw_only=True)
class PoolView:
    """What is known of a pool at a provider.

    Attributes:
        size: As last read or written; None while that is not known for certain.
        problem: Why it cannot be read or written.
        is_writing: Whether a write is under way.
    """

    size: GroupSize | None = None
    problem: Problem | None = None
    is_writing: bool = False

    @property
    def settled(self) -> GroupSize | None:
        """The size that can be decided on, if there is one."""
        is_certain = self.size is not None and not self.is_writing and not self.size.is_changing
        return self.size if is_certain else None
