"""When an image is built anew, from what, and what a failed build leaves in place."""

import re
import secrets
from collections.abc import Callable

import pytest

from .cluster import Repository, Team, seconds_between
from .objects import (
    HELLO,
    WAIT,
    Object,
    code,
    condition,
    inline_run,
    notebook,
    printed,
    project,
    run,
)

VERSION = "print(open('version.txt').read())"
LABEL = code("label = 'none'", "parameters")
FILES = {
    "lab/gate.ipynb": notebook(VERSION, WAIT, VERSION),
    "lab/show.ipynb": notebook(LABEL, VERSION, "print('labelled', label)"),
    "lab/version.txt": "version one",
    "README.md": "Not a part of the image.\n",
}


@pytest.fixture
def repository(team: Team, new_repository: Callable[[str], Repository]) -> Repository:
    return new_repository(f"{team.namespace}.git")


def duration(job: Object) -> float:
    return seconds_between(job["metadata"]["creationTimestamp"], job["status"]["completionTime"])


def build_log(team: Team, job: Object) -> str:
    return team.kubectl("logs", f"job/{job['metadata']['name']}", "-c", "build")


def cached_steps(log: str) -> dict[str, bool]:
    """Return each step of a build, by its command, and whether its layer was there before."""
    steps = re.findall(r"^#(\d+) (\[\S.*\] .+)$", log, re.MULTILINE)
    return {text: f"#{number} CACHED" in log.splitlines() for number, text in steps}


def test_a_commit_under_path_builds_anew_and_reuses_layers(
    team: Team, repository: Repository
) -> None:
    # A comment of its own makes the first build install everything.
    files = {**FILES, "lab/requirements.txt": f"# {secrets.token_hex(8)}\ntabulate==0.9.0\n"}
    runtimes = [{"name": "default", "packages": ["file"]}]
    commit = repository.commit(files, "One")
    team.apply(project(repository=repository.name, path="lab", runtimes=runtimes))
    first = team.await_image(commit)
    team.apply(
        inline_run("live", "gate.ipynb"),
        inline_run("before", "show.ipynb", parameters={"label": "first"}),
    )
    team.await_cell("live", "version one")
    before = team.await_success("before")

    commit = repository.commit({"lab/version.txt": "version two"}, "Two")
    second = team.await_image(commit)
    assert first["image"] != second["image"]
    assert second["commit"] == commit
    team.apply(inline_run("next", "show.ipynb"), run("again", **{"from": "before"}))
    after, again = team.await_success("next"), team.await_success("again")
    assert after["status"]["snapshot"]["image"] == second["image"]
    assert "version two" in printed(team.read_notebook(after))

    # The branch has moved, and another Run's words still mean what they meant.
    assert again["status"]["snapshot"] == before["status"]["snapshot"]
    assert again["status"]["snapshot"]["commit"] != commit
    assert printed(team.read_notebook(again)) == "version one\nlabelled first\n"
    [container] = team.pod("again")["spec"]["containers"]
    assert container["image"] == first["image"]

    team.let_go("live")
    live = team.await_success("live")
    assert live["status"]["snapshot"]["image"] == first["image"]
    [container] = team.pod("live")["spec"]["containers"]
    assert container["image"] == first["image"]
    assert printed(team.read_notebook(live)).count("version one") == 2

    cold, warm = team.builds()
    steps = cached_steps(build_log(team, warm))
    installing = {text: hit for text, hit in steps.items() if "apt-get" in text or "pip" in text}
    assert len(installing) == 2, steps
    assert all(installing.values()), steps
    assert not cached_steps(build_log(team, cold))[next(s for s in installing if "pip" in s)]
    team.cluster.say(
        f"      first build {duration(cold):.0f} s, after a change of code {duration(warm):.0f} s"
    )
    assert duration(warm) < duration(cold)


def test_the_same_inputs_are_not_built_twice(team: Team, repository: Repository) -> None:
    commit = repository.commit(FILES, "One")
    team.apply(project(repository=repository.name, path="lab"))
    first = team.await_image(commit)
    [build] = team.builds()

    outside = repository.commit({"README.md": "Still not.\n"}, "Outside of path")
    assert team.await_image(outside) == first
    assert [job["metadata"]["uid"] for job in team.builds()] == [build["metadata"]["uid"]]

    other = team.await_image(repository.commit({"lab/version.txt": "version two"}, "Two"))
    assert other["image"] != first["image"]
    reverted = team.await_image(repository.commit({"lab/version.txt": "version one"}, "Back"))
    assert reverted["image"] == first["image"]
    assert len(team.builds()) == 2


def test_a_project_has_several_runtimes(lab: Team, team: Team, repository: Repository) -> None:
    """One is built, one is the ready-made image of somebody else."""
    ready_made = lab.get("project", "lab")["status"]["runtimes"][0]["image"]
    runtimes = [{"name": "built"}, {"name": "ready", "image": ready_made}]
    commit = repository.commit({"only-here.ipynb": notebook("print('built here')")})
    team.apply(project(repository=repository.name, runtimes=runtimes))
    team.await_image(commit)
    team.apply(
        inline_run("built", "only-here.ipynb"),
        inline_run("ready", "hello.ipynb", runtime="ready", parameters={"name": "other"}),
    )
    built, ready = team.await_success("built"), team.await_success("ready")
    assert "built here" in printed(team.read_notebook(built))
    assert "hello other" in printed(team.read_notebook(ready))
    assert ready["status"]["snapshot"]["image"] == ready_made
    assert len(team.builds()) == 1


def test_requirements_that_do_not_resolve(team: Team, repository: Repository) -> None:
    good = team_image(team, repository, {"hello.ipynb": HELLO})
    bad = repository.commit({"requirements.txt": "tabulate==0.0.0.1\n"}, "No such version")
    failed = team.await_reason("project", "lab", "ImageBuildFailed")
    message = condition(failed)["message"]
    assert "no matching distribution found for tabulate==0.0.0.1" in message
    assert "the last good image stays in use" in message
    assert failed["status"]["source"]["commit"] == bad
    job = team.builds()[-1]
    [end] = [c for c in job["status"]["conditions"] if c["type"] == "Failed"]
    told = condition(failed)["lastTransitionTime"]
    assert seconds_between(end["lastTransitionTime"], told) <= 30
    assert "tabulate==0.0.0.1" in team.kubectl("get", "lfp")

    assert failed["status"]["runtimes"][0]["image"] == good["image"]
    team.apply(inline_run("meanwhile", "hello.ipynb"))
    assert team.await_success("meanwhile")["status"]["snapshot"]["image"] == good["image"]

    mended = repository.commit({"requirements.txt": "tabulate==0.9.0\n"}, "Mend")
    assert team.await_image(mended)["image"] != good["image"]
    team.await_reason("project", "lab", "Ready")


def team_image(team: Team, repository: Repository, files: dict[str, str]) -> Object:
    commit = repository.commit(files, "Begin")
    team.apply(project(repository=repository.name))
    return team.await_image(commit)
