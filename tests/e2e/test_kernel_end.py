"""Notebooks whose kernel ends before they do: what had been saved is kept."""

from collections.abc import Callable

import pytest

from .cluster import Repository, Team
from .objects import Object, condition, inline_run, notebook, printed, project

DIES = notebook("print('before')", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "1")
GROWS = notebook(
    "print('before')",
    # In steps, so that the kernel's limit is met by the kernel and by nobody else.
    "kept = []\nfor _ in range(200):\n    kept.append(bytearray(b'x' * 10_000_000))",
    "print('after')",
)
# What is left without a word from the notebook: nothing of it can be saved any more.
TIDIES = notebook("print('before')", "import shutil\nshutil.rmtree('/labfunctions/out')", "1")


@pytest.fixture(scope="module")
def ended(
    new_team: Callable[..., Team], new_repository: Callable[[str], Repository]
) -> tuple[Team, dict[str, Object]]:
    """A team with a Run of each kind of end."""
    team = new_team()
    repository = new_repository(f"{team.namespace}.git")
    files = {"dies.ipynb": DIES, "grows.ipynb": GROWS, "tidies.ipynb": TIDIES}
    repository.commit(files, "Begin")
    limits = {"limits": {"memory": "200Mi"}}
    team.apply(
        project(repository=repository.name),
        inline_run("dies", "dies.ipynb"),
        inline_run("grows", "grows.ipynb", resources=limits),
        inline_run("tidies", "tidies.ipynb"),
    )
    return team, {name: team.await_end(name) for name in ("dies", "grows", "tidies")}


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("dies", "KernelDied", "SIGKILL"),
        ("grows", "OutOfMemory", "200Mi"),
    ],
)
def test_the_end_is_told_and_the_notebook_kept(
    ended: tuple[Team, dict[str, Object]], name: str, reason: str, words: str
) -> None:
    team, runs = ended
    run = runs[name]
    told = condition(run)
    assert told["reason"] == run["status"]["failure"]["reason"] == reason, told
    assert words in told["message"]
    assert run["status"]["failure"]["cell"]["index"] == 1
    assert run["status"]["progress"]["summary"] == "2/3"
    assert run["status"]["attempts"][0]["reason"] == reason
    kept = team.read_notebook(run)
    assert printed(kept) == "before\n"
    states = [cell["metadata"]["papermill"]["status"] for cell in kept["cells"][-3:]]
    assert states == ["completed", "failed", "pending"]
    assert b"before" in team.cluster.read_object(run["status"]["outputs"]["html"])


def test_a_notebook_that_takes_away_its_own_folder_is_told_so(
    ended: tuple[Team, dict[str, Object]],
) -> None:
    _, runs = ended
    told = condition(runs["tidies"])
    assert told["reason"] == "InternalError"
    assert "the notebook could not be saved: [Errno 2]" in told["message"]
