"""Who is told what about the end of a Run, and what its status says of that."""

from typing import Any

import pytest
from objects import NOW, at, make_project, make_run, make_workflow, stamp
from run_world import JOB, RunWorld, ready_project, runs
from world import pod_evicted, pod_fails, pod_succeeds

from labfunctions_operator.api.notification import NotifyPlan, Template
from labfunctions_operator.api.run import Snapshot
from labfunctions_operator.errors import InvalidSpec
from labfunctions_operator.reconcile.admission import admit
from labfunctions_operator.reconcile.notify import (
    Outcome,
    announce,
    in_force,
    is_pending,
    with_outcomes,
)
from labfunctions_operator.reconcile.plan import Plan
from labfunctions_operator.reconcile.run import reconcile_run
from labfunctions_operator.reconcile.run_observed import RunObserved
from labfunctions_operator.reconcile.workflow import WorkflowObserved, reconcile_workflow

SENT, GONE = Outcome(state="Sent"), Outcome(state="Failed", message="404")


def hook(name: str) -> dict[str, Any]:
    return {"webhook": {"url": f"https://example.com/{name}", "format": "Json"}}


WORDS = {
    "onSuccess": [hook("success")],
    "onFailure": [hook("failure")],
    "onRecovered": [hook("recovered")],
    "onMissed": [hook("missed")],
}


def told(world: RunWorld) -> list[tuple[str, str]]:
    """Event and address of each message on a Run's status."""
    return [
        (n["event"], n["target"]["webhook"]["url"].rsplit("/", 1)[-1])
        for n in world.status.get("notifications", [])
    ]


def notified(world: RunWorld) -> tuple[str, str, str] | None:
    for c in world.status["conditions"]:
        if c["type"] == "Notified":
            return c["status"], c["reason"], c["message"]
    return None


def running(**words: Any) -> RunWorld:
    return runs(workflowRef={"name": "report"}, notifications=words or WORDS)


def end(world: RunWorld, event: Any = pod_fails, seconds: float = 50) -> RunWorld:
    world.seconds = seconds
    event(world, JOB)
    assert world.settle() == ["status"], "the end and its messages are one write"
    return world


def test_a_failure_and_its_messages_are_one_write() -> None:
    world = end(running())
    assert told(world) == [("Failed", "failure")]
    assert notified(world) == ("Unknown", "Pending", "0 of 1 messages sent")
    assert world.condition_of("Succeeded")[1] == "NotebookError"


def test_a_success_tells_who_wants_to_know() -> None:
    assert told(end(running(), pod_succeeds)) == [("Succeeded", "success")]


def test_without_notifications_nothing_is_said() -> None:
    world = end(runs())
    assert "notifications" not in world.status
    assert notified(world) is None


def test_only_the_last_attempt_tells() -> None:
    world = runs(
        workflowRef={"name": "report"},
        notifications=WORDS,
        retries={"limit": 1, "backoff": {"duration": "1s"}},
    )
    world.seconds = 50
    pod_fails(world, JOB)
    world.settle()
    assert told(world) == []
    world.seconds = 52
    world.settle()
    pod_fails(world, "first-2")
    world.settle()
    assert told(world) == [("Failed", "failure")]


def test_a_disruption_that_is_retried_tells_nobody() -> None:
    assert told(end(running(), pod_evicted)) == []


def test_who_cancels_a_run_is_not_told() -> None:
    cancelled = running()
    cancelled.edit(cancel=True)
    cancelled.settle()
    cancelled.pods.clear()
    cancelled.settle()
    assert cancelled.status["phase"] == "Cancelled"
    assert told(cancelled) == []


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("Failed", [("Recovered", "recovered"), ("Succeeded", "success")]),
        ("Succeeded", [("Succeeded", "success")]),
        (None, [("Succeeded", "success")]),
    ],
)
def test_the_first_success_after_a_failure_is_a_recovery(
    before: Any, expected: list[tuple[str, str]]
) -> None:
    world = running()
    world.before = before
    assert told(end(world, pod_succeeds)) == expected


def test_a_target_named_twice_gets_one_message() -> None:
    both = [hook("a"), hook("a")]
    world = running(onSuccess=both, onRecovered=[hook("a")])
    world.before = "Failed"
    assert told(end(world, pod_succeeds)) == [("Recovered", "a")]


def test_what_was_in_force_at_the_start_stays_in_force() -> None:
    world = RunWorld()
    world.workflow = make_workflow(notifications={"onFailure": [hook("old")]})
    world.settle()
    world.workflow = make_workflow(notifications={"onFailure": [hook("new")]})
    world.seconds = 2
    pod_fails(world, JOB)
    # The snapshot is on the Job until the first status holds it.
    world.edit(notifications={"onFailure": [hook("new")]})
    world.settle()
    assert told(world) == [("Failed", "old")]


def test_a_runs_own_words_win_over_those_of_workflow_and_project() -> None:
    project = make_project(defaults={"notifications": {"onFailure": [hook("project")]}})
    workflow = make_workflow(notifications={"onFailure": [hook("workflow")]})
    own = make_run(workflowRef={"name": "report"}, notifications={"onFailure": [hook("run")]})
    silent = make_run(workflowRef={"name": "report"}, notifications={})
    plain = make_run()
    failed = Plan(status={"phase": "Failed"})

    def targets(run: Any, workflow: Any) -> list[str]:
        plan = announce(failed, run, workflow=workflow, project=project, before=None, now=NOW)
        assert plan.status is not None
        found = plan.status.get("notifications", [])
        return [n["target"]["webhook"]["url"].rsplit("/", 1)[-1] for n in found]

    assert targets(own, workflow) == ["run"]
    assert targets(silent, workflow) == []
    assert targets(plain, workflow) == ["workflow"]
    assert targets(plain, make_workflow()) == ["project"]
    assert targets(plain, None) == ["project"]
    assert targets(plain, InvalidSpec("spec", "x")) == ["project"]


def test_a_repeat_tells_whom_it_names_itself_and_else_whom_its_origin_told() -> None:
    origin = end(running())
    slack = {"slack": {"webhookSecretRef": {"name": "hook"}}}
    project = ready_project(
        notificationTargets=[{"name": "slack", **slack}], notificationTemplate={"text": "oh"}
    )

    def plan(**spec: Any) -> NotifyPlan | None:
        repeat = make_run("again", notebook=None, projectRef=None, **{"from": "first"}, **spec)
        snapshot = admit(repeat, workflow=None, project=project, source=None, origin=origin.run)
        assert isinstance(snapshot, Snapshot)
        assert snapshot.image == origin.run.status.snapshot.image
        return snapshot.notify

    assert plan() == origin.run.status.snapshot.notify
    assert plan(notifications={}) is None
    own = plan(notifications={"onFailure": ["slack"]})
    assert own is not None
    assert [target.wire() for target in own.on_failure] == [{"name": "slack", **slack}]
    assert own.template == Template(text="oh")


def test_a_run_that_never_starts_tells_too() -> None:
    world = RunWorld(pendingTimeoutSeconds=5, workflowRef={"name": "report"}, notifications=WORDS)
    world.project = None
    world.seconds = 60
    assert world.settle() == ["status"]
    assert world.condition_of("Succeeded")[1] == "PendingTimedOut"
    assert told(world) == [("Failed", "failure")]


@pytest.mark.parametrize("started", [True, False])
def test_a_failure_waits_for_others_whether_its_run_had_started_or_not(started: bool) -> None:
    words = {**WORDS, "groupSeconds": 300}
    if started:
        world = end(running(**words))
    else:
        ref = {"name": "report"}
        world = RunWorld(pendingTimeoutSeconds=5, workflowRef=ref, notifications=words)
        world.project = None
        world.seconds = 60
        world.settle()
    [delivery] = world.status["notifications"]
    assert delivery["notBefore"] == stamp(world.seconds + 300)


def test_a_success_waits_for_nothing() -> None:
    world = end(running(**WORDS, groupSeconds=300), pod_succeeds)
    assert "notBefore" not in world.status["notifications"][0]


def test_names_are_looked_up_in_the_project() -> None:
    slack = {"slack": {"webhookSecretRef": {"name": "hook"}}}
    project = ready_project(notificationTargets=[{"name": "slack", **slack}])
    words = make_workflow(notifications={"onFailure": ["slack", "lost", hook("a")]}).spec
    plan = in_force(words.notifications, project)
    assert plan is not None
    assert [t.wire() for t in plan.on_failure] == [
        {"name": "slack", **slack},
        {"name": "lost"},
        hook("a"),
    ]
    assert in_force(None, project) is None
    assert in_force(make_workflow(notifications={}).spec.notifications, project) is None


def test_a_workflow_says_which_targets_are_not_there() -> None:
    words = {"onFailure": ["slack", "lost", hook("a")], "onMissed": ["gone"]}
    workflow = make_workflow(notifications=words)
    slack = {"name": "slack", "slack": {"webhookSecretRef": {"name": "hook"}}}
    seen = WorkflowObserved(project=ready_project(notificationTargets=[slack]))
    status = reconcile_workflow(workflow, seen, NOW).status
    assert status is not None
    [ready, found] = status["conditions"]
    assert ready["status"] == "True", "a Run of it can start"
    assert (found["type"], found["status"]) == ("NotificationTargetsFound", "False")
    assert found["message"] == "Project demo has no notification target gone, lost"
    mended = make_workflow(status=status, notifications={"onFailure": ["slack"]})
    again = reconcile_workflow(mended, seen, NOW).status
    assert again is not None
    assert [c["type"] for c in again["conditions"]] == ["Ready"]


def ended_run(count: int = 2, **spec: Any) -> Any:
    deliveries = [{"event": "Failed", "target": hook(str(n))} for n in range(count)]
    in_store = {"type": "Recorded", "status": "True", "reason": "Stored", "message": ""}
    status = {
        "phase": "Failed",
        "completionTime": stamp(),
        "notifications": deliveries,
        "conditions": [{**in_store, "lastTransitionTime": stamp()}],
    }
    return make_run(status=status, **spec)


def recorded(run: Any, outcomes: dict[int, Outcome]) -> Any:
    plan = with_outcomes(run, outcomes, at(9))
    if plan.status is None:
        return run, plan
    return run.but(status=type(run.status).model_validate(plan.status)), plan


def test_what_became_of_messages_is_put_on_record() -> None:
    run, plan = recorded(ended_run(), {0: SENT})
    assert [(d.state, d.time) for d in run.status.notifications] == [
        ("Sent", stamp(9)),
        ("Pending", None),
    ]
    assert is_pending(run)
    run, plan = recorded(run, {0: SENT, 1: GONE})
    [condition] = [c for c in run.status.conditions if c.type == "Notified"]
    assert (condition.status, condition.reason) == ("False", "NotificationFailed")
    assert condition.message == "1 of 2 messages sent; webhook: 404"
    [event] = plan.events
    assert (event.type, event.reason, event.message) == (
        "Warning",
        "NotificationFailed",
        "webhook: 404",
    )
    assert not is_pending(run)
    assert recorded(run, {0: GONE, 1: SENT})[1] == Plan(), "what is on record stays"


def test_all_sent_is_said_once_and_then_nothing_is_written() -> None:
    run, plan = recorded(ended_run(), {0: SENT, 1: SENT})
    [condition] = [c for c in run.status.conditions if c.type == "Notified"]
    assert (condition.status, condition.message) == ("True", "2 of 2 messages sent")
    assert plan.events == ()
    seen = RunObserved(outcomes={0: SENT, 1: SENT})
    assert reconcile_run(run, seen, RunWorld().settings, at(20)) == Plan()


def test_outcomes_of_another_status_are_ignored() -> None:
    assert recorded(ended_run(1), {7: SENT, -1: SENT})[1] == Plan()


def test_a_run_is_not_deleted_before_its_messages_are_sent() -> None:
    run = ended_run(ttlSecondsAfterFinished=0)
    settings = RunWorld().settings
    assert reconcile_run(run, RunObserved(), settings, at(60)) == Plan()
    run, _ = recorded(run, {0: SENT, 1: GONE})
    assert reconcile_run(run, RunObserved(), settings, at(60)).delete


def test_an_end_is_told_once() -> None:
    run = ended_run(1)
    plan = Plan(status={"phase": "Failed"})
    words = {"workflow": None, "project": None, "before": None, "now": NOW}
    assert announce(plan, run, **words) is plan


def test_a_status_that_is_not_ours_is_left_alone() -> None:
    run = make_run(workflowRef={"name": "a"}, notifications=WORDS)
    plan = Plan(status={"phase": "Failed", "attempts": "none"})
    assert announce(plan, run, workflow=None, project=None, before=None, now=NOW) is plan


def test_group_and_template_are_kept_with_the_targets() -> None:
    template = {"title": "{{ run }}"}
    project = ready_project(notificationTemplate=template)
    words = make_workflow(notifications={**WORDS, "groupSeconds": 60}).spec.notifications
    plan = in_force(words, project)
    assert isinstance(plan, NotifyPlan)
    assert (plan.group_seconds, plan.template and plan.template.title) == (60, "{{ run }}")
