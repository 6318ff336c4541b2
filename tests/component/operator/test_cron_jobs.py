"""Schedules that a native CronJob keeps: the real controller, and Jobs as it makes them."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3

from labfunctions_operator.runner.config import Config
from labfunctions_operator.runner.courier import Courier, install
from tests.providers.provider_servers import Repository

from .api import ApiError, Object, condition, until
from .bench import Bench, courier_config
from .kubelet import SUCCEEDED
from .objects import notebook, project, run, workflow

YEARLY = {"schedule": "0 0 1 1 *", "scheduler": "CronJob"}
MINUTE = timedelta(minutes=1)
OWNERS = "labfunctions.io/workflow=analysis"


def this_minute() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)


def run_of(tick: datetime) -> str:
    return f"analysis-{int(tick.timestamp()) // 60}"


def stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def keep_cron_job(bench: Bench, repository: Repository, **spec: Any) -> Object:
    """Create a Workflow, and return its CronJob; what was before it is an hour ago."""
    bench.create(project(bench.namespace, repository.url))
    bench.await_reason("Project", "wine", "Ready")
    bench.create(workflow(bench.namespace, **{**YEARLY, **spec}))
    made = until(lambda: bench.api.get("CronJob", bench.namespace, "analysis"), "a CronJob")
    bench.await_reason("Workflow", "analysis", "Ready")
    since = {"schedule": {"since": stamp(this_minute() - timedelta(hours=1))}}
    bench.api.patch(
        "Workflow", bench.namespace, "analysis", {"status": since}, subresource="/status"
    )
    return made


def fire(bench: Bench, cron_job: Object, tick: datetime | None = None) -> str:
    """Make the Job of a tick, as the CronJob controller does."""
    tick = tick or this_minute()
    bench.create(job_of_tick(cron_job, tick))
    return run_of(tick)


def job_of_tick(cron_job: Object, tick: datetime) -> Object:
    """Return the Job of a tick, in all its parts as the CronJob controller makes it."""
    cron_meta, template = cron_job["metadata"], cron_job["spec"]["jobTemplate"]
    meta = template["metadata"]
    scheduled = {"batch.kubernetes.io/cronjob-scheduled-timestamp": stamp(tick)}
    owner = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": cron_meta["name"],
        "uid": cron_meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    metadata = {
        "name": f"{cron_meta['name']}-{int(tick.timestamp()) // 60}",
        "namespace": cron_meta["namespace"],
        "labels": meta["labels"],
        "annotations": {**meta["annotations"], **scheduled},
        "ownerReferences": [owner],
    }
    spec = template["spec"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def pod_of(bench: Bench) -> Object:
    """Wait for the pod of a CronJob's Job that has not started."""
    return bench.kubelet.pod(bench.namespace, workflow="analysis")


def await_run(bench: Bench, name: str) -> Object:
    return until(lambda: bench.api.get("Run", bench.namespace, name), f"Run {name}")


def running(bench: Bench, name: str) -> Object:
    """Let the notebook of a tick's Run start, and return its pod."""
    pod = pod_of(bench)
    bench.kubelet.run(pod)
    await_run(bench, name)
    bench.await_reason("Run", name, "Running")
    return pod


def await_gone(bench: Bench, kind: str, name: str) -> None:
    until(lambda: not bench.api.get(kind, bench.namespace, name), f"{kind} {name} is gone")


def claim_url(cron_job: Object) -> str:
    url: str = courier_config(cron_job["spec"]["jobTemplate"])["claim"].replace("$$", "$")
    return url


def ask(url: str, body: Any) -> tuple[int, Any]:
    """Ask as a courier does."""
    with urllib3.PoolManager(retries=False, timeout=5) as pool:
        answer = pool.request("POST", url, body=json.dumps(body))
        return answer.status, answer.json() if answer.status == 200 else answer.data.decode()


def granted(cron_job: Object, job: str) -> Object:
    def answered() -> Object | None:
        status, grant = ask(claim_url(cron_job), {"job": job})
        return grant if status == 200 else None

    return until(answered, f"the claim of {job} is answered")


def deliver(cron_job: Object, job: str, root: Path) -> Object:
    """Let a real courier ask the operator, and take a notebook to the store; return its account."""
    words = json.dumps(courier_config(cron_job["spec"]["jobTemplate"])).replace("$$", "$")
    courier = Courier(Config.parse(words, job), root, root / "termination-log")
    install(root)
    for name in ("notebook.ipynb", "result.json"):
        (root / "out" / name).write_text(notebook() if name.startswith("notebook") else "{}")
    courier.finish(time.monotonic() + 20)
    account: Object = json.loads(courier.termination_log.read_text())
    return account


def test_its_jobs_become_runs_like_any_other_at_the_same_cost(
    bench: Bench, repository: Repository, tmp_path: Path
) -> None:
    cron_job = keep_cron_job(bench, repository)
    bench.await_reason("Workflow", "analysis", "Scheduled", type="Scheduled")
    name = fire(bench, cron_job)
    pod = pod_of(bench)
    bench.kubelet.run(pod)
    grant = granted(cron_job, name)
    uid = bench.get("Run", name)["metadata"]["uid"]
    assert f"/{name}-{uid[:8]}/1/notebook.ipynb" in grant["uploads"]["notebook.ipynb"]
    account = deliver(cron_job, name, tmp_path)
    assert account["error"] is None
    bench.await_reason("Run", name, "Running")
    bench.kubelet.finish(pod, SUCCEEDED, courier=account)
    done = bench.await_reason("Run", name, "Succeeded")
    status = done["status"]
    assert status["outputs"]["etags"]["notebook"] == account["uploads"]["notebook.ipynb"]["etag"]
    [attempt] = status["attempts"]
    assert (attempt["number"], attempt["job"], attempt["pod"]) == (1, name, pod["metadata"]["name"])
    assert status["snapshot"]["scheduledAt"] == stamp(this_minute_of(name))
    assert status["outputs"]["notebook"].endswith(f"/{name}-{uid[:8]}/1/notebook.ipynb")
    assert status["outputs"]["record"].endswith(f"/{name}-{uid[:8]}/run.json")
    assert done["metadata"]["annotations"]["labfunctions.io/scheduled-at"]
    until(lambda: bench.get("Workflow", "analysis")["status"].get("succeeded") == 1, "it counts")
    mine = [w for w in bench.footprint.writes(bench.namespace) if "workflow" not in w]
    of_run = [w for w in mine if w not in ("patch projects/status", "patch cronjobs")]
    assert of_run == ["create runs", "patch runs/status", "patch runs/status"]


def this_minute_of(name: str) -> datetime:
    return datetime.fromtimestamp(int(name.rsplit("-", 1)[1]) * 60, UTC)


def test_a_claim_is_answered_for_live_runs_of_this_workflow_alone(
    bench: Bench, repository: Repository
) -> None:
    cron_job = keep_cron_job(bench, repository)
    other = workflow(bench.namespace, "other", **YEARLY)
    bench.create(other)
    theirs = until(lambda: bench.api.get("CronJob", bench.namespace, "other"), "a CronJob")
    name = fire(bench, cron_job)
    grant = granted(cron_job, name)
    progress = {"progress": {"cell": 1, "cells": 3, "name": "Load"}}
    assert ask(grant["report"], progress)[0] == 204
    assert ask(grant["renew"], {})[1]["renew"] == grant["renew"]
    url = claim_url(cron_job)
    assert ask(url[:-1] + ("0" if url[-1] != "0" else "1"), {"job": name})[0] == 403
    assert ask(url.replace("/analysis/", "/other/"), {"job": name})[0] == 403
    assert ask(claim_url(theirs), {"job": name})[0] == 404
    assert ask(url, {"job": run_of(this_minute() + 5 * MINUTE)})[0] == 404
    assert ask(url, {"job": ["x"]})[0] == 404
    assert ask(url, ["job"])[0] == 400
    bench.create(run(bench.namespace, "first"))
    bench.pod("first")
    assert ask(url, {"job": "first"})[0] == 404
    pod = pod_named(bench, name)
    bench.kubelet.run(pod)
    shown = bench.await_reason("Run", name, "Running")
    assert shown["status"]["progress"]["summary"] == "1/3"
    bench.kubelet.finish(pod, SUCCEEDED)
    bench.await_reason("Run", name, "Succeeded")
    until(lambda: ask(url, {"job": name})[0] == 409, "nothing is granted any more")


def pod_named(bench: Bench, job: str) -> Object:
    selector = f"batch.kubernetes.io/job-name={job}"
    return until(lambda: first(bench.api.list("Pod", bench.namespace, selector)), f"a pod of {job}")


def first(found: list[Object]) -> Object | None:
    return found[0] if found and found[0]["spec"].get("nodeName") else None


def test_a_deleted_run_takes_its_job_along_for_good(bench: Bench, repository: Repository) -> None:
    cron_job = keep_cron_job(bench, repository)
    name = fire(bench, cron_job)
    running(bench, name)
    until(lambda: bench.get("Workflow", "analysis")["status"].get("active"), "it is active")
    bench.api.delete("Run", bench.namespace, name)
    await_gone(bench, "Job", name)
    until(lambda: not bench.get("Workflow", "analysis")["status"].get("active"), "it is not active")
    assert bench.api.get("Run", bench.namespace, name) is None


def test_a_cancelled_run_ends_cancelled_and_a_failed_one_is_retried(
    bench: Bench, repository: Repository
) -> None:
    retries = {"limit": 1, "backoff": {"duration": "1s"}}
    cron_job = keep_cron_job(bench, repository, retries=retries)
    name = fire(bench, cron_job)
    pod = running(bench, name)
    failed = {"reason": "NotebookError", "message": "a cell raised", "progress": None}
    bench.kubelet.finish(pod, failed, exit_code=1)
    again = bench.pod(name, attempt="2")
    [job] = bench.jobs(run=name)
    assert job["metadata"]["name"] == f"{name}-2"
    assert ask(claim_url(cron_job), {"job": name})[0] == 409
    config = json.loads(again["spec"]["containers"][0]["env"][0]["value"])
    assert config["inject"]["SCHEDULED_AT"] == stamp(this_minute_of(name))
    bench.patch("Run", name, cancel=True)
    await_gone(bench, "Job", f"{name}-2")
    bench.kubelet.remove(again)
    done = bench.await_reason("Run", name, "Cancelled")
    assert [a["number"] for a in done["status"]["attempts"]] == [1, 2]


def test_a_run_that_the_controller_replaces_is_cancelled_and_not_retried(
    bench: Bench, repository: Repository
) -> None:
    cron_job = keep_cron_job(bench, repository, concurrencyPolicy="Replace")
    old = fire(bench, cron_job, this_minute() - MINUTE)
    pod = running(bench, old)
    bench.api.delete("Job", bench.namespace, old)
    new = fire(bench, cron_job)
    await_run(bench, new)
    until(lambda: bench.get("Run", old)["spec"].get("cancel"), "it is cancelled")
    stopped = {"reason": "Cancelled", "message": "the notebook was interrupted"}
    bench.kubelet.finish(pod, stopped, exit_code=143)
    done = bench.await_reason("Run", old, "Cancelled")
    assert len(done["status"]["attempts"]) == 1


def test_what_ran_while_the_operator_was_away_gets_its_verdict(
    bench: Bench, repository: Repository
) -> None:
    cron_job = keep_cron_job(bench, repository)
    bench.operator.kill()
    lost, live = fire(bench, cron_job, this_minute() - MINUTE), None
    pod = pod_of(bench)
    bench.kubelet.run(pod)
    silent = {"uploads": {}, "error": "the operator did not say where the results go: refused"}
    bench.kubelet.finish(pod, SUCCEEDED, courier=silent)
    live = fire(bench, cron_job)
    bench.kubelet.run(pod_named(bench, live))
    bench.operator.ensure()
    await_run(bench, lost)
    done = bench.await_reason("Run", lost, "OutputLost")
    assert "did not say where" in condition(done, "Succeeded")["message"]
    await_run(bench, live)
    bench.await_reason("Run", live, "Running")
    granted(cron_job, live)
    until(lambda: bench.get("Workflow", "analysis")["status"].get("failed") == 1, "it is counted")


def test_a_tick_that_both_schedulers_see_is_one_run_with_one_job(
    bench: Bench, repository: Repository
) -> None:
    cron_job = keep_cron_job(bench, repository)
    name = run_of(this_minute())
    bench.create(run(bench.namespace, name))
    mine = until(lambda: bench.api.get("Job", bench.namespace, name), "the operator's Job")
    assert mine["metadata"]["ownerReferences"][0]["kind"] == "Run"
    with pytest.raises(ApiError, match="already exists"):
        fire(bench, cron_job)
    earlier = this_minute() - MINUTE
    fire(bench, cron_job, earlier)
    await_run(bench, run_of(earlier))
    until(lambda: bench.get("Run", run_of(earlier)).get("status"), "it is adopted")
    assert len(bench.api.list("Job", bench.namespace, OWNERS)) == 2


def test_a_cron_job_of_somebody_else_is_left_alone(bench: Bench, repository: Repository) -> None:
    template = {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": []}}}}
    container = {"name": "mine", "image": "registry.test/mine"}
    template["spec"]["template"]["spec"]["containers"] = [container]
    bench.create(
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"namespace": bench.namespace, "name": "analysis"},
            "spec": {"schedule": "0 0 1 1 *", "jobTemplate": template},
        }
    )
    bench.create(project(bench.namespace, repository.url))
    bench.create(workflow(bench.namespace, **YEARLY))
    bench.await_reason("Workflow", "analysis", "InvalidSpec")
    assert "somebody else's" in bench.message("Workflow", "analysis")
    theirs = bench.get("CronJob", "analysis")
    assert not theirs["metadata"].get("labels")


def test_what_somebody_changed_is_put_back_once(bench: Bench, repository: Repository) -> None:
    keep_cron_job(bench, repository, resources={"requests": {"cpu": "100m"}}, env=[{"name": "A"}])
    bench.patch("CronJob", "analysis", suspend=True)
    until(lambda: not bench.get("CronJob", "analysis")["spec"]["suspend"], "it is put back")
    bench.patch("Workflow", "analysis", startingDeadlineSeconds=300)
    until(lambda: "startingDeadlineSeconds" in bench.get("CronJob", "analysis")["spec"], "an edit")
    time.sleep(1)
    assert bench.footprint.count(bench.namespace, "patch cronjobs") == 3


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"concurrencyPolicy": "Queue"}, "concurrencyPolicy"),
        ({"catchUp": {"policy": "All"}}, "catchUp.policy"),
        ({"jitterSeconds": 5}, "jitterSeconds"),
        ({"startAt": "2026-01-01T00:00:00Z"}, "startAt"),
        ({"endAt": "2026-01-01T00:00:00Z"}, "endAt"),
        ({"repeat": 3}, "repeat"),
        ({"schedule": None, "interval": "5m"}, "interval"),
    ],
)
def test_what_a_cron_job_cannot_do_is_refused(bench: Bench, spec: Object, path: str) -> None:
    fields = {k: v for k, v in {**YEARLY, **spec}.items() if v is not None}
    with pytest.raises(ApiError, match=f"{path}.*a CronJob has no such thing"):
        bench.create(workflow(bench.namespace, **fields))
    fields = {"jitterSeconds": 0, "catchUp": {"policy": "Latest"}, **YEARLY}
    bench.create(workflow(bench.namespace, **fields))


def test_a_deleted_workflow_takes_all_along_also_what_lost_its_cron_job(
    bench: Bench, repository: Repository
) -> None:
    cron_job = keep_cron_job(bench, repository)
    left = fire(bench, cron_job)
    await_run(bench, left)
    bench.patch("Workflow", "analysis", scheduler="Operator")
    await_gone(bench, "CronJob", "analysis")
    job = bench.get("Job", left)
    assert not job["metadata"].get("ownerReferences")
    bench.api.delete("Workflow", bench.namespace, "analysis")
    await_gone(bench, "Run", left)
    await_gone(bench, "Job", left)


def test_ticks_of_both_schedulers_are_one_row_through_switches_and_an_outage(
    bench: Bench, repository: Repository
) -> None:
    """The real controller, on the clock on the wall: each minute its Run, and one Job each."""
    bench.create(project(bench.namespace, repository.url))
    bench.await_reason("Project", "wine", "Ready")
    bench.create(workflow(bench.namespace, schedule="* * * * *"))
    begin = this_minute()

    def await_job(kind: str, after: datetime) -> datetime:
        def made() -> datetime | None:
            jobs = bench.api.list("Job", bench.namespace, OWNERS)
            ticks = [
                this_minute_of(job["metadata"]["name"])
                for job in jobs
                if kind in [o["kind"] for o in job["metadata"].get("ownerReferences", ())]
            ]
            return max((tick for tick in ticks if tick > after), default=None)

        return until(made, f"a Job of a {kind}", seconds=75)

    ours = await_job("Run", begin)
    bench.patch("Workflow", "analysis", scheduler="CronJob")
    until(lambda: bench.api.get("CronJob", bench.namespace, "analysis"), "a CronJob")
    bench.operator.kill()
    theirs = await_job("CronJob", ours)
    bench.operator.ensure()
    await_run(bench, run_of(theirs))
    bench.patch("Workflow", "analysis", scheduler="Operator")
    await_gone(bench, "CronJob", "analysis")
    last = await_job("Run", theirs)
    runs = bench.api.list("Run", bench.namespace)
    ticks = [ours + n * MINUTE for n in range(int((last - ours) / MINUTE) + 1)]
    assert sorted(r["metadata"]["name"] for r in runs) == [run_of(tick) for tick in ticks]
    jobs = bench.api.list("Job", bench.namespace, OWNERS)
    assert sorted(j["metadata"]["name"] for j in jobs) == [run_of(tick) for tick in ticks]
    assert bench.get("Workflow", "analysis")["status"]["missed"] == 0
