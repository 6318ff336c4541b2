"""A Run whose Job cannot be made: quota, admission, or another Job of its name."""

import pytest
from objects import stamp
from run_world import RunWorld, runs, started
from world import pod_fails

from labfunctions_operator.reconcile.pods import Waiting, job_refused

QUOTA = "exceeded quota: jobs, requested: count/jobs.batch=1, used: count/jobs.batch=1, limited: 1"
REFUSED = 'create /apis/batch/v1/namespaces/team/jobs: jobs.batch "first-1" is forbidden: %s (403)'
HINDRANCE = Waiting(reason="QuotaExceeded", message=QUOTA)


@pytest.mark.parametrize(
    ("words", "reason", "message"),
    [
        (REFUSED % QUOTA, "QuotaExceeded", QUOTA),
        (REFUSED % "no\n rights", "Forbidden", REFUSED % "no rights"),
    ],
)
def test_a_refusal_is_told_in_the_words_of_who_refuses(
    words: str, reason: str, message: str
) -> None:
    assert job_refused(words) == Waiting(reason=reason, message=message)


def hindered(**spec: object) -> RunWorld:
    world = RunWorld(workflowRef={"name": "report"}, **spec)
    world.hindrance = HINDRANCE
    assert world.settle() == ["status"]
    return world


def test_a_run_whose_job_cannot_be_made_says_why_and_tries_again_soon() -> None:
    world = hindered()
    assert world.condition == ("Unknown", "QuotaExceeded", QUOTA)
    assert world.status["phase"] == "Pending"
    assert world.decide().requeue_after == 30
    world.hindrance = None
    assert world.settle() == ["create Job first-1"]


def test_a_run_whose_job_cannot_be_made_waits_no_longer_than_it_may() -> None:
    world = hindered(pendingTimeoutSeconds=60)
    world.seconds = 40
    assert world.settle() == []
    assert world.decide().requeue_after == 10
    world.seconds = 50
    assert world.settle() == ["status"]
    assert world.condition == ("False", "PendingTimedOut", f"not started after 60 s: {QUOTA}")


def test_a_retry_whose_job_cannot_be_made_waits_from_when_it_was_due() -> None:
    world = runs(workflowRef={"name": "report"}, retries={"limit": 1}, pendingTimeoutSeconds=60)
    world.seconds = 500
    pod_fails(world, "first-1")
    world.settle()
    before = world.status["attempts"]
    world.seconds = 510
    world.hindrance = HINDRANCE
    world.settle()
    assert world.condition[:2] == ("Unknown", "QuotaExceeded")
    world.seconds = 569
    assert world.decide().requeue_after == 1
    with_room = world.copy()
    assert isinstance(with_room, RunWorld)
    with_room.hindrance = None
    assert with_room.settle()[0] == "create Job first-2"
    world.seconds = 570
    world.settle()
    assert world.condition[:2] == ("False", "PendingTimedOut")
    assert world.status["attempts"] == before
    assert world.status["completionTime"] == stamp(570)


def test_a_pod_that_is_refused_is_told_of_in_one_write() -> None:
    """While the API server is asked why there is none, nothing is said that may be wrong."""
    world = started(pendingTimeoutSeconds=600, workflowRef={"name": "report"})
    world.seconds = 5
    world.asking = True
    assert world.settle() == []
    assert world.decide().requeue_after == 5
    world.refusal, world.asking = f'Error creating: pods "a" is forbidden: {QUOTA}', False
    assert world.settle() == ["status"]
    assert world.condition == ("Unknown", "QuotaExceeded", QUOTA)
    assert world.decide().requeue_after == 30
    world.refusal, world.asking = None, True
    assert world.settle() == [], "after a restart it is asked anew"
    world.seconds = 600
    world.settle()
    assert world.condition[:2] == ("False", "PendingTimedOut")
