"""What holds of a NodeGroup after any history of Runs, nodes, edits and restarts."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nodegroup_world import DEAD_SECONDS, REMOTE, REQUESTS, NodeGroupWorld, break_node, make_other
from objects import at

from labfunctions_operator.api.times import parse_duration
from labfunctions_operator.reconcile.plan import Problem
from labfunctions_operator.reconcile.pods import is_over
from labfunctions_operator.reconcile.warm import floor_at

PROVIDERS: dict[str, Any] = {
    "capacity": {"capacity": {}},
    "slots": {"capacity": {"resources": {"cpu": "1"}}},
    "static": {"static": {"deleteNodes": True}},
    "remote": REMOTE,
}
DURATIONS = st.sampled_from(["1s", "30s", "5m", "20m"])
SPECS = st.fixed_dictionaries(
    {
        "min": st.integers(0, 2),
        "max": st.integers(2, 6),
        "idle": st.fixed_dictionaries({"after": DURATIONS}),
        "cooldown": st.fixed_dictionaries({"up": DURATIONS, "down": DURATIONS}),
        "queue": st.fixed_dictionaries(
            {"runsPerNode": st.integers(1, 3)},
            optional={"scaleUpAt": st.integers(1, 5), "maxStep": st.integers(1, 3)},
        ),
    },
    optional={
        "warmAhead": st.just("5m"),
        "warm": st.just([{"schedule": "*/40 * * * *", "duration": "10m", "min": 2}]),
        "policy": st.fixed_dictionaries(
            {
                "steps": st.fixed_dictionaries(
                    {
                        "itemsGt": st.integers(0, 4),
                        "increaseBy": st.integers(1, 3),
                        "decreaseBy": st.integers(1, 3),
                    }
                )
            }
        ),
    },
)


def run_arrives(world: NodeGroupWorld) -> None:
    world.waiting[f"run-{len(world.ends)}-{len(world.writes)}-{len(world.waiting)}"] = dict(
        REQUESTS
    )


def run_is_cancelled(world: NodeGroupWorld) -> None:
    if world.waiting:
        world.waiting.popitem()


def run_ends(world: NodeGroupWorld) -> None:
    if world.running:
        world.end(next(iter(world.running)))


def autoscaler_acts(world: NodeGroupWorld) -> None:
    if world.group.spec.provider.static is None:
        world.autoscale()


def somebody_adds_a_node(world: NodeGroupWorld) -> None:
    world.add_nodes()


def node_dies(world: NodeGroupWorld) -> None:
    if world.nodes:
        world.lose(next(reversed(world.nodes)))


def node_is_not_ready(world: NodeGroupWorld) -> None:
    for node in list(world.nodes.values())[:1]:
        break_node(node, world.seconds)


def a_placeholder_fails(world: NodeGroupWorld) -> None:
    for pod in list(world.placeholders.values())[:1]:
        pod["status"] = {"phase": "Failed", "reason": "OutOfpods"}


def others_move_in(world: NodeGroupWorld) -> None:
    for number, node in enumerate(world.nodes):
        world.others[node] = [make_other(f"{node}-web", ("ReplicaSet", None)[number % 2])]
        world.budgets.add(f"{node}-web")


def others_move_out(world: NodeGroupWorld) -> None:
    world.others.clear()
    world.refusals.clear()


def operator_dies_before_its_status(world: NodeGroupWorld) -> None:
    world.die(after="children")


def operator_dies_before_the_pool_is_told(world: NodeGroupWorld) -> None:
    world.die(after="status")


def scheduler_acts(world: NodeGroupWorld) -> None:
    world.schedule()


def a_moment(world: NodeGroupWorld) -> None:
    world.seconds += 7


def a_while(world: NodeGroupWorld) -> None:
    world.seconds += 500


def the_pool_is_unknown(world: NodeGroupWorld) -> None:
    world.is_known = not world.is_known


def the_operator_is_denied(world: NodeGroupWorld) -> None:
    world.denied = None if world.denied else Problem(reason="Forbidden", message="403")


def an_image_is_built(world: NodeGroupWorld) -> None:
    world.images = [f"image@{len(world.writes)}", *world.images[:1], *world.images[2:]]


def a_tick_is_near(world: NodeGroupWorld) -> None:
    world.ticks.append(world.seconds + 400)


def a_larger_max(world: NodeGroupWorld) -> None:
    world.edit(max=7)


EVENTS: list[Callable[[NodeGroupWorld], None]] = [
    run_arrives,
    run_arrives,
    run_is_cancelled,
    run_ends,
    autoscaler_acts,
    somebody_adds_a_node,
    node_dies,
    node_is_not_ready,
    scheduler_acts,
    scheduler_acts,
    a_placeholder_fails,
    operator_dies_before_its_status,
    operator_dies_before_the_pool_is_told,
    others_move_in,
    others_move_out,
    a_moment,
    a_while,
    the_pool_is_unknown,
    the_operator_is_denied,
    a_tick_is_near,
    an_image_is_built,
    a_larger_max,
]
HISTORIES = st.lists(st.sampled_from(EVENTS), max_size=25)


def checked_step(world: NodeGroupWorld) -> None:
    """Reconcile once, and look at what came of it."""
    busy = set(world.running.values())
    before = dict(world.nodes)
    decided = world.step()
    spec, plan = world.group.spec, decided.plan
    floor = floor_at(spec.min, spec.warm, at(world.seconds)).min
    assert floor <= world.status["desired"] <= spec.max
    assert world.condition("Drifted")[0] == "False", "nobody else has changed the pool"
    gone = set(before) - set(world.nodes)
    assert not gone & busy, "a node with a Run went"
    assert not {n for n in gone if not before[n]["spec"].get("unschedulable")}, "not cordoned"
    alive = [r for r in plan.delete if r.kind == "Pod"]
    assert not (alive and [m for m in plan.apply if m["kind"] == "Pod"]), "created and deleted"
    if spec.provider.capacity and not spec.provider.capacity.resources and not world.denied:
        held = [p for p in world.placeholders.values() if not is_over(p)]
        assert len(held) <= max(0, world.status["desired"] - len(busy)), "more than wanted"
    cordoned = {m["metadata"]["name"] for m in plan.apply if m.get("spec", {}).get("unschedulable")}
    assert not cordoned & busy, "a node with a Run was cordoned"
    assert not (cordoned and world.waiting_fits()), "a node that a Run waits for was cordoned"


def world_after(spec: Any, provider: str, history: list[Any]) -> NodeGroupWorld:
    world = NodeGroupWorld(**spec, provider=PROVIDERS[provider])
    for event in history:
        event(world)
        checked_step(world)
    return world


each_provider = pytest.mark.parametrize("provider", PROVIDERS)


@each_provider
@given(spec=SPECS, history=HISTORIES)
def test_no_node_of_a_run_goes_and_the_bounds_hold(
    provider: str, spec: Any, history: list[Any]
) -> None:
    world_after(spec, provider, history)


@each_provider
@given(spec=SPECS, history=HISTORIES)
def test_a_settled_world_is_left_alone_and_a_restart_changes_nothing(
    provider: str, spec: Any, history: list[Any]
) -> None:
    world = world_after(spec, provider, history)
    world.settle()
    again = json.loads(json.dumps(world.obj))
    assert world.step().plan.events == ()
    assert world.obj == again
    assert world.settle() == []


@each_provider
@given(spec=SPECS, history=HISTORIES, runs=st.integers(1, 8), all_dead=st.booleans())
def test_a_queue_is_never_starved(
    provider: str, spec: Any, history: list[Any], runs: int, all_dead: bool
) -> None:
    """Whatever happened before, every Run that waits is served in the end."""
    world = world_after(spec, provider, history)
    world.is_known, world.denied = True, None
    if all_dead:
        world.add_nodes(runs)
        for node in world.nodes.values():
            break_node(node, world.seconds)
    for _ in range(runs):
        run_arrives(world)
    for _ in range(60):
        world.wait(1201)
        if world.group.spec.provider.static is None:
            world.autoscale()
        else:
            advice = re.search(r"add (\d+) node", world.condition("Ready")[2])
            world.add_nodes(int(advice[1]) if advice else 0)
        world.schedule()
        checked_step(world)
        for run in list(world.running):
            world.end(run)
        if not world.waiting:
            return
    raise AssertionError(f"still waiting: {world.waiting}, {world.status}")


@each_provider
@given(spec=SPECS, history=HISTORIES)
def test_an_empty_group_is_at_its_minimum_after_idle_and_cooldown(
    provider: str, spec: Any, history: list[Any]
) -> None:
    spec.pop("policy", None)
    spec.pop("warm", None)
    world = world_after(spec, provider, history)
    world.is_known, world.denied = True, None
    world.waiting.clear()
    world.ticks.clear()
    for run in list(world.running):
        world.end(run)
    world.settle()
    said = world.group.spec
    world.wait(parse_duration(said.idle.after).total_seconds())
    world.wait(parse_duration(said.cooldown.down).total_seconds())
    assert world.status["desired"] == said.min
    if world.pool:
        assert world.pool.min == said.min
    others_move_out(world)
    for _ in range(5):
        world.wait(DEAD_SECONDS)
        autoscaler_acts(world)
        world.schedule()
    alive = [p for p in world.placeholders.values() if not is_over(p)]
    is_slots = provider == "slots"
    per_node = {"capacity": 1, "slots": said.queue.runs_per_node}.get(provider, 0)
    assert len(alive) == len(world.placeholders) == said.min * per_node
    there = world.status["ready"]
    if provider == "static":
        assert there <= said.min, "nobody adds a node"
    elif not is_slots:  # the world's own scheduler puts one place-holder on a node
        assert there == len(world.nodes) == said.min


@given(spec=SPECS, history=HISTORIES)
def test_the_order_in_which_things_are_listed_does_not_matter(
    spec: Any, history: list[Any]
) -> None:
    world = world_after(spec, "capacity", history)
    plan = world.decide().plan
    for name in ("nodes", "running", "waiting", "placeholders"):
        setattr(world, name, dict(reversed(getattr(world, name).items())))
    turned = world.decide().plan
    assert turned.status == plan.status
    assert len(turned.apply) == len(plan.apply)
    assert {r.name for r in turned.delete} == {r.name for r in plan.delete}
