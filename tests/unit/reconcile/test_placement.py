"""How a Run gets onto the nodes of its group."""

from typing import Any

import pytest
from objects import Object, make_node_group, make_workflow
from run_world import JOB, RunWorld, ready_project
from world import job_gone, pod_runs

LABEL = "labfunctions.io/node-group"
GROUP = make_node_group(
    labels={"pool": "gpu"},
    taints=[{"key": "nvidia.com/gpu", "value": "present"}],
    gpu={"count": 2},
)


def job_of(project: Any = None, workflow: Any = None, **run: Any) -> Object:
    world = RunWorld(workflowRef={"name": "report"}, **run)
    world.node_group = GROUP
    world.project = ready_project(**(project or {}))
    world.workflow = make_workflow(**(workflow or {}))
    assert world.settle() == [f"create Job {JOB}"]
    return world.jobs[JOB]


def pod_of(job: Object) -> Object:
    spec: Object = job["spec"]["template"]["spec"]
    return spec


def test_a_run_takes_over_selector_tolerations_and_gpus_of_its_group() -> None:
    job = job_of(nodeGroup="gpu")
    assert job["metadata"]["labels"][LABEL] == "gpu"
    assert job["spec"]["template"]["metadata"]["labels"][LABEL] == "gpu"
    pod = pod_of(job)
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"] == [
        {
            "key": "nvidia.com/gpu",
            "operator": "Equal",
            "value": "present",
            "effect": "NoSchedule",
        }
    ]
    assert pod["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": "2"}}


def test_what_a_run_says_itself_stays_but_where_it_would_leave_the_group() -> None:
    own = {"key": "spot", "operator": "Exists"}
    job = job_of(
        nodeGroup="gpu",
        nodeSelector={"pool": "cpu", "zone": "a"},
        tolerations=[own],
        gpu={"count": 1},
    )
    pod = pod_of(job)
    assert pod["nodeSelector"] == {"pool": "gpu", "zone": "a"}
    assert pod["tolerations"][0] == own
    assert pod["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": "1"}}


@pytest.mark.parametrize(
    "resources",
    [
        {"limits": {"nvidia.com/gpu": "4"}, "requests": {"nvidia.com/gpu": "4"}},
        {"limits": {"nvidia.com/gpu": "1"}},
        {"limits": {"nvidia.com/mig-1g.5gb": "1"}},
        {"requests": {"nvidia.com/gpu": "4"}},
        {"limits": {"nvidia.com/gpu": "0"}},
    ],
    ids=["both", "limit", "a slice", "request", "none at all"],
)
@pytest.mark.parametrize("who", ["run", "workflow", "project"])
def test_gpus_among_the_resources_of_a_run_are_its_own(who: str, resources: Any) -> None:
    job = {
        "run": lambda: job_of(nodeGroup="gpu", resources=resources),
        "workflow": lambda: job_of(workflow={"resources": resources}, nodeGroup="gpu"),
        "project": lambda: job_of({"defaults": {"resources": resources}}, nodeGroup="gpu"),
    }[who]()
    assert pod_of(job)["containers"][0]["resources"] == resources


def test_the_gpus_of_a_group_go_to_a_run_that_names_other_resources() -> None:
    own = {"limits": {"memory": "8Gi", "example.com/fpga": "1"}, "requests": None}
    job = job_of(nodeGroup="gpu", resources=own)
    assert pod_of(job)["containers"][0]["resources"] == {
        "limits": {"memory": "8Gi", "example.com/fpga": "1", "nvidia.com/gpu": "2"}
    }


def test_a_workflow_or_the_projects_default_names_the_group() -> None:
    assert job_of(workflow={"nodeGroup": "gpu"})["metadata"]["labels"][LABEL] == "gpu"
    assert job_of({"defaults": {"nodeGroup": "gpu"}})["metadata"]["labels"][LABEL] == "gpu"
    assert job_of({"defaults": {"nodeGroup": "cpu"}}, nodeGroup="gpu")
    assert LABEL not in job_of()["metadata"]["labels"]


def test_a_retry_runs_on_the_same_group_though_that_has_changed() -> None:
    world = RunWorld(workflowRef={"name": "report"}, nodeGroup="gpu")
    world.node_group = GROUP
    world.settle()
    pod_runs(world, JOB)
    world.settle()
    job_gone(world, JOB)
    world.node_group = None
    world.settle()
    world.seconds = 600
    world.settle()
    assert pod_of(world.jobs["first-2"])["nodeSelector"] == {"pool": "gpu"}
