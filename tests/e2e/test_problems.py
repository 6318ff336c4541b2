"""What goes wrong is told within half a minute, stops nothing else, and ends once it is mended."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from dev.cluster.errors import ClusterError

from .cluster import Repository, Team, seconds_between
from .objects import (
    HELLO,
    Object,
    condition,
    inline_run,
    notebook,
    printed,
    project,
    repository_url,
    run,
    workflow,
)

READABLE_WITHIN = 30
NEVER_THERE = "http://nowhere.labfunctions-demo.svc/lab.git"
PLAIN_PYTHON = [{"name": "plain", "image": "python:3.11-slim"}]

NO_PYTHON = [{"name": "default", "dockerfile": "Dockerfile"}]
WITHOUT_PYTHON = "FROM python:3.11-slim\nRUN rm -f /usr/bin/python* /usr/local/bin/python*\n"

# Kind, name, the reason of its condition, and words that tell a person what to do about it.
EXPECTED = (
    ("project", "no-server", "RepositoryUnreachable", "nowhere.labfunctions-demo.svc"),
    ("project", "no-repository", "RepositoryUnreachable", "no such repository"),
    ("project", "no-ref", "RefNotFound", "release"),
    ("project", "no-path", "PathNotFound", "nothing/here"),
    ("project", "escape", "InvalidSpec", "source.git.path"),
    ("workflow", "no-project", "ProjectNotFound", "later"),
    ("workflow", "missing", "NotebookNotFound", "missing.ipynb"),
    ("workflow", "no-notebook", "NotebookInvalid", "text.ipynb"),
    ("workflow", "unknown", "ParametersInvalid", "parameters.nmae"),
    ("workflow", "ill-typed", "ParametersInvalid", "expected int, got str"),
    ("run", "of-no-project", "ProjectNotFound", "later"),
    ("run", "of-no-workflow", "WorkflowNotFound", "nobody"),
    ("run", "missing", "NotebookNotFound", "missing.ipynb"),
    ("run", "no-notebook", "NotebookInvalid", "text.ipynb"),
    ("run", "unknown", "ParametersInvalid", "did you mean name?"),
    ("run", "ill-typed", "ParametersInvalid", "expected int, got str"),
    ("run", "outside", "InvalidSpec", "spec.notebook: '../hello.ipynb' leaves the source"),
    ("run", "no-papermill", "RunnerMissing", "papermill"),
)


@dataclass(frozen=True)
class Broken:
    """A namespace with everything wrong in it, and the repository of its one sound Project."""

    team: Team
    repository: Repository


@pytest.fixture(scope="module")
def broken(lab: Team, new_repository: Callable[[str], Repository]) -> Broken:
    repository = new_repository(f"{lab.namespace}-2.git")
    files = {"hello.ipynb": HELLO, "text.ipynb": "not JSON", "Dockerfile": WITHOUT_PYTHON}
    commit = repository.commit(files, "Begin")
    lab.apply(project("sound", repository=repository.name))
    lab.await_image(commit, project="sound")
    mounted = {
        "volumes": [{"name": "notebooks", "configMap": {"name": "notebooks"}}],
        "volumeMounts": [{"name": "notebooks", "mountPath": "/notebooks"}],
    }
    lab.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "notebooks"},
            "data": {"hello.ipynb": HELLO},
        },
        project("no-server", url=NEVER_THERE),
        project("no-repository", repository=f"{lab.namespace}-later.git"),
        project("no-ref", repository=repository.name, ref="release"),
        project("no-path", repository=repository.name, path="nothing/here"),
        project("escape", repository=repository.name, path="../etc"),
        project("plain", repository=repository.name, runtimes=PLAIN_PYTHON),
        workflow("no-project", project="later", notebook="hello.ipynb"),
        workflow("missing", project="sound"),
        workflow("no-notebook", project="sound", notebook="text.ipynb"),
        workflow("unknown", project="sound", notebook="hello.ipynb", parameters={"nmae": "x"}),
        workflow("ill-typed", project="sound", notebook="hello.ipynb", parameters={"count": "x"}),
        run("of-no-project", "no-project"),
        run("of-no-workflow", "nobody"),
        run("missing", "missing"),
        run("no-notebook", "no-notebook"),
        run("unknown", "unknown"),
        run("ill-typed", "ill-typed"),
        project("no-python", repository=repository.name, runtimes=NO_PYTHON),
        inline_run("outside", "../hello.ipynb", project="sound"),
        inline_run("no-python", "hello.ipynb", project="no-python"),
        inline_run("no-papermill", "/notebooks/hello.ipynb", project="plain", **mounted),
    )
    return Broken(lab, repository)


@pytest.mark.parametrize(("kind", "name", "reason", "words"), EXPECTED)
def test_it_is_told_within_half_a_minute(
    broken: Broken, kind: str, name: str, reason: str, words: str
) -> None:
    found = broken.team.await_reason(kind, name, reason, seconds=READABLE_WITHIN + 15)
    told = condition(found)
    assert words in told["message"]
    assert "\n" not in told["message"]
    assert told["status"] != "True"
    took = seconds_between(found["metadata"]["creationTimestamp"], told["lastTransitionTime"])
    assert took <= READABLE_WITHIN


def test_an_image_without_python_is_told(broken: Broken) -> None:
    ended = broken.team.await_end("no-python")
    assert condition(ended)["reason"] == "RunnerMissing"
    assert "the image has no python" in condition(ended)["message"]


def test_everything_else_goes_on(broken: Broken) -> None:
    broken.team.apply(run("unconcerned", "hello", parameters={"name": "world"}))
    done = broken.team.await_success("unconcerned")
    assert "hello world" in printed(broken.team.read_notebook(done))


def test_it_recovers_once_mended(
    broken: Broken, new_repository: Callable[[str], Repository]
) -> None:
    team, repository = broken.team, broken.repository
    [sound] = team.get("project", "sound")["status"]["runtimes"]
    # Mended elsewhere: nothing here is touched.
    new_repository(f"{team.namespace}-later.git").commit({"hello.ipynb": HELLO}, "Begin")
    repository.commit(
        {"missing.ipynb": HELLO, "text.ipynb": notebook("1 + 1"), "nothing/here/a.txt": "here"}
    )
    team.apply(
        project("later", repository=repository.name),
        project("no-server", url=repository_url(repository.name)),
        project("no-ref", repository=repository.name, ref="main"),
        project("escape", repository=repository.name, path="."),
        workflow("unknown", project="sound", notebook="hello.ipynb", parameters={"name": "x"}),
        workflow("ill-typed", project="sound", notebook="hello.ipynb", parameters={"count": 2}),
        project(
            "plain",
            repository=repository.name,
            runtimes=[{"name": "plain", "image": sound["image"]}],
        ),
    )
    for kind, name, _, _ in EXPECTED:
        if kind != "run":
            team.await_reason(kind, name, "Ready")
    team.await_reason("project", "plain", "Ready")
    team.apply(
        inline_run("with-papermill", "hello.ipynb", project="plain"),
        run("found", "missing"),
        run("typed", "ill-typed"),
    )
    for name in ("of-no-project", "with-papermill", "found", "typed"):
        team.await_success(name)


def test_projects_of_the_same_name_do_not_meet(
    new_team: Callable[..., Team], new_repository: Callable[[str], Repository]
) -> None:
    teams = [new_team(), new_team()]
    for number, team in enumerate(teams):
        repository = new_repository(f"{team.namespace}.git")
        repository.commit({"who.ipynb": notebook(f"print('I am {number}')")}, "Begin")
        team.apply(project(repository=repository.name), inline_run("who", "who.ipynb"))
    ended = [team.await_success("who") for team in teams]
    images = {done["status"]["snapshot"]["image"] for done in ended}
    assert len(images) == 2
    for number, (team, done) in enumerate(zip(teams, ended, strict=True)):
        assert f"I am {number}" in printed(team.read_notebook(done))
        assert f"s3://labfunctions/{team.namespace}/" in done["status"]["outputs"]["notebook"]


INJECTION = 'x"\nRUN touch /injected\n# '


@pytest.mark.parametrize(
    "change",
    [
        {"git": {"ref": INJECTION}},
        {"git": {"path": INJECTION}},
        {"git": {"url": f"http://example.org/{INJECTION}"}},
        *(
            {"runtime": {field: INJECTION}}
            for field in ("name", "image", "dockerfile", "baseImage", "python", "requirements")
        ),
        {"runtime": {"packages": [INJECTION]}},
        {"runtime": {"buildPackages": ["vim; touch /injected"]}},
        {"runtime": {"env": {INJECTION: "x"}}},
        {"runtime": {"env": {"A": INJECTION}}},
        {"runtime": {"gpu": {"cuda": INJECTION}, "template": "gpu"}},
    ],
    ids=str,
)
def test_nothing_gets_into_a_dockerfile(
    broken: Broken, change: dict[str, dict[str, object]]
) -> None:
    """Refused by the API server, or by the operator with the field's name; never built."""
    team = broken.team
    runtimes = [{"name": "default", **change.get("runtime", {})}]
    manifest = project(
        "inject", repository=broken.repository.name, runtimes=runtimes, **change.get("git", {})
    )
    field = next(iter(next(iter(change.values()))))
    if refusal := refused_by_the_api(team, manifest):
        assert f".{field}" in refusal
        return
    try:
        refused = team.await_reason("project", "inject", "InvalidSpec", seconds=READABLE_WITHIN)
        assert field in condition(refused)["message"]
        assert team.builds("inject") == []
    finally:
        team.kubectl("delete", "project", "inject")


def refused_by_the_api(team: Team, manifest: Object) -> str:
    try:
        team.apply(manifest)
    except ClusterError as error:
        return str(error)
    return ""
