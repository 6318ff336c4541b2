"""What Prometheus sees of the running operator, before and after a restart."""

from tests.providers.provider_servers import Repository

from .api import until
from .bench import Bench
from .inbox import Inbox
from .kubelet import SUCCEEDED
from .objects import built_project, inline_run, project, run, workflow
from .scrape import Scrape

FAILED = {"reason": "NotebookError", "message": "cell 2 raised ValueError: no wine left"}
RESULTS = ("Succeeded", "Failed", "Cancelled")
STATE = (
    "runs",
    "workflow_last_run_succeeded",
    "workflow_last_success_timestamp_seconds",
    "project_images",
)


def finish(bench: Bench, name: str, *, failed: bool = False) -> None:
    pod = bench.pod(name)
    bench.kubelet.run(pod)
    if failed:
        bench.kubelet.finish(pod, FAILED, exit_code=1)
    else:
        bench.kubelet.finish(pod, SUCCEEDED)
    bench.await_reason("Run", name, "NotebookError" if failed else "Succeeded")


def await_value(bench: Bench, value: float, name: str, **labels: str) -> Scrape:
    """Return the first scrape that tells of a write: its answer reaches the operator after us."""

    def told() -> Scrape | None:
        found = bench.operator.scrape()
        return found if found.value(name, **labels) == value else None

    return until(told, f"{name} is {value}")


def test_runs_and_builds_are_told_and_a_restart_tells_the_truth(
    bench: Bench, repository: Repository
) -> None:
    team = {"namespace": bench.namespace}
    report = {**team, "workflow": "analysis"}
    bench.create(built_project(bench.namespace, repository.url), workflow(bench.namespace))
    bench.create(run(bench.namespace, "waiting"))
    bench.await_reason("Run", "waiting", "ImageBuilding")
    waiting = await_value(bench, 1, "runs", **report, phase="Building")
    assert waiting.value("runs_waiting_since_timestamp_seconds", **team) > 1.7e9
    assert waiting.value("project_images", **team, project="wine", phase="Building") == 1
    bench.kubelet.finish_build(bench.build_pod(), {"error": "no such package"})
    bench.await_reason("Project", "wine", "ImageBuildFailed")
    await_value(bench, 1, "project_images", **team, phase="Failed")
    repository.commit({"requirements.txt": "pandas==2.3.0\n"})
    bench.build()
    finish(bench, "waiting")
    bench.create(run(bench.namespace, "good"), run(bench.namespace, "bad"))
    finish(bench, "good")
    finish(bench, "bad", failed=True)
    bench.create(run(bench.namespace, "stopped", cancel=True))
    bench.await_reason("Run", "stopped", "Cancelled")
    bench.create(inline_run(bench.namespace, "alone"))
    pod = bench.pod("alone")
    bench.kubelet.run(pod)
    bench.await_reason("Run", "alone", "Running")

    told = await_value(bench, 1, "run_queued_seconds_count", **team, workflow="")
    ended = {result: told.value("runs_ended_total", **report, result=result) for result in RESULTS}
    assert ended == {"Succeeded": 2, "Failed": 1, "Cancelled": 1}
    assert told.value("run_failures_total", **report, reason="NotebookError") == 1
    assert told.value("run_attempts_total", **report) == 3
    assert told.value("run_duration_seconds_count", **report) == 3
    assert told.value("run_queued_seconds_count", **report) == 3
    assert told.value("builds_total", **team, project="wine", result="Succeeded") == 1
    assert told.value("builds_total", **team, project="wine", result="Failed") == 1
    assert told.value("build_duration_seconds_count", **team, project="wine") == 2
    assert told.value("source_reads_total", **team, result="Succeeded") >= 2
    assert told.value("reconciles_total", kind="Run", result="Succeeded") > 5
    assert told.value("api_requests_total", verb="create", code="201") >= 6
    assert told.value("api_requests_total", verb="patch_status", code="200") >= 8
    state = {name: told.all(name, **team) for name in STATE}
    assert told.value("workflow_last_run_succeeded", **report) == 0
    assert told.value("workflow_last_success_timestamp_seconds", **report) > 1.7e9
    assert list(state["runs"].values()) == [1]

    bench.operator.restart()
    again = bench.operator.scrape()
    assert {name: again.all(name, **team) for name in STATE} == state
    assert again.all("runs_ended_total", **team) == {}
    assert again.all("builds_total", **team) == {}
    bench.kubelet.finish(pod, SUCCEEDED)
    bench.await_reason("Run", "alone", "Succeeded")
    last = await_value(bench, 1, "runs_ended_total", **team)
    # When its notebook had started was known before.
    assert last.value("run_queued_seconds_count", **team) == 0


def test_run_that_ends_while_the_operator_is_away_is_counted_once(
    bench: Bench, repository: Repository
) -> None:
    team = {"namespace": bench.namespace}
    bench.create(project(bench.namespace, repository.url), inline_run(bench.namespace))
    pod = bench.pod("first")
    bench.operator.kill()
    bench.kubelet.finish(pod, FAILED, exit_code=1)
    until(lambda: bench.jobs(run="first")[0]["status"].get("failed"), "the Job has failed")
    bench.operator.ensure()
    bench.await_reason("Run", "first", "NotebookError")
    await_value(bench, 1, "runs_ended_total", **team, result="Failed")
    bench.operator.restart()
    assert bench.operator.scrape().all("runs_ended_total", **team) == {}


def test_schedule_is_told(bench: Bench, repository: Repository) -> None:
    report = {"namespace": bench.namespace, "workflow": "analysis"}
    told = "workflow_next_schedule_timestamp_seconds"
    bench.create(
        project(bench.namespace, repository.url), workflow(bench.namespace, schedule="0 0 1 1 *")
    )
    until(lambda: bench.operator.scrape().value(told, **report) > 1.7e9, "the next tick is told")
    found = bench.operator.scrape()
    for name in ("workflow_schedule_lag_seconds", "workflow_missed_schedules"):
        assert list(found.all(name, **report).values()) == [0]
    bench.patch("Workflow", "analysis", suspend=True)
    until(lambda: not bench.operator.scrape().all(told, **report), "no tick is to come")


def test_notifications_are_told(bench: Bench, repository: Repository, inbox: Inbox) -> None:
    inbox.status["refused"] = 403
    targets = [inbox.hook("taken"), inbox.hook("refused")]
    before = bench.operator.scrape()
    bench.create(
        project(bench.namespace, repository.url),
        inline_run(bench.namespace, notifications={"onFailure": targets}),
    )
    finish(bench, "first", failed=True)

    def is_told() -> bool:
        told = bench.operator.scrape()
        return all(
            told.value("notifications_total", event="Failed", type="webhook", result=result)
            == before.value("notifications_total", event="Failed", type="webhook", result=result)
            + 1
            for result in ("Sent", "Failed")
        )

    until(is_told, "both messages are counted")


def test_a_scrape_asks_the_api_server_for_nothing(bench: Bench, repository: Repository) -> None:
    bench.create(project(bench.namespace, repository.url), workflow(bench.namespace))
    bench.await_reason("Project", "wine", "Ready")
    bench.await_reason("Workflow", "analysis", "Ready")
    writes = bench.footprint.writes(bench.namespace)
    before = bench.operator.scrape()
    for _ in range(20):
        after = bench.operator.scrape()
    assert after.all("api_requests_total") == before.all("api_requests_total")
    assert bench.footprint.writes(bench.namespace) == writes
