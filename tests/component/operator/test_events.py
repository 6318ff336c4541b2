"""What `kubectl describe` tells of the way an object went, once each, and what is not worth it."""

from dev.cluster.kubectl import Kubectl
from tests.providers.provider_servers import Repository

from .api import Object, until
from .bench import Bench
from .kubelet import Kubelet, terminated
from .objects import built_project, inline_run, project, run, workflow

OUT_OF_MEMORY = {"exit_code": 137, "reason": "OOMKilled"}


def events(bench: Bench, kind: str, name: str) -> list[tuple[str, str]]:
    """Return type and reason of the operator's Events about an object, oldest first."""
    uid = bench.get(kind, name)["metadata"]["uid"]
    found = [
        event
        for event in bench.api.list("Event", bench.namespace)
        if event["involvedObject"].get("uid") == uid
    ]
    found.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
    assert {event["source"]["component"] for event in found} <= {"labfunctions-operator"}
    return [(event["type"], event["reason"]) for event in found]


def pull_fails(kubelet: Kubelet, pod: Object, reason: str) -> None:
    waits = {"waiting": {"reason": reason, "message": f"{reason}: no such tag"}}
    kubelet.report(pod, "Pending", {"notebook": waits, "courier": waits})


def test_describe_tells_the_story_of_a_run(
    bench: Bench, repository: Repository, kubectl: Kubectl
) -> None:
    retries = {"limit": 1, "backoff": {"duration": "1s"}, "memory": {"factor": 2, "max": "4Gi"}}
    bench.create(
        project(bench.namespace, repository.url),
        inline_run(bench.namespace, retries=retries, resources={"limits": {"memory": "1Gi"}}),
    )
    pod = bench.pod("first")
    for reason in ("ErrImagePull", "ImagePullBackOff", "ErrImagePull"):
        pull_fails(bench.kubelet, pod, reason)
        bench.await_reason("Run", "first", "ImagePullFailed")
    bench.operator.restart()
    bench.kubelet.run(pod)
    bench.await_reason("Run", "first", "Running")
    bench.operator.kill()
    bench.kubelet.finish(pod, None, **OUT_OF_MEMORY)
    bench.operator.ensure()
    pod = bench.pod("first", attempt="2")
    bench.operator.kill()
    failed = {"reason": "NotebookError", "message": "cell 2 raised ValueError: no wine left"}
    bench.kubelet.finish(pod, failed, exit_code=1)
    until(lambda: bench.jobs(run="first", attempt="2")[0]["status"].get("failed"), "it failed")
    bench.operator.ensure()
    bench.await_reason("Run", "first", "NotebookError")
    bench.operator.restart()
    bench.operator.restart()
    assert events(bench, "Run", "first") == [
        ("Warning", "ImagePullFailed"),
        ("Warning", "OutOfMemory"),
        ("Warning", "NotebookError"),
    ]
    shown = kubectl.run("describe", "runs.labfunctions.io", "first", "-n", bench.namespace)
    story = shown.partition("Events:")[2]
    places = [
        story.index("cannot pull"),
        story.index("attempt 1 failed with OutOfMemory"),
        story.index("cell 2 raised ValueError: no wine left (attempt 2)"),
    ]
    assert all(place > 0 for place in places)


def test_success_is_told_by_the_status_alone(bench: Bench, repository: Repository) -> None:
    bench.create(project(bench.namespace, repository.url), workflow(bench.namespace))
    bench.await_reason("Workflow", "analysis", "Ready")
    bench.create(run(bench.namespace))
    bench.complete("first")
    assert events(bench, "Run", "first") == []
    assert events(bench, "Workflow", "analysis") == []
    assert events(bench, "Project", "wine") == []


def test_cancelled_run_is_no_warning(bench: Bench) -> None:
    bench.create(inline_run(bench.namespace))
    bench.await_reason("Run", "first", "ProjectNotFound")
    bench.patch("Run", "first", cancel=True)
    bench.await_reason("Run", "first", "Cancelled")
    until(lambda: events(bench, "Run", "first") == [("Normal", "Cancelled")], "it is told")


def test_builds_of_a_project_are_told(bench: Bench, repository: Repository) -> None:
    bench.create(built_project(bench.namespace, repository.url))
    bench.build("a")
    repository.commit({"requirements.txt": "no-such-package==1\n"})
    bench.kubelet.finish_build(bench.build_pod(), {"error": "no such package"})
    bench.await_reason("Project", "wine", "ImageBuildFailed")
    bench.operator.restart()
    repository.commit({"requirements.txt": "pandas==2.3.0\n"})
    bench.build("b")
    expected = [
        ("Normal", "ImageBuilt"),
        ("Warning", "ImageBuildFailed"),
        ("Normal", "ImageBuilt"),
    ]
    until(lambda: events(bench, "Project", "wine") == expected, "each build is told once")


def test_problem_of_source_and_workflow_is_told_once(bench: Bench, repository: Repository) -> None:
    bench.create(built_project(bench.namespace, repository.url, git={"ref": "nowhere"}))
    bench.create(workflow(bench.namespace, notebook="nowhere.ipynb"))
    bench.await_reason("Project", "wine", "RefNotFound")
    bench.operator.restart()
    bench.patch("Project", "wine", source={"git": {"ref": "main"}})
    bench.await_reason("Workflow", "analysis", "NotebookNotFound")
    bench.build()
    bench.operator.restart()
    # Something new that comes last: once it is through, all before it is.
    bench.create(inline_run(bench.namespace, "last"))
    bench.complete("last")
    assert events(bench, "Project", "wine") == [
        ("Warning", "RefNotFound"),
        ("Normal", "ImageBuilt"),
    ]
    assert events(bench, "Workflow", "analysis") == [("Warning", "NotebookNotFound")]


def test_what_the_api_server_refuses_is_told(bench: Bench, repository: Repository) -> None:
    bench.create(
        project(bench.namespace, repository.url),
        inline_run(bench.namespace, resources={"limits": {"memory": "much"}}),
    )
    bench.await_reason("Run", "first", "InvalidSpec")
    until(lambda: events(bench, "Run", "first") == [("Warning", "InvalidSpec")], "it is told")


def test_events_count_among_the_metrics(bench: Bench, repository: Repository) -> None:
    bench.create(project(bench.namespace, repository.url), inline_run(bench.namespace))
    pod = bench.pod("first")
    before = bench.operator.scrape().value("events_total", result="Recorded")
    bench.kubelet.report(
        pod, "Failed", {"notebook": terminated(None, exit_code=1), "courier": terminated(None)}
    )
    bench.await_reason("Run", "first", "InternalError")

    def is_counted() -> bool:
        return bench.operator.scrape().value("events_total", result="Recorded") == before + 1

    until(is_counted, "the Event is counted")
