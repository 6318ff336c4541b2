"""Reading projects from a real git server."""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from labfunctions_operator.errors import Transient
from labfunctions_operator.providers import git_cache, git_command
from labfunctions_operator.providers.git import (
    SourceError,
)
from tests.providers.provider_servers import (
    Repository,
    read,
    run_git,
)


def notebook(parameters: str = "n: int = 3  # how many\n", **metadata: Any) -> str:
    cell = {
        "cell_type": "code",
        "id": "p1",
        "metadata": {"tags": ["parameters"]},
        "source": parameters,
        "outputs": [],
        "execution_count": None,
    }
    kernel = {"kernelspec": {"name": "python3", "language": "python"}}
    document = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {**kernel, **metadata},
        "cells": [cell],
    }
    return json.dumps(document)


class TestReadSource:
    def test_the_folder_at_the_commit(self, repository: Repository, tmp_path: Path) -> None:
        commit = repository.commit(
            {
                "README.md": "outside",
                "wine/requirements.txt": "scikit-learn\n",
                "wine/pyproject.toml": "[project]\n",
                "wine/docker/Dockerfile": "FROM scratch\n",
                "wine/analysis.ipynb": notebook(),
                "wine/deep/other.ipynb": notebook("rate = 0.5", kernelspec={"language": "R"}),
                "wine/.ipynb_checkpoints/analysis.ipynb": "not read",
            },
            message="Ünïcode subject \x1b[31m" + "x" * 300 + "\n\nBody",
        )

        found = read(
            repository.url,
            commit,
            tmp_path,
            path="./wine/",
            wanted=("docker/Dockerfile", "none.txt"),
        )

        assert found.commit == commit
        assert found.author == "Ada Lovelace"
        assert found.message.startswith("Ünïcode subject  [31mxxx")
        assert len(found.message) == 200
        assert abs(found.committed_at.timestamp() - time.time()) < 60
        assert found.tree == repository.git("rev-parse", "HEAD:wine")
        assert found.files == {
            "requirements.txt": "scikit-learn\n",
            "pyproject.toml": "[project]\n",
            "docker/Dockerfile": "FROM scratch\n",
        }
        assert set(found.notebooks) == {"analysis.ipynb", "deep/other.ipynb"}
        analysis = found.notebooks["analysis.ipynb"]
        assert analysis.error is None
        assert analysis.language == "python"
        assert [tuple(d) for d in analysis.declared or ()] == [("n", "int", "3", "how many")]
        assert found.notebooks["deep/other.ipynb"].language == "r"
        assert found.notebooks["deep/other.ipynb"].declared is None

    def test_a_commit_outside_of_the_folder_keeps_its_tree(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        first = repository.commit({"wine/a": "1", "README.md": "1"})
        outside = repository.commit({"README.md": "2"})
        inside = repository.commit({"wine/a": "2"})

        trees = [
            read(repository.url, commit, tmp_path, path="wine").tree
            for commit in (first, outside, inside)
        ]

        assert trees[0] == trees[1] != trees[2]

    def test_an_older_commit_than_the_tip(self, repository: Repository, tmp_path: Path) -> None:
        old = repository.commit({"requirements.txt": "old"})
        repository.commit({"requirements.txt": "new"})

        assert read(repository.url, old, tmp_path).files["requirements.txt"] == "old"

    def test_a_known_commit_needs_no_server(self, repository: Repository, tmp_path: Path) -> None:
        commit = repository.commit({"requirements.txt": "x"})
        read(repository.url, commit, tmp_path)
        repository.bare.rename(repository.bare.with_suffix(".gone"))

        assert read(repository.url, commit, tmp_path).files["requirements.txt"] == "x"

    def test_a_server_that_gives_only_tips_is_asked_for_the_ref(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = tuple(x for x in git_command._CONFIG if not x.startswith("protocol."))
        monkeypatch.setattr(git_command, "_CONFIG", (*config, "protocol.version=0"))
        old = repository.commit({"requirements.txt": "old"})
        repository.git("tag", "-a", "v1", "-m", "Tagged")
        tip = repository.commit({"requirements.txt": "tip"})
        repository.git("push", "-q", "origin", "v1")

        assert read(repository.url, tip, tmp_path).files["requirements.txt"] == "tip"
        tagged = read(repository.url, old, tmp_path, ref="v1")
        assert tagged.files["requirements.txt"] == "old"

    def test_a_commit_that_the_ref_has_left_behind_on_such_a_server(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = tuple(x for x in git_command._CONFIG if not x.startswith("protocol."))
        monkeypatch.setattr(git_command, "_CONFIG", (*config, "protocol.version=0"))
        old = repository.commit({"a": "old"})
        repository.commit({"a": "new"})

        with pytest.raises(SourceError, match="it has moved on") as caught:
            read(repository.url, old, tmp_path)

        assert caught.value.reason == "RefNotFound"

    def test_a_commit_that_never_was(self, repository: Repository, tmp_path: Path) -> None:
        repository.commit({"a": "1"})

        with pytest.raises(SourceError, match="no longer offers the commit") as caught:
            read(repository.url, "d" * 40, tmp_path, ref="d" * 40)

        assert caught.value.reason == "RefNotFound"

    def test_an_id_that_is_not_a_commit(self, repository: Repository, tmp_path: Path) -> None:
        repository.commit({"a": "1"})
        tree = repository.git("rev-parse", "HEAD^{tree}")

        with pytest.raises(SourceError, match="is a tree, not a commit"):
            read(repository.url, tree, tmp_path, ref=tree)

    @pytest.mark.parametrize("path", ["../other", "/etc", "a/../../b", "a/.."])
    def test_paths_that_lead_out(self, path: str, tmp_path: Path) -> None:
        with pytest.raises(SourceError) as caught:
            read("https://nowhere.invalid/a.git", "d" * 40, tmp_path, path=path)

        assert caught.value.reason == "PathEscapes"

    def test_a_wanted_file_that_leads_out(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError) as caught:
            read("https://nowhere.invalid/a.git", "d" * 40, tmp_path, wanted=("../Dockerfile",))

        assert caught.value.reason == "PathEscapes"

    def test_a_path_that_is_missing_a_file_or_a_link(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        (repository.work / "link").symlink_to("/etc")
        commit = repository.commit({"file": "x"})

        for path, message in (
            ("none", "does not exist in the commit"),
            ("file", "is not a plain folder"),
            ("link", "is not a plain folder"),
            ("link/passwd", "is not a plain folder"),
        ):
            with pytest.raises(SourceError, match=message) as caught:
                read(repository.url, commit, tmp_path, path=path)
            assert caught.value.reason == "PathNotFound"

    def test_links_are_not_followed(self, repository: Repository, tmp_path: Path) -> None:
        (repository.work / "requirements.txt").symlink_to("/etc/passwd")
        (repository.work / "a.ipynb").symlink_to("/etc/passwd")
        commit = repository.commit({"b": "x"})

        found = read(repository.url, commit, tmp_path)

        assert found.files == {}
        assert found.notebooks == {}

    def test_a_file_too_large_and_one_that_is_no_text(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        large = repository.commit({"requirements.txt": "#" * (4 * 2**20 + 1)})
        binary = repository.commit({"requirements.txt": b"\xff\xfe"})

        with pytest.raises(SourceError, match=r"requirements\.txt is larger than 4 MiB") as caught:
            read(repository.url, large, tmp_path)
        assert caught.value.reason == "SourceTooLarge"
        with pytest.raises(SourceError, match="is not a text file in UTF-8"):
            read(repository.url, binary, tmp_path)

    def test_too_many_notebooks(self, repository: Repository, tmp_path: Path) -> None:
        commit = repository.commit({f"n{i}.ipynb": "{}" for i in range(201)})

        with pytest.raises(SourceError, match="more than 200 notebooks") as caught:
            read(repository.url, commit, tmp_path)

        assert caught.value.reason == "SourceTooLarge"

    def test_a_repository_too_large(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(git_cache, "FETCH_LIMIT", 2**20)
        commit = repository.commit({"data.bin": os.urandom(4 * 2**20)})

        with pytest.raises(SourceError, match="larger than 1 MiB") as caught:
            read(repository.url, commit, tmp_path)
        assert caught.value.reason == "SourceTooLarge"

        monkeypatch.undo()
        assert read(repository.url, commit, tmp_path).commit == commit

    def test_a_full_cache_starts_anew(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(git_cache, "_KEPT_PACKS", 2)
        commits = [repository.commit({"requirements.txt": str(i)}) for i in range(6)]

        for number, commit in enumerate(commits):
            assert read(repository.url, commit, tmp_path).files["requirements.txt"] == str(number)

        assert len(list(tmp_path.glob("git/*/objects/pack/*.pack"))) <= 3

    def test_a_clone_nobody_used_for_a_day_goes(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        commit = repository.commit({"a": "1"})
        unused = tmp_path / "git" / "unused"
        unused.mkdir(parents=True)
        os.utime(unused, (0, 0))

        read(repository.url, commit, tmp_path)

        assert not unused.exists()

    def test_a_fetch_that_was_cut_off_is_repaired(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        first = repository.commit({"a": "1"})
        read(repository.url, first, tmp_path)
        (clone,) = (tmp_path / "git").iterdir()
        (clone / "labfunctions-fetching").touch()
        (clone / "shallow.lock").touch()
        second = repository.commit({"a": "2"})

        assert read(repository.url, second, tmp_path).commit == second

    def test_many_at_once(self, repository: Repository, tmp_path: Path) -> None:
        commits = [repository.commit({"requirements.txt": str(i)}) for i in range(4)]

        with ThreadPoolExecutor(8) as pool:
            found = list(
                pool.map(partial(read, repository.url, cache=tmp_path), commits * 3, timeout=20)
            )

        assert [s.files["requirements.txt"] for s in found] == ["0", "1", "2", "3"] * 3

    def test_a_clone_in_use_makes_others_wait_no_longer_than_they_may(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        commit = repository.commit({"a": "1"})
        key = git_cache.cache_key(repository.url, None)
        with git_cache._locks.setdefault(key, threading.Lock()), pytest.raises(Transient):
            read(repository.url, commit, tmp_path, timeout=0.2)

    def test_a_disk_that_cannot_be_written(self, repository: Repository, tmp_path: Path) -> None:
        commit = repository.commit({"a": "1"})
        (tmp_path / "cache").write_text("a file where the folder should be")

        with pytest.raises(Transient, match="local disk"):
            read(repository.url, commit, tmp_path / "cache")

    def test_a_commit_with_nonsense_in_its_header(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        tree = run_git("mktree", cwd=repository.work)
        text = f"tree {tree}\nauthor nonsense\ncommitter x <y> 99999999999999 +9999\n\n\xff\n"
        file = repository.work.parent / "commit"
        file.write_bytes(text.encode("latin-1"))
        commit = repository.git("hash-object", "-t", "commit", "--literally", "-w", str(file))
        repository.git("push", "-q", "origin", f"{commit}:refs/heads/odd")

        found = read(repository.url, commit, tmp_path, ref="odd")

        assert found.tree == tree
