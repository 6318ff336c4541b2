"""What is written beside a pool's bounds."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfunctions_operator.api.nodegroup import Taint
from labfunctions_operator.errors import Drifted, InvalidSpec
from labfunctions_operator.providers.nodes.hints import (
    asg_tags,
    check_bounds,
    machine_annotations,
    tag_change,
)
from labfunctions_operator.reconcile.nodes import Bounds, GroupSize, NodeTemplate

UNTIL = "2026-11-25T09:00:00Z"
RAISED = "labfunctions.io/raised-until"
TAG = "k8s.io/cluster-autoscaler/node-template"
CAPACITY = "capacity.cluster-autoscaler.kubernetes.io"
SIZES = {
    "labfunctions.io/bounds": "adopted",
    "cluster.x-k8s.io/cluster-api-autoscaler-node-group-min-size": "1",
    "cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size": "3",
}


def bounds(template: NodeTemplate | None = None, **changes: object) -> Bounds:
    return Bounds(**{"min": 1, "max": 3, "template": template, **changes})


@pytest.mark.parametrize(
    ("wanted", "tags"),
    [
        pytest.param(bounds(), {}, id="bounds alone"),
        pytest.param(bounds(raised_until=UNTIL), {RAISED: UNTIL}, id="a raise"),
        pytest.param(
            bounds(idle_seconds=90),
            {f"{TAG}/autoscaling-options/scaledownunneededtime": "90s"},
            id="idleness",
        ),
        pytest.param(
            bounds(NodeTemplate(labels={"example.com/pool": "gpu", "spot": ""})),
            {f"{TAG}/label/example.com/pool": "gpu", f"{TAG}/label/spot": ""},
            id="labels",
        ),
        pytest.param(
            bounds(NodeTemplate(taints=(Taint(key="a", value="b", effect="NoExecute"),))),
            {f"{TAG}/taint/a": "b:NoExecute"},
            id="a taint",
        ),
        pytest.param(
            bounds(NodeTemplate(taints=(Taint(key="a"),))),
            {f"{TAG}/taint/a": ":NoSchedule"},
            id="a taint without a value",
        ),
        pytest.param(
            bounds(
                NodeTemplate(
                    resources={
                        "cpu": "4",
                        "memory": "16Gi",
                        "pods": "58",
                        "ephemeral-storage": "100Gi",
                        "nvidia.com/gpu": "2",
                    }
                )
            ),
            {f"{TAG}/resources/ephemeral-storage": "100Gi", f"{TAG}/resources/nvidia.com/gpu": "2"},
            id="resources that the instance type does not tell",
        ),
    ],
)
def test_tags_of_an_auto_scaling_group(wanted: Bounds, tags: Mapping[str, str]) -> None:
    told = asg_tags(wanted)
    note = told.pop("labfunctions.io/hints", None)
    assert told == tags
    assert (note is not None) == bool(tags.keys() - {RAISED})


@pytest.mark.parametrize(
    ("wanted", "annotations"),
    [
        pytest.param(bounds(), {}, id="bounds alone"),
        pytest.param(bounds(raised_until=UNTIL), {RAISED: UNTIL}, id="a raise"),
        pytest.param(
            bounds(idle_seconds=90),
            {"cluster.x-k8s.io/autoscaling-options-scaledownunneededtime": "90s"},
            id="idleness",
        ),
        pytest.param(
            bounds(
                NodeTemplate(
                    labels={"pool": "gpu", "a": ""},
                    taints=(Taint(key="t", value="v"), Taint(key="s", effect="NoExecute")),
                )
            ),
            {
                f"{CAPACITY}/labels": "a=,pool=gpu",
                f"{CAPACITY}/taints": "s=:NoExecute,t=v:NoSchedule",
            },
            id="labels and taints",
        ),
        pytest.param(
            bounds(
                NodeTemplate(
                    resources={
                        "cpu": "4",
                        "memory": "16Gi",
                        "pods": "58",
                        "ephemeral-storage": "100Gi",
                        "hugepages-2Mi": "0",
                        "nvidia.com/gpu": "2",
                    }
                )
            ),
            {
                f"{CAPACITY}/cpu": "4",
                f"{CAPACITY}/memory": "16Gi",
                f"{CAPACITY}/maxPods": "58",
                f"{CAPACITY}/ephemeral-disk": "100Gi",
                f"{CAPACITY}/gpu-type": "nvidia.com/gpu",
                f"{CAPACITY}/gpu-count": "2",
            },
            id="resources",
        ),
    ],
)
def test_annotations_of_machines(wanted: Bounds, annotations: Mapping[str, str]) -> None:
    assert machine_annotations(wanted) == SIZES | annotations


@pytest.mark.parametrize(
    ("current", "put", "delete"),
    [
        pytest.param({}, {"a": "1", RAISED: UNTIL}, (), id="nothing is there"),
        pytest.param({"a": "1", RAISED: UNTIL, "team": "lab"}, {}, (), id="all is there"),
        pytest.param({"a": "2", RAISED: UNTIL}, {"a": "1"}, (), id="a value differs"),
        pytest.param(
            {"a": "1", RAISED: UNTIL, "labfunctions.io/old": "x"},
            {},
            ("labfunctions.io/old",),
            id="a note of ours is over",
        ),
    ],
)
def test_tags_that_have_to_change(
    current: Mapping[str, str], put: Mapping[str, str], delete: tuple[str, ...]
) -> None:
    change = tag_change({"a": "1", RAISED: UNTIL}, current)
    assert (change.put, change.delete) == (put, delete)


HINTED = bounds(NodeTemplate(labels={"a": "1", "b": "1"}), raised_until=UNTIL)
A, B = f"{TAG}/label/a", f"{TAG}/label/b"


def changed(*, before: Bounds, **tags: str | None) -> Mapping[str, str]:
    """What is written onto tags that were as told once, and were then changed by somebody."""
    names = {"a": A, "b": B, "raised": RAISED}
    current = asg_tags(before) | {names[k]: v for k, v in tags.items() if v is not None}
    for name in (names[k] for k, v in tags.items() if v is None):
        del current[name]
    return tag_change(asg_tags(HINTED), current).put


def test_a_hint_that_somebody_changed_is_theirs_until_ours_change() -> None:
    assert changed(before=HINTED) == {}
    assert changed(before=HINTED, a="theirs") == {}
    assert changed(before=HINTED, a="theirs", raised="later") == {RAISED: UNTIL}
    assert changed(before=HINTED, a="theirs", b=None) == {B: "1"}, "one that is missing"
    other = bounds(NodeTemplate(labels={"a": "1", "b": "2"}), raised_until=UNTIL)
    put = changed(before=other, a="theirs")
    assert put.keys() == {A, B, "labfunctions.io/hints"}


TAGS = st.dictionaries(
    st.sampled_from(["a", "b", "team", RAISED, "labfunctions.io/old"]), st.sampled_from("xy")
)


@given(wanted=TAGS, current=TAGS)
def test_what_was_written_is_not_written_again(
    wanted: dict[str, str], current: dict[str, str]
) -> None:
    change = tag_change(wanted, current)
    after = {k: v for k, v in (current | dict(change.put)).items() if k not in change.delete}

    again = tag_change(wanted, after)

    assert not again.put
    assert not again.delete
    assert wanted.items() <= after.items()
    foreign = {k: v for k, v in current.items() if not k.startswith("labfunctions.io/")}
    assert {**foreign, **wanted}.items() <= after.items()


SEEN = GroupSize(min=0, max=5, desired=1, tags={RAISED: UNTIL})


@pytest.mark.parametrize(
    ("now", "size", "error"),
    [
        pytest.param({"max": 6}, 1, "min 0 and max 6; they were 0 and 5", id="bounds moved"),
        pytest.param({"tags": {}}, 1, "changed the tags", id="the expiry is gone"),
        pytest.param({}, 4, "has 4 nodes, more than 3", id="more nodes than max"),
    ],
)
def test_what_is_no_longer_so_is_not_written_over(
    now: Mapping[str, object], size: int, error: str
) -> None:
    found = GroupSize(**{"min": 0, "max": 5, "desired": 1, "tags": {RAISED: UNTIL}, **now})
    with pytest.raises(Drifted, match=error):
        check_bounds("pool p", bounds(), now=found, seen=SEEN, size=size)


def test_desired_may_move() -> None:
    found = GroupSize(min=0, max=5, desired=3, tags={RAISED: UNTIL})
    check_bounds("pool p", bounds(), now=found, seen=SEEN, size=3)


@pytest.mark.parametrize("high", [5, 6])
def test_a_max_that_is_not_lowered_takes_no_node(high: int) -> None:
    """Machines scaled by hand may be more than max; that is not ours to complain about."""
    check_bounds("pool p", Bounds(min=0, max=high), now=SEEN, seen=SEEN, size=7)


@pytest.mark.parametrize(("low", "high"), [(-1, 3), (4, 3)])
def test_bounds_that_cannot_be(low: int, high: int) -> None:
    with pytest.raises(InvalidSpec, match="is not between 0 and max"):
        check_bounds("pool p", Bounds(min=low, max=high), now=SEEN, seen=SEEN, size=0)
