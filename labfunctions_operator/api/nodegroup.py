"""NodeGroup: a pool of nodes, with a policy over queue and idleness."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from labfunctions_operator.api.times import DURATION_PATTERN, parse_duration
from labfunctions_operator.api.types import Condition, Metadata, Model, ObjectName
from labfunctions_operator.api.workflow import GpuRequest

NAME_LIMIT = 40
LARGEST = 1000
CAPACITY = "capacity"
CAPACITY_BUFFER = "capacityBuffer"
PROVIDERS = (CAPACITY, "awsAutoScalingGroup", "eksNodegroup", "clusterApi", "static")

LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"

LabelKey = Annotated[str, Field(pattern=LABEL_KEY, max_length=317)]
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE, max_length=63)]
Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=16)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|[kMGTP]i?)?$", max_length=32)]
AwsName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
Region = Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]+$", max_length=32)]


def _a_duration(text: str | None) -> str | None:
    if text is not None:
        parse_duration(text)
    return text


class Capacity(Model):
    """Place-holder pods, which any autoscaler answers with nodes; Runs push them aside."""

    resources: Annotated[dict[LabelKey, Quantity], Field(max_length=16)] = {}
    """Requests of one Run's place-holder (default: one place-holder for each node)."""
    capacity_buffer: bool = False
    """Say it by a CapacityBuffer (autoscaling.x-k8s.io) in place of pods, if that is installed."""


class AwsAutoScalingGroup(Model):
    """An EC2 Auto Scaling group that the cluster-autoscaler scales."""

    name: AwsName
    region: Region


class EksNodegroup(Model):
    """An EKS managed node group that the cluster-autoscaler scales."""

    cluster: Annotated[str, Field(pattern=r"^[0-9A-Za-z][A-Za-z0-9_-]*$", max_length=100)]
    name: Annotated[str, Field(pattern=r"^[0-9A-Za-z][A-Za-z0-9_-]*$", max_length=63)]
    region: Region


class ClusterApi(Model):
    """A Cluster API object whose annotations bound the cluster-autoscaler."""

    kind: Literal["MachineDeployment", "MachineSet", "MachinePool"] = "MachineDeployment"
    name: ObjectName
    namespace: ObjectName = "default"


class Static(Model):
    """Nodes that no autoscaler looks after."""

    delete_nodes: bool = False
    """Drain and delete Node objects that have been idle for long enough (default: only advise)."""


class Provider(Model):
    """Where the nodes come from: exactly one of these."""

    capacity: Capacity | None = None
    aws_auto_scaling_group: AwsAutoScalingGroup | None = None
    eks_nodegroup: EksNodegroup | None = None
    cluster_api: ClusterApi | None = None
    static: Static | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Provider":
        if sum(value is not None for _, value in self) != 1:
            raise ValueError(f"give exactly one of {', '.join(PROVIDERS)}")
        return self

    @property
    def name(self) -> str:
        """The field that is set, or its other way."""
        if self.capacity and self.capacity.capacity_buffer:
            return CAPACITY_BUFFER
        fields = type(self).model_fields
        return next(fields[f].alias or f for f, value in self if value is not None)

    @property
    def pool(self) -> str | None:
        """Which pool it is, by all that is said of it; None if it is kept within the cluster."""
        if self.capacity or self.static:
            return None
        said = next(value for _, value in self if value is not None)
        return " ".join([self.name, *(str(word) for _, word in said)])


class Taint(Model):
    """A taint of the group's nodes, which its Runs tolerate."""

    key: LabelKey
    value: LabelValue = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"


class Queue(Model):
    """How waiting Runs turn into nodes."""

    runs_per_node: Annotated[int, Field(ge=1, le=1000)] = 1
    """Runs that a node takes at a time (default 1)."""
    scale_up_at: Annotated[int, Field(ge=1, le=10000)] = 1
    """Waiting Runs from which nodes are added while others are busy (default 1)."""
    max_step: Annotated[int, Field(ge=1, le=LARGEST)] | None = None
    """The most nodes that one decision adds (default: no limit)."""


class Idle(Model):
    """When a node without Runs may go."""

    after: Duration = "10m"
    """Since its last Run ended, or since it became Ready (default 10m)."""

    _check = field_validator("after")(_a_duration)


class Cooldown(Model):
    """How long a decision stands before the next one."""

    up: Duration = "30s"
    """After a decision that adds nodes, before another one (default 30s)."""
    down: Duration = "1m"
    """After any decision, before one that gives nodes back (default 1m)."""

    _check = field_validator("up", "down")(_a_duration)


class Warm(Model):
    """A time in which some nodes are kept, whether Runs wait or not."""

    schedule: Annotated[str, Field(min_length=1, max_length=256)]
    """When it begins: a schedule as a Workflow has it."""
    time_zone: Annotated[str, Field(max_length=64)] = ""
    """The zone of schedule, by its name in the tz database (default UTC)."""
    duration: Duration
    min: Annotated[int, Field(ge=1, le=LARGEST)]
    """The fewest nodes in that time."""

    _check = field_validator("duration")(_a_duration)


class Steps(Model):
    """LabFunctions' own policy: fixed steps at fixed lengths of the queue."""

    items_gt: Annotated[int, Field(ge=0, le=100000)] = 0
    """Nodes are added while more Runs wait than this (default 0)."""
    increase_by: Annotated[int, Field(ge=1, le=LARGEST)] = 1
    items_lt: Annotated[int, Field(ge=0, le=100000)] = 1
    """Idle nodes are given back while fewer Runs wait than this (default 1)."""
    decrease_by: Annotated[int, Field(ge=1, le=LARGEST)] = 1
    idle_time_gt: Duration | None = None
    """How long a node must have been idle (default: idle.after)."""

    _check = field_validator("idle_time_gt")(_a_duration)


class Policy(Model):
    """An alternative to a size that follows demand."""

    steps: Steps | None = None


class NodeGroupSpec(Model):
    """What an administrator wants of a NodeGroup."""

    provider: Provider = Provider(capacity=Capacity())
    """Where the nodes come from (default: place-holder pods that any autoscaler answers)."""
    labels: Annotated[dict[LabelKey, LabelValue], Field(min_length=1, max_length=32)]
    """What marks the group's nodes; Runs of the group select them by it."""
    taints: Annotated[list[Taint], Field(max_length=16)] = []
    """What keeps other pods away; Runs of the group tolerate it."""
    gpu: GpuRequest | None = None
    """What a Run of the group gets if it asks for no GPU itself."""
    min: Count = 0
    """The fewest nodes (default 0)."""
    max: Count
    """The most nodes."""
    queue: Queue = Queue()
    idle: Idle = Idle()
    cooldown: Cooldown = Cooldown()
    warm: Annotated[list[Warm], Field(max_length=16)] = []
    """When nodes are kept ready ahead of Runs."""
    warm_ahead: Duration | None = None
    """Ask for nodes this long before a Workflow's next scheduled Run (default: do not)."""
    policy: Policy = Policy()
    observe_only: bool = False
    """Decide and say so, but change nothing (a raise at a provider still ends at its time)."""

    _check = field_validator("warm_ahead")(_a_duration)

    @property
    def devices(self) -> dict[str, str]:
        """What devices each node is said to have, at least: a resource and its quantity."""
        return self.gpu.amounts if self.gpu else {}

    @model_validator(mode="after")
    def _bounded(self) -> "NodeGroupSpec":
        if self.min > self.max:
            raise ValueError("min is greater than max")
        if any(warm.min > self.max for warm in self.warm):
            raise ValueError("a warm min is greater than max")
        return self


class Decision(Model):
    """The last change of desired."""

    at: str
    from_size: Annotated[int, Field(alias="from")]
    to: int
    why: str
    """One line with the numbers behind it."""


class Raise(Model):
    """What was asked of the provider; recorded before it is done, so that a restart undoes it."""

    min: int
    max: int
    until: str | None = None
    """When min falls back to spec.min."""
    pool: str | None = None
    """Whose bounds they are."""
    generation: int | None = None
    """Of the spec that they follow from."""


class Failures(Model):
    """Place-holders that failed in a row."""

    count: int
    at: str
    """When the last one was seen."""
    why: str
    """What its pod says of it."""


class NodeGroupStatus(Model):
    """What the operator knows of a NodeGroup."""

    observed_generation: int | None = None
    provider: str | None = None
    min: int | None = None
    """The fewest nodes now, with raises."""
    max: int | None = None
    desired: int | None = None
    """How many nodes the policy wants."""
    ready: int | None = None
    busy: int | None = None
    idle: int | None = None
    pending_runs: int | None = None
    """Runs of the group that wait for a node."""
    last_decision: Decision | None = None
    recent_decisions: list[str] = []
    """When the size fell after it had risen, or place-holders were made anew, in an hour."""
    placeholder_failures: Failures | None = None
    """None once place-holders run."""
    wanted: Raise | None = None
    """What the provider was last told."""
    written: Raise | None = None
    """What the provider last confirmed."""
    node_resources: dict[str, str] = {}
    """What a node of the group offers, as last seen."""
    conditions: list[Condition] = []

    def wire(self) -> dict[str, Any]:
        """Return the status without what was never set."""
        return {k: v for k, v in super().wire().items() if v not in ([], {})}


class NodeGroup(Model):
    """A pool of nodes, with a policy over queue and idleness."""

    metadata: Metadata
    spec: NodeGroupSpec
    status: NodeGroupStatus = NodeGroupStatus()

    @property
    def is_edited(self) -> bool:
        """Whether its spec is another one than its status tells of."""
        return self.metadata.generation != self.status.observed_generation
