"""Which attempt of a Run is the one that lives."""

from run_world import JOB, RunWorld, runs, started
from world import pod_fails, pod_succeeds

from labfunctions_operator.reconcile.attempt import find_current, snapshot_of_live


def live(world: RunWorld) -> list[int]:
    """The attempts whose couriers may still upload."""
    current = find_current(world.run, list(world.jobs.values()), [])
    return [n for n in range(4) if snapshot_of_live(world.run, current, n)]


def test_before_its_job_no_attempt_lives() -> None:
    assert live(RunWorld()) == []


def test_an_attempt_lives_from_its_job_to_its_verdict_and_then_the_next_one() -> None:
    world = started(workflowRef={"name": "report"}, retries={"limit": 1})
    assert live(world) == [1], "its status knows nothing of it yet"
    pod_fails(world, JOB)
    assert live(world) == [1], "its courier may still be at work"
    world.settle()
    assert live(world) == []
    world.seconds += 60
    world.settle()
    assert live(world) == [2]
    pod_succeeds(world, "first-2")
    world.settle()
    assert live(world) == []


def test_a_cancelled_attempt_lives_until_its_pod_has_ended() -> None:
    world = runs()
    world.edit(cancel=True)
    world.settle()
    assert world.jobs == {}
    assert live(world) == [1]
