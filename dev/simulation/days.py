"""Days of Runs against a policy, with the operator's own code and no cluster.

Nodes start slowly and take one Run at a time; what differs from policy to policy is only when they
come and go. Time goes by in steps; those at which nothing can happen are passed over.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from labfunctions_operator.api.nodegroup import Decision, NodeGroup, NodeGroupSpec
from labfunctions_operator.api.parse import parse
from labfunctions_operator.api.times import parse_duration, rfc3339
from labfunctions_operator.reconcile.scaling import Load, Node, size_for

MIDNIGHT = datetime(2026, 3, 4, tzinfo=UTC)  # a Wednesday
DAY = 24 * 3600
STEP = 10
BOOT = 240
MAX_NODES = 12
# (hour, minute) -> Runs that schedules make then; every hour has two of its own.
TICKS = {(2, 0): 8, (9, 0): 6, (13, 0): 3}
HOURLY = 2
AD_HOC_AN_HOUR = 7.0
WORK_HOURS = range(8, 19)
MEDIAN_SECONDS = 420

POLICIES: dict[str, dict[str, Any]] = {
    "autoscaler alone": {},
    "steps": {
        "idle": {"after": "10m"},
        "policy": {"steps": {"itemsGt": 2, "increaseBy": 2, "itemsLt": 1, "decreaseBy": 1}},
    },
    "demand": {"idle": {"after": "9m"}},
    "demand, warm": {
        "idle": {"after": "9m"},
        "warmAhead": "5m",
        "warm": [{"schedule": "45 8 * * 1-5", "duration": "9h30m", "min": 2}],
    },
}
# How long the autoscaler itself leaves a node that nothing is on.
UNNEEDED = {"autoscaler alone": 600, "steps": 60, "demand": 60, "demand, warm": 60}


@dataclass
class Machine:
    """A node: starting, then free or with a Run until some second."""

    ready_at: int
    idle_since: int
    bought_at: int
    busy_until: int | None = None
    surplus_since: int | None = None


@dataclass
class Day:
    """What came of a day: waits in seconds, node-hours, and nodes and queue by time."""

    waits: list[float] = field(default_factory=list)
    node_hours: float = 0.0
    nodes: list[int] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)


def arrivals(seed: int) -> list[tuple[int, int]]:
    """Return (second, duration) of each Run of a day: schedules, and people by day."""
    chance = random.Random(seed)
    times = [at for at, count in ticks() for _ in range(count)]
    second = 0.0
    while second < DAY:
        hour = int(second // 3600) % 24
        rate = AD_HOC_AN_HOUR if hour in WORK_HOURS else AD_HOC_AN_HOUR / 12
        second += chance.expovariate(rate / 3600)
        times.append(int(second))
    return sorted(
        (at, int(chance.lognormvariate(math.log(MEDIAN_SECONDS), 0.8))) for at in times if at < DAY
    )


@cache
def ticks() -> list[tuple[int, int]]:
    """Return (second, Runs) of each tick of the schedules."""
    hourly = [(hour * 3600, HOURLY) for hour in range(24)]
    return sorted(hourly + [(h * 3600 + m * 60, count) for (h, m), count in TICKS.items()])


def simulate(
    runs: Sequence[tuple[int, int]], policy: str, *, until: int = DAY, max_nodes: int = MAX_NODES
) -> Day:
    """Play one day under one policy."""
    spec = _spec(policy, max_nodes)
    target = _autoscaler if policy == "autoscaler alone" else _operator(spec)
    to_come, queue = list(runs), list[tuple[int, int]]()
    machines: list[Machine] = []
    day, unneeded = Day(), UNNEEDED[policy]
    quiet_until, said = 0.0, None
    for now in range(0, until, STEP):
        if now >= quiet_until:
            before = _state(machines)
            while to_come and to_come[0][0] <= now:
                queue.append(to_come.pop(0))
            _work(machines, queue, now, day)
            size, look_again = target(machines, len(queue), now)
            wanted = min(size, max_nodes)
            machines += [
                Machine(ready_at=now + BOOT, idle_since=now + BOOT, bought_at=now)
                for _ in range(wanted - len(machines))
            ]
            _let_go(machines, wanted, unneeded, now, day)
            is_settled = _state(machines) == before and wanted == said
            said = wanted
            times = [look_again, *(at for at, _ in to_come[:1]), *_changes(machines, unneeded)]
            quiet_until = min(t for t in times if t > now) if is_settled else now
        day.nodes.append(len(machines))
        day.queue.append(len(queue))
    day.node_hours += sum(until - m.bought_at for m in machines) / 3600
    day.waits += [until - at for at, _ in queue]
    return day


def _work(machines: list[Machine], queue: list[tuple[int, int]], now: int, day: Day) -> None:
    """End what is done, and begin what waits."""
    for machine in machines:
        if machine.busy_until is not None and machine.busy_until <= now:
            machine.idle_since, machine.busy_until = now, None
        if queue and machine.busy_until is None and machine.ready_at <= now:
            at, seconds = queue.pop(0)
            day.waits.append(now - at)
            machine.busy_until = now + max(STEP, seconds)


def _let_go(machines: list[Machine], wanted: int, unneeded: int, now: int, day: Day) -> None:
    """Remove what has been free and not wanted for long enough, as an autoscaler does."""
    free = [m for m in machines if m.busy_until is None and m.ready_at <= now]
    surplus = sorted(free, key=lambda m: m.idle_since)[: max(0, len(machines) - wanted)]
    for machine in machines:
        if machine not in surplus:
            machine.surplus_since = None
    for machine in surplus:
        since = now if machine.surplus_since is None else machine.surplus_since
        machine.surplus_since = since
        if now - since >= unneeded:
            machines.remove(machine)
            day.node_hours += (now - machine.bought_at) / 3600


def _state(machines: Sequence[Machine]) -> list[tuple[int, int | None, int | None]]:
    return [(m.bought_at, m.busy_until, m.surplus_since) for m in machines]


def _changes(machines: Sequence[Machine], unneeded: int) -> Iterator[float]:
    """Yield when machines change by themselves."""
    for machine in machines:
        yield machine.ready_at
        if machine.busy_until is not None:
            yield machine.busy_until
        if machine.surplus_since is not None:
            yield machine.surplus_since + unneeded


# Returns how many nodes are wanted, and until which second that is so if nothing else changes.
Target = Callable[[list[Machine], int, int], tuple[int, float]]


def _autoscaler(machines: list[Machine], waiting: int, now: int) -> tuple[int, float]:
    """Want a node for each pod."""
    return sum(m.busy_until is not None for m in machines) + waiting, math.inf


def _operator(spec: NodeGroupSpec) -> Target:
    """Want what the operator's policy says, which remembers its last decision only."""
    desired: int | None = None
    last: Decision | None = None
    ahead = int(parse_duration(spec.warm_ahead).total_seconds()) if spec.warm_ahead else 0
    sights = [at - ahead for at, _ in ticks()]

    def target(machines: list[Machine], waiting: int, now: int) -> tuple[int, float]:
        nonlocal desired, last
        moment = MIDNIGHT + timedelta(seconds=now)
        due = sum(count for at, count in ticks() if now < at <= now + ahead)
        ready = [m for m in machines if m.ready_at <= now]
        load = Load(
            nodes=[
                Node(
                    name=f"{number:03}",
                    runs=int(m.busy_until is not None),
                    idle_since=MIDNIGHT + timedelta(seconds=m.idle_since),
                    is_awaited=waiting > 0,
                )
                for number, m in enumerate(ready)
            ],
            pending=waiting,
            ahead=due,
        )
        size = size_for(spec, load, desired=desired, last=last, now=moment)
        before = load.size if desired is None else desired
        if size.desired != before:
            last = Decision(at=rfc3339(moment), from_size=before, to=size.desired, why=size.why)
        desired = size.desired
        look_again = (size.look_again - MIDNIGHT).total_seconds() if size.look_again else math.inf
        return desired, min((t for t in (*sights, look_again) if t > now), default=math.inf)

    return target


def _spec(policy: str, max_nodes: int) -> NodeGroupSpec:
    spec = {"labels": {"pool": "gpu"}, "max": max_nodes, **POLICIES[policy]}
    metadata = {"name": "simulated"}
    return parse(NodeGroup, {"metadata": metadata, "spec": spec}).spec
