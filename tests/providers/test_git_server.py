"""The demo's git server takes pushes from those who may; the operator reads the pushed."""

from pathlib import Path

import pytest

from dev.gitserver.credentials import Credentials
from dev.gitserver.push import PushError, push
from labfunctions_operator.providers.git import GitCredentials, read_source, resolve_ref
from tests.providers.provider_servers import HttpGit, run_git

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_examples_are_a_source(http_git: HttpGit, tmp_path: Path) -> None:
    url = f"{http_git.url}/examples.git"

    commit = push(url, "push-token", EXAMPLES, "First")

    assert resolve_ref(url, "main", None, timeout=5) == commit
    found = read_source(
        url,
        ref="main",
        commit=commit,
        path="wine",
        wanted=(),
        credentials=None,
        cache_dir=tmp_path,
        timeout=10,
    )
    assert "scikit-learn==" in found.files["requirements.txt"]
    assert {name: notebook.error for name, notebook in found.notebooks.items()} == {
        "analysis.ipynb": None,
        "broken.ipynb": None,
    }
    declared = found.notebooks["analysis.ipynb"].declared or ()
    assert [(p.name, p.type) for p in declared] == [
        ("n_estimators", "int"),
        ("test_size", "float"),
        ("seed", "int"),
    ]


def test_pushes_add_to_each_other_and_take_away(http_git: HttpGit, tmp_path: Path) -> None:
    url = f"{http_git.url}/growing.git"
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    first = push(url, "push-token", tmp_path, "First")
    again = push(url, "push-token", tmp_path, "Again")
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_text("2" * 3_000_000)
    second = push(url, "push-token", tmp_path, "Second")

    assert first == again != second
    bare = http_git.root / "growing.git"
    assert run_git("rev-list", "main", cwd=bare).split() == [second, first]
    assert run_git("ls-tree", "--name-only", "main", cwd=bare) == "b"


def test_nobody_else_may_push(http_git: HttpGit, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")

    with pytest.raises(PushError, match="Authentication failed"):
        push(f"{http_git.url}/theirs.git", "guess", tmp_path, "First")

    assert not (http_git.root / "theirs.git").exists()


def test_a_private_repository_is_read_by_its_token_and_pushed_by_the_other(
    http_git: HttpGit, tmp_path: Path
) -> None:
    http_git.read_tokens["private.git"] = "read-token"
    (tmp_path / "a").write_text("1")
    url = f"{http_git.url}/private.git"

    commit = push(url, "push-token", tmp_path, "First")

    reader = GitCredentials(username="git", password="read-token")
    assert resolve_ref(url, "main", reader, timeout=5) == commit
    with pytest.raises(PushError, match="Authentication failed"):
        push(url, "read-token", EXAMPLES, "Not allowed")


def test_generated_credentials_are_what_a_project_needs() -> None:
    made = Credentials.generate()

    assert Credentials.from_data(made.manifest()["stringData"]) == made
    assert made.push_token != made.read_token
    assert made.known_hosts.startswith("gitserver.labfunctions-demo.svc ssh-ed25519 ")
    assert made.ssh_key.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
