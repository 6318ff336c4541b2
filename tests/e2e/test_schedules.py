"""Schedules on the real node: kept by the operator, by a native CronJob, and by replacing Runs."""

from collections.abc import Callable

import pytest

from .cluster import Repository, Team
from .objects import GATE, Object, condition, notebook, printed, project, workflow

MINUTELY = "* * * * *"
# A tick is up to a minute away, and the next one another.
TICK, TWO_TICKS = 120, 200
STAMPED = notebook("import sys", "print('due', SCHEDULED_AT, 'by', WFID)")


@pytest.fixture(scope="module")
def lab(new_team: Callable[..., Team], new_repository: Callable[[str], Repository]) -> Team:
    """A team whose Workflows all run at the next minute."""
    team = new_team()
    repository = new_repository(f"{team.namespace}.git")
    commit = repository.commit({"stamped.ipynb": STAMPED, "gate.ipynb": GATE}, "Begin")
    team.apply(project(repository=repository.name))
    team.await_image(commit)
    team.apply(
        workflow("ours", notebook="stamped.ipynb", schedule=MINUTELY, repeat=1),
        workflow("native", notebook="stamped.ipynb", schedule=MINUTELY, scheduler="CronJob"),
        workflow("gate", schedule=MINUTELY, concurrencyPolicy="Replace"),
    )
    return team


def first_run(lab: Team, workflow: str, seconds: float = TICK) -> Object:
    """Wait for the Run of a Workflow's first tick."""

    def made() -> Object | None:
        runs = lab.find("runs", workflow=workflow)
        return min(runs, key=lambda r: str(r["metadata"]["name"]), default=None)

    return lab.until("a Run", made, seconds=seconds, about=f"workflow/{workflow}")


def test_a_tick_runs_its_notebook_and_the_workflow_says_so(lab: Team) -> None:
    run = first_run(lab, "ours")
    ended = lab.await_success(run["metadata"]["name"])
    tick = run["metadata"]["annotations"]["labfunctions.io/scheduled-at"]
    assert f"due {tick} by ours" in printed(lab.read_notebook(ended))

    def counted() -> bool:
        return lab.get("workflow", "ours")["status"].get("succeeded") == 1

    lab.until("the Workflow to count it", counted, about="workflow/ours")
    status = lab.get("workflow", "ours")["status"]
    assert status["lastScheduleTime"] == tick
    assert condition(lab.get("workflow", "ours"), "Scheduled")["reason"] == "Ended"


def test_a_cron_jobs_tick_becomes_a_run_with_its_notebook(lab: Team) -> None:
    run = first_run(lab, "native")
    lab.kubectl("patch", "workflow", "native", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    name = run["metadata"]["name"]
    ended = lab.await_success(name)
    tick = run["metadata"]["annotations"]["labfunctions.io/scheduled-at"]
    assert f"due {tick} by native" in printed(lab.read_notebook(ended))
    [job] = [j for j in lab.find("jobs", workflow="native") if j["metadata"]["name"] == name]
    assert job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]
    lab.await_recorded(name)


def test_a_replaced_run_keeps_what_its_notebook_had(lab: Team) -> None:
    run = first_run(lab, "gate")
    name = run["metadata"]["name"]
    lab.await_cell(name, "begun")
    ended = lab.await_end(name, seconds=TWO_TICKS)
    assert ended["status"]["phase"] == "Cancelled"
    assert "begun" in printed(lab.read_notebook(ended))

    def replaced() -> bool:
        runs = lab.find("runs", workflow="gate")
        return any(r["metadata"]["name"] > name for r in runs)

    lab.until("the Run that replaces it", replaced, about="workflow/gate")
    lab.kubectl("patch", "workflow", "gate", "--type=merge", "-p", '{"spec":{"suspend":true}}')
