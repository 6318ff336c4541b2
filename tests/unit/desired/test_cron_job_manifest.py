import json
from typing import Any

from golden_files import assert_golden_yaml
from kubernetes_env import env_of
from objects import COMMIT, NOW, make_grant, make_run, make_settings, make_workflow
from pod_security import violations

from labfunctions_operator.api.run import Snapshot
from labfunctions_operator.desired.cron_job import build_cron_job
from labfunctions_operator.desired.run_job import build_run_job

CLAIM = "http://operator.example.com/v1/claims/team/report/u?signature=ab"
SNAPSHOT = Snapshot.model_validate(
    {
        "notebook": "analysis.ipynb",
        "timeoutSeconds": 10800,
        "parameters": {"day": "$(DAY)"},
        "env": [{"name": "RUNNER_JOB", "value": "mine"}, {"name": "ZONE", "value": "eu"}],
        "runtime": "default",
        "project": "demo",
        "workflow": "report",
        "commit": COMMIT,
        "image": "localhost:30500/team/demo@sha256:0a",
    }
)


def build(**schedule: Any) -> dict[str, Any]:
    spec = {"schedule": "*/5 * * * *", "scheduler": "CronJob", **schedule}
    return build_cron_job(make_workflow(**spec), SNAPSHOT, CLAIM, make_settings())


def template_of(cron_job: dict[str, Any]) -> dict[str, Any]:
    template: dict[str, Any] = cron_job["spec"]["jobTemplate"]
    return template


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def test_the_cron_job_of_a_plain_workflow_is_as_reviewed() -> None:
    assert_golden_yaml("cron-job", build())


def test_the_fields_of_cron_job_are_those_of_the_workflow() -> None:
    spec = build(timeZone="Europe/London", concurrencyPolicy="Forbid", startingDeadlineSeconds=60)[
        "spec"
    ]
    assert spec["timeZone"] == "Europe/London"
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] == 60
    assert "startingDeadlineSeconds" not in build()["spec"]


def test_its_pod_is_the_one_of_a_run_but_for_what_one_job_alone_can_be_told() -> None:
    job = build_run_job(make_run(), SNAPSHOT, make_grant(), make_settings(), attempt=1, now=NOW)
    pods = [pod_of(job), pod_of(template_of(build()))]
    for pod in pods:
        for container in (*pod["initContainers"], *pod["containers"]):
            container["env"] = [e for e in container["env"] if e["name"] == "ZONE"]
    assert pods[0] == pods[1]
    assert violations(pods[1]) == []


def test_the_notebook_is_told_nothing_of_the_claim_and_cannot_name_the_job() -> None:
    [container] = pod_of(template_of(build()))["containers"]
    assert "claim" not in json.dumps(container)
    [job] = [entry for entry in container["env"] if entry["name"] == "RUNNER_JOB"]
    path = "metadata.labels['batch.kubernetes.io/job-name']"
    assert job["valueFrom"]["fieldRef"] == {"fieldPath": path}
    told = [entry for entry in container["env"] if entry["name"] == "RUNNER_CONFIG"]
    config = json.loads(env_of({"env": told})["RUNNER_CONFIG"])
    assert config["namedByJob"] is True
    assert config["parameters"] == {"day": "$(DAY)"}


def test_the_first_job_of_a_ticks_run_has_the_name_that_the_cron_job_gives_it() -> None:
    names = [
        build_run_job(
            make_run(name), SNAPSHOT, make_grant(), make_settings(), attempt=attempt, now=NOW
        )["metadata"]["name"]
        for name in ("report-29454480", "report-1", "first")
        for attempt in (1, 2)
    ]
    assert names == [
        "report-29454480",
        "report-29454480-2",
        "report-1-1",
        "report-1-2",
        "first-1",
        "first-2",
    ]
