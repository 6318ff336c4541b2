"""What a user did wrong is said on the object within seconds, and recovers once it is mended."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from dev.gitserver.server import Backend, make_server
from tests.providers.provider_servers import HttpGit, Repository, free_port

from .api import Object, condition
from .bench import Bench
from .kubelet import SUCCEEDED
from .objects import (
    built_project,
    inline_run,
    notebook,
    project,
    run,
    secret,
    sourceless,
    workflow,
)


@dataclass
class Source:
    """A repository and its server, for a fault to spoil and to mend."""

    bench: Bench
    repository: Repository
    server: HttpGit
    undo: list[Callable[[], None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.repository.bare.name


def wrong_ref(source: Source) -> tuple[Object, Callable[[], None]]:
    def mend() -> None:
        source.repository.git("push", "--quiet", "origin", "HEAD:refs/heads/next")

    return {"ref": "next"}, mend


def wrong_token(source: Source) -> tuple[Object, Callable[[], None]]:
    source.server.read_tokens[source.name] = "right"
    namespace = source.bench.namespace
    source.bench.create(secret(namespace, "git", username="ada", password="wrong"))

    def mend() -> None:
        right = {"stringData": {"password": "right"}}
        source.bench.api.patch("Secret", namespace, "git", right)

    return {"secretRef": {"name": "git"}}, mend


def no_credentials(source: Source) -> tuple[Object, Callable[[], None]]:
    source.server.read_tokens[source.name] = "right"
    return {}, source.server.read_tokens.clear


def missing_secret(source: Source) -> tuple[Object, Callable[[], None]]:
    source.server.read_tokens[source.name] = "right"
    given = secret(source.bench.namespace, "git", token="right")
    return {"secretRef": {"name": "git"}}, lambda: source.bench.create(given)


def missing_path(source: Source) -> tuple[Object, Callable[[], None]]:
    return {"path": "deep/inside"}, lambda: _commit(source, {"deep/inside/a.txt": "a"})


def path_through_link(source: Source) -> tuple[Object, Callable[[], None]]:
    (source.repository.work / "link").symlink_to("/etc")
    _commit(source, {})

    def mend() -> None:
        (source.repository.work / "link").unlink()
        _commit(source, {"link/a.txt": "a"})

    return {"path": "link"}, mend


def unreachable(source: Source) -> tuple[Object, Callable[[], None]]:
    port = free_port()

    def mend() -> None:
        backend = Backend(source.server.root, push_token=None, read_tokens={})
        server = make_server(backend, "127.0.0.1", port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        source.undo += [server.shutdown, thread.join, server.server_close]

    return {"url": f"http://127.0.0.1:{port}/{source.name}"}, mend


def missing_repository(source: Source) -> tuple[Object, Callable[[], None]]:
    link = source.server.root / f"later-{source.name}"
    return (
        {"url": f"{source.server.url}/{link.name}"},
        lambda: link.symlink_to(source.repository.bare),
    )


def _commit(source: Source, files: dict[str, str]) -> None:
    source.repository.commit(files)


@pytest.mark.parametrize(
    ("fault", "reason", "message"),
    [
        (wrong_ref, "RefNotFound", "no branch or tag is named 'next'"),
        (wrong_token, "AuthenticationFailed", "refused the credentials in the Secret"),
        (no_credentials, "AuthenticationFailed", "asks for credentials"),
        (missing_secret, "SecretInvalid", "Secret git does not exist in this namespace"),
        (missing_path, "PathNotFound", "'deep/inside' does not exist in the commit"),
        (path_through_link, "PathNotFound", "'link' is not a plain folder"),
        (unreachable, "RepositoryUnreachable", "refuses connections"),
        (missing_repository, "RepositoryUnreachable", "has no such repository"),
    ],
)
def test_source_says_what_is_wrong_and_recovers(
    bench: Bench,
    repository: Repository,
    git_server: HttpGit,
    *,
    fault: Callable[[Source], tuple[Object, Callable[[], None]]],
    reason: str,
    message: str,
) -> None:
    source = Source(bench, repository, git_server)
    git, mend = fault(source)
    try:
        bench.create(project(bench.namespace, repository.url, git=git))
        found = bench.await_reason("Project", "wine", reason)
        assert message in condition(found, "Ready")["message"]
        assert condition(found, "SourceReady")["status"] == "False"
        mend()
        bench.await_reason("Project", "wine", "Ready")
    finally:
        for step in source.undo:
            step()


@pytest.mark.parametrize(
    ("wrong", "right", "field"),
    [
        ({"path": "../../etc"}, {"path": "."}, "spec.source.git.path"),
        ({"path": "/etc"}, {"path": "."}, "spec.source.git.path"),
        ({"path": "a\n RUN true"}, {"path": "."}, "spec.source.git.path"),
        ({"interval": "0s"}, {"interval": "1s"}, "spec.source.git.interval"),
        ({"interval": ""}, {"interval": "1s"}, "spec.source.git.interval"),
    ],
)
def test_project_names_the_field_that_it_cannot_work_with(
    bench: Bench, repository: Repository, wrong: Object, right: Object, field: str
) -> None:
    bench.create(project(bench.namespace, repository.url, git=wrong), inline_run(bench.namespace))
    bench.await_reason("Project", "wine", "InvalidSpec")
    assert bench.message("Project", "wine").startswith(f"{field}: ")
    bench.await_reason("Run", "first", "ProjectInvalid")
    bench.patch("Project", "wine", source={"git": right})
    bench.await_reason("Project", "wine", "Ready")
    bench.pod("first")


@pytest.mark.parametrize(
    ("runtimes", "message"),
    [
        ([{"name": "a", "image": "x", "dockerfile": "y"}], "image and dockerfile exclude"),
        ([{"name": "a", "image": "x"}, {"name": "a", "image": "y"}], "same name"),
        ([{"name": "a", "dockerfile": "../Dockerfile"}], "leaves the source"),
        ([{"name": "a", "requirements": "a\nRUN true"}], "characters that a path may not have"),
        ([{"name": "a", "env": {"A\nRUN true": "1"}}], "spec.runtimes[0].env"),
    ],
)
def test_runtimes_that_make_no_sense_are_refused_or_explained(
    bench: Bench, repository: Repository, runtimes: list[Any], message: str
) -> None:
    bench.create(project(bench.namespace, repository.url, runtimes=runtimes))
    bench.await_reason("Project", "wine", "InvalidSpec")
    assert message in bench.message("Project", "wine")
    assert bench.builds() == []


def test_run_waits_for_workflow_then_project_then_image(
    bench: Bench, repository: Repository
) -> None:
    bench.create(run(bench.namespace))
    found = bench.await_reason("Run", "first", "WorkflowNotFound")
    assert found["status"]["phase"] == "Pending"
    assert bench.message("Run", "first") == "Workflow analysis does not exist in this namespace"
    bench.create(workflow(bench.namespace))
    bench.await_reason("Run", "first", "ProjectNotFound")
    bench.await_reason("Workflow", "analysis", "ProjectNotFound")
    bench.create(built_project(bench.namespace, repository.url))
    found = bench.await_reason("Run", "first", "ImageBuilding")
    assert found["status"]["phase"] == "Building"
    assert bench.jobs(run="first") == []
    bench.build()
    bench.complete("first")
    bench.await_reason("Workflow", "analysis", "Ready")


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        ({"parameters": {"tress": 5}}, "ParametersInvalid", "tress"),
        ({"parameters": {"trees": "many"}}, "ParametersInvalid", "trees"),
        ({"parameters": {"trees": "日" * 20_000}}, "ParametersInvalid", "120013 bytes, at most"),
        ({"notebook": "analysis.ipyn"}, "NotebookNotFound", "did you mean analysis.ipynb?"),
        ({"notebook": "text.ipynb"}, "NotebookInvalid", "text.ipynb"),
        ({"runtime": "gpu"}, "RuntimeNotFound", "Project wine has no runtime gpu"),
    ],
)
def test_workflow_and_run_are_checked_against_the_source(
    bench: Bench, repository: Repository, spec: Object, reason: str, message: str
) -> None:
    repository.commit({"text.ipynb": "this is not a notebook"})
    bench.create(
        built_project(bench.namespace, repository.url),
        workflow(bench.namespace, **spec),
        workflow(bench.namespace, "good"),
    )
    bench.build()
    found = bench.await_reason("Workflow", "analysis", reason)
    assert message in condition(found, "Ready")["message"]
    bench.create(run(bench.namespace), run(bench.namespace, "good", workflowRef={"name": "good"}))
    found = bench.await_reason("Run", "first", reason)
    assert message in condition(found, "Succeeded")["message"]
    # A Runtime may still be added to the Project; parameters of a Run never change.
    waits = reason == "RuntimeNotFound"
    assert found["status"]["phase"] == ("Pending" if waits else "Failed")
    bench.complete("good")
    assert bench.jobs(run="first") == []
    right = {"parameters": None, "notebook": "analysis.ipynb", "runtime": None}
    bench.patch("Workflow", "analysis", **right)
    bench.await_reason("Workflow", "analysis", "Ready")
    bench.create(run(bench.namespace, "second"))
    bench.complete("second")


def test_workflow_recovers_with_a_commit(bench: Bench, repository: Repository) -> None:
    bench.create(
        built_project(bench.namespace, repository.url),
        workflow(bench.namespace, notebook="later.ipynb", parameters={"depth": 3}),
    )
    bench.build("a")
    bench.await_reason("Workflow", "analysis", "NotebookNotFound")
    repository.commit({"later.ipynb": notebook("trees = 1")})
    bench.build("b")
    bench.await_reason("Workflow", "analysis", "ParametersInvalid")
    repository.commit({"later.ipynb": notebook("depth: int = 1\ntrees = 1")})
    bench.build("c")
    found = bench.await_reason("Workflow", "analysis", "Ready")
    schema = found["status"]["parametersSchema"]
    assert schema["depth"] == {"type": "integer", "default": 1}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"notebook": "../secret.ipynb"}, "leaves the source"),
        ({"resources": {"limits": {"memory": "plenty"}}}, "quantities must match"),
        ({"env": [{"name": "A", "value": 5}]}, "env"),
        ({"volumes": [{"name": "a", "colour": "red"}]}, "colour"),
        ({"env": [{"name": "TERMINATION_LOG", "value": "/x"}]}, "spec.env[0]: TERMINATION_LOG is"),
    ],
)
def test_run_that_cannot_become_a_job_fails_with_the_field(
    bench: Bench, repository: Repository, spec: Object, message: str
) -> None:
    bench.create(
        project(bench.namespace, repository.url), inline_run(bench.namespace, "bad", **spec)
    )
    found = bench.await_reason("Run", "bad", "InvalidSpec")
    assert found["status"]["phase"] == "Failed"
    assert message in bench.message("Run", "bad")
    assert bench.jobs(run="bad") == []
    bench.create(inline_run(bench.namespace, "good"))
    bench.complete("good")


def test_what_is_made_of_a_run_that_has_started_has_no_effect(
    bench: Bench, repository: Repository
) -> None:
    bench.create(project(bench.namespace, repository.url), inline_run(bench.namespace))
    pod = bench.pod("first")
    bench.kubelet.run(pod)
    bench.await_reason("Run", "first", "Running")
    unreadable = [{"name": "TERMINATION_LOG", "value": "/x"}]
    bench.patch("Run", "first", env=unreadable, parameters={"trees": "many"})
    bench.kubelet.finish(pod, SUCCEEDED)
    bench.await_reason("Run", "first", "Succeeded")


def test_ready_made_images_need_no_source(bench: Bench) -> None:
    bench.create(sourceless(bench.namespace), workflow(bench.namespace, notebook="/opt/a.ipynb"))
    bench.await_reason("Project", "wine", "Ready")
    found = bench.await_reason("Workflow", "analysis", "Ready")
    assert "parametersSchema" not in found["status"]
    bench.create(run(bench.namespace, parameters={"anything": 1}))
    bench.complete("first")


def test_quota_is_named_and_the_run_starts_once_there_is_room(
    bench: Bench, repository: Repository
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"namespace": bench.namespace, "name": "none"},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    bench.create(quota, project(bench.namespace, repository.url))
    bench.await_reason("Project", "wine", "Ready")
    bench.await_status("ResourceQuota", "none")
    bench.create(inline_run(bench.namespace))
    bench.await_reason("Run", "first", "QuotaExceeded")
    assert bench.message("Run", "first").startswith("exceeded quota: none, requested: count/jobs")
    assert bench.footprint.count(bench.namespace, "create jobs") <= 2
    bench.api.delete("ResourceQuota", bench.namespace, "none")
    # Whatever touches the Run ends the wait of half a minute.
    bench.api.patch("Run", bench.namespace, "first", {"metadata": {"labels": {"a": "b"}}})
    bench.complete("first")


def test_run_names_the_job_that_has_its_name_and_starts_once_that_is_gone(
    bench: Bench, repository: Repository
) -> None:
    bench.create(project(bench.namespace, repository.url))
    bench.await_reason("Project", "wine", "Ready")
    pod = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "example.com/a"}]}
    theirs = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"namespace": bench.namespace, "name": "first-1"},
        "spec": {"suspend": True, "template": {"spec": pod}},
    }
    bench.create(theirs, inline_run(bench.namespace))
    found = bench.await_reason("Run", "first", "NameTaken")
    assert found["status"]["phase"] == "Pending"
    assert f"Job {bench.namespace}/first-1 exists" in bench.message("Run", "first")
    bench.api.delete("Job", bench.namespace, "first-1")
    bench.api.patch("Run", bench.namespace, "first", {"metadata": {"labels": {"a": "b"}}})
    bench.complete("first")


def test_broken_projects_do_not_delay_a_good_one(bench: Bench, repository: Repository) -> None:
    broken = {
        "ref": ({"ref": "nowhere"}, "RefNotFound"),
        "closed": ({"url": f"http://127.0.0.1:{free_port()}/a.git"}, "RepositoryUnreachable"),
        "name": ({"url": "http://no-such-host.invalid/a.git"}, "RepositoryUnreachable"),
        "escape": ({"path": "../.."}, "InvalidSpec"),
        "secret": ({"secretRef": {"name": "nowhere"}}, "SecretInvalid"),
    }
    for name, (git, _) in broken.items():
        bench.create(project(bench.namespace, repository.url, name, git=git))
    bench.create(built_project(bench.namespace, repository.url), workflow(bench.namespace))
    bench.create(run(bench.namespace))
    bench.build()
    bench.complete("first")
    for name, (_, reason) in broken.items():
        bench.await_reason("Project", name, reason)


def test_projects_of_one_name_in_two_namespaces_do_not_mix(
    bench: Bench, repository: Repository, request: pytest.FixtureRequest
) -> None:
    other_name = f"{bench.namespace}-other"
    metadata = {"name": other_name}
    bench.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    request.addfinalizer(lambda: bench.api.delete("Namespace", "", other_name))
    other = Bench(bench.api, bench.kubelet, bench.operator, bench.footprint, other_name)
    images = {}
    for one, digit in ((bench, "a"), (other, "b")):
        one.create(built_project(one.namespace, repository.url), workflow(one.namespace))
        images[one.namespace] = one.build(digit)
        one.create(run(one.namespace))
    for one in (other, bench):
        done = one.complete("first")
        assert done["status"]["snapshot"]["image"] == images[one.namespace]
        assert f"/{one.namespace}/wine/" in done["status"]["outputs"]["notebook"]
    assert images[bench.namespace] != images[other.namespace]
