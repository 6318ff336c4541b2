"""How many nodes an Auto Scaling group is taken to have."""

import pytest

from labfunctions_operator.providers.nodes.asg import nodes_of


@pytest.mark.parametrize(
    ("desired", "states", "nodes"),
    [
        pytest.param(0, [], 0, id="none"),
        pytest.param(3, ["InService"], 3, id="more are asked for"),
        pytest.param(1, ["InService", "InService", "Pending:Wait"], 3, id="more are there"),
        pytest.param(1, ["InService", "Terminating:Wait", "Terminated"], 1, id="some are leaving"),
        pytest.param(0, ["Detaching", "Warmed:Stopped"], 0, id="some are no longer or not yet in"),
        pytest.param(1, ["InService", "Standby"], 2, id="one is set aside"),
    ],
)
def test_nodes_that_a_lower_max_could_cost(desired: int, states: list[str], nodes: int) -> None:
    group = {
        "DesiredCapacity": desired,
        "Instances": [{"LifecycleState": state} for state in states],
    }
    assert nodes_of(group) == nodes
