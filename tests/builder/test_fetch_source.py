"""fetch-source against a real git server: exact trees, credentials, and what people read."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fetch_source
import pytest

PASSWORD = "s3cret-t0ken/with:odd%chars"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    folder = tmp_path / "git-secret"
    folder.mkdir()
    return folder


@pytest.fixture
def fetch(
    git_server: Any, repository: Any, workspace: Path, secret: Path
) -> Callable[..., list[str]]:
    """Fetch, and return the files of the context."""

    def run(**changes: str) -> list[str]:
        environ = {
            "PATH": os.environ["PATH"],
            "GIT_URL": git_server.url,
            "GIT_REF": "main",
            "GIT_COMMIT": repository.last,
            "SOURCE_PATH": ".",
            "DOCKERFILE": "FROM scratch\n",
        }
        fetch_source.fetch_source(environ | changes, workspace=workspace, secret=secret)
        context = workspace / "context"
        return sorted(str(p.relative_to(context)) for p in context.rglob("*") if not p.is_dir())

    return run


def test_the_commit_asked_for_and_no_git_folder(
    fetch: Callable[..., list[str]], repository: Any, workspace: Path
) -> None:
    assert fetch(GIT_COMMIT=repository.first) == ["README.md", "app/code.py"]
    assert (workspace / "context" / "app" / "code.py").read_text() == "print(1)\n"
    assert (workspace / "dockerfile" / "Dockerfile").read_text() == "FROM scratch\n"
    assert sorted(p.name for p in workspace.iterdir()) == ["context", "dockerfile"]


def test_only_the_folder_asked_for(fetch: Callable[..., list[str]]) -> None:
    assert fetch(SOURCE_PATH="app") == ["code.py"]


def test_a_restarted_container_starts_anew(
    fetch: Callable[..., list[str]], workspace: Path
) -> None:
    fetch()
    (workspace / "context" / "left-over").touch()

    assert fetch() == ["README.md", "app/code.py"]


def test_a_server_that_gives_no_single_commits(
    fetch: Callable[..., list[str]],
    git_server: Any,
    repository: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    git_server.single_commits = False

    assert fetch(GIT_COMMIT=repository.first, SOURCE_PATH="app") == ["code.py"]
    assert "history of main" in capsys.readouterr().out


def test_such_a_server_when_the_ref_is_gone(
    fetch: Callable[..., list[str]], git_server: Any, repository: Any
) -> None:
    git_server.single_commits = False

    assert fetch(GIT_COMMIT=repository.first, GIT_REF="deleted", SOURCE_PATH="app") == ["code.py"]


def test_a_commit_that_was_never_there(fetch: Callable[..., list[str]]) -> None:
    with pytest.raises(fetch_source.SourceError, match=r"not in the repository any more"):
        fetch(GIT_COMMIT="1" * 40)


def test_every_file_of_the_tree_counts(fetch: Callable[..., list[str]], repository: Any) -> None:
    (repository.work / ".gitattributes").write_text("README.md export-ignore\n")
    commit = repository.commit("attributes")

    assert fetch(GIT_COMMIT=commit) == [".gitattributes", "README.md", "app/code.py"]


def test_the_group_bit_of_the_volume_does_not_spread(
    fetch: Callable[..., list[str]], workspace: Path
) -> None:
    workspace.chmod(0o2777)
    fetch()

    assert stat.S_IMODE((workspace / "context" / "app").stat().st_mode) == 0o755


def test_links_out_of_the_source_stay_links(
    fetch: Callable[..., list[str]], repository: Any, workspace: Path
) -> None:
    (repository.work / "app" / "passwd").symlink_to("/etc/passwd")
    commit = repository.commit("link")
    fetch(GIT_COMMIT=commit, SOURCE_PATH="app")

    assert os.readlink(workspace / "context" / "passwd") == "/etc/passwd"


def test_a_path_through_a_link_is_refused(fetch: Callable[..., list[str]], repository: Any) -> None:
    (repository.work / "out").symlink_to("../..")
    commit = repository.commit("link")

    with pytest.raises(fetch_source.SourceError, match="no folder 'out'"):
        fetch(GIT_COMMIT=commit, SOURCE_PATH="out")


def test_submodules_stay_empty(
    fetch: Callable[..., list[str]], repository: Any, workspace: Path
) -> None:
    # A repository inside another is added as a link to its commit.
    repository.git("clone", "--quiet", str(repository.bare), "module")
    commit = repository.commit("module")
    fetch(GIT_COMMIT=commit)

    assert list((workspace / "context" / "module").iterdir()) == []


@pytest.mark.parametrize("path", ["nowhere", "README.md"])
def test_a_path_that_is_no_folder(fetch: Callable[..., list[str]], path: str) -> None:
    with pytest.raises(fetch_source.SourceError, match=f"no folder '{path}' in commit"):
        fetch(SOURCE_PATH=path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SOURCE_PATH", "../other", "leaves the source"),
        ("SOURCE_PATH", "app/../../other", "leaves the source"),
        ("SOURCE_PATH", "/etc", "leaves the source"),
        ("GIT_COMMIT", "main", "not a full commit id"),
        ("GIT_COMMIT", "--upload-pack=touch /tmp/x", "not a full commit id"),
        ("GIT_REF", "--upload-pack=touch /tmp/x", "not the name of a branch"),
        ("GIT_REF", "+refs/*:refs/*", "not the name of a branch"),
        ("GIT_URL", "file:///srv/repository", "must begin with one of"),
        ("GIT_URL", "/srv/repository", "must begin with one of"),
        ("GIT_URL", "ext::sh -c touch% /tmp/x", "must begin with one of"),
        ("GIT_URL", "--upload-pack=touch", "must begin with one of"),
        ("GIT_URL", "git://git.example.com/demo", "must begin with one of"),
        ("GIT_URL", "https://ada:pass@git.example.com/demo", "holds a password"),
    ],
)
def test_requests_that_are_refused_before_git_runs(
    fetch: Callable[..., list[str]], workspace: Path, name: str, value: str, message: str
) -> None:
    with pytest.raises(fetch_source.SourceError, match=message) as refusal:
        fetch(**{name: value})

    assert "pass@" not in str(refusal.value)
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    ("keys", "login"),
    [
        ({"username": "ada", "password": PASSWORD}, ("ada", PASSWORD)),
        ({"token": PASSWORD}, ("git", PASSWORD)),
        ({"username": "ada\n", "password": f"{PASSWORD}\n"}, ("ada", PASSWORD)),
    ],
)
def test_login(
    fetch: Callable[..., list[str]],
    git_server: Any,
    secret: Path,
    keys: dict[str, str],
    login: tuple[str, str],
) -> None:
    git_server.login = login
    for name, value in keys.items():
        (secret / name).write_text(value)

    assert fetch(SOURCE_PATH="app") == ["code.py"]


def test_a_missing_login_is_said(fetch: Callable[..., list[str]], git_server: Any) -> None:
    git_server.login = ("ada", PASSWORD)

    with pytest.raises(fetch_source.SourceError, match="asks for credentials and none are given"):
        fetch()


def test_a_wrong_login_is_said_and_not_shown(
    fetch: Callable[..., list[str]], git_server: Any, secret: Path
) -> None:
    git_server.login = ("ada", "another")
    (secret / "token").write_text(PASSWORD)

    with pytest.raises(fetch_source.SourceError, match="refused the credentials") as failure:
        fetch()
    assert PASSWORD not in str(failure.value)


def test_a_login_of_several_lines_cannot_add_headers(
    fetch: Callable[..., list[str]], secret: Path
) -> None:
    (secret / "token").write_text("one\ntwo")

    with pytest.raises(fetch_source.SourceError, match="more than one line"):
        fetch()


def test_a_redirect_to_another_host_gets_no_login(
    fetch: Callable[..., list[str]], git_server: Any, secret: Path
) -> None:
    (secret / "token").write_text(PASSWORD)
    git_server.login = ("git", PASSWORD)
    # The same server by another name is another host to git.
    elsewhere = git_server.url.replace("127.0.0.1", "localhost")

    with pytest.raises(fetch_source.SourceError, match="asks for credentials"):
        fetch(GIT_URL=_redirecting(git_server, elsewhere))
    assert git_server.authorizations == []


def _redirecting(git_server: Any, elsewhere: str) -> str:
    """Return a URL whose requests are sent on to `elsewhere`."""
    host = elsewhere.removesuffix("/team/demo.git")
    git_server.redirects["/team/moved.git"] = f"{host}/team/demo.git"
    return str(git_server.url).replace("demo.git", "moved.git")


def test_the_login_is_in_no_argument_and_no_output(
    fetch: Callable[..., list[str]],
    git_server: Any,
    secret: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    git_server.login = ("ada", PASSWORD)
    (secret / "username").write_text("ada")
    (secret / "password").write_text(PASSWORD)
    log, spy = tmp_path / "arguments", tmp_path / "bin" / "git"
    spy.parent.mkdir()
    real_path = os.environ["PATH"]
    spy.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {log}\nPATH={real_path} exec git "$@"\n')
    spy.chmod(0o755)

    fetch(PATH=f"{spy.parent}:{real_path}")

    assert "fetch" in log.read_text().splitlines()
    assert PASSWORD not in log.read_text()
    assert PASSWORD not in "".join(capfd.readouterr())


def test_an_unreachable_server_is_said(fetch: Callable[..., list[str]]) -> None:
    with pytest.raises(fetch_source.SourceError, match=r"cannot fetch http://127\.0\.0\.1:1/"):
        fetch(GIT_URL="http://127.0.0.1:1/demo.git")


def test_ssh_key_is_private_complete_and_bound_to_known_hosts(secret: Path, tmp_path: Path) -> None:
    (secret / "ssh-privatekey").write_text("KEY\r\nEND")
    (secret / "known_hosts").write_text("git.example.com ssh-ed25519 AAAA\n")

    granted = fetch_source.access(
        "git@git.example.com:team/demo.git", secret=secret, scratch=tmp_path, environ={}
    )
    command = granted.env["GIT_SSH_COMMAND"]

    key = tmp_path / "identity"
    assert key.read_text() == "KEY\nEND\n"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert f"-i {key} " in command
    assert "-o IdentitiesOnly=yes" in command
    assert "-o StrictHostKeyChecking=yes" in command
    assert f"-o UserKnownHostsFile={secret / 'known_hosts'}" in command


def test_ssh_key_without_known_hosts_is_refused(
    fetch: Callable[..., list[str]], secret: Path
) -> None:
    (secret / "identity").write_text("KEY")

    with pytest.raises(fetch_source.SourceError, match="no known_hosts"):
        fetch(GIT_URL="ssh://git@git.example.com/demo.git")


def test_git_of_the_environment_is_not_inherited(secret: Path, tmp_path: Path) -> None:
    inherited = {"GIT_SSL_NO_VERIFY": "1", "SSH_AUTH_SOCK": "/x", "HTTPS_PROXY": "http://proxy"}

    env = fetch_source.access(
        "https://git.example.com/demo", secret=secret, scratch=tmp_path, environ=inherited
    ).env

    assert "GIT_SSL_NO_VERIFY" not in env
    assert "SSH_AUTH_SOCK" not in env
    assert env["HTTPS_PROXY"] == "http://proxy"


@pytest.mark.parametrize(
    ("output", "meaning"),
    [
        ("git@h: Permission denied (publickey).\nfatal: Could not read", "refused the ssh key"),
        ("Host key verification failed.\nfatal: Could not read", "not the one in known_hosts"),
        ('Load key "/tmp/x": error in libcrypto\nfatal: x', "not a private key"),
        ("fatal: unable to access: Could not resolve host: h", "does not resolve"),
        ("fatal: repository 'https://h/x/' not found", "does not exist"),
        ("fatal: unable to access: server certificate verification failed", "not trusted"),
        ("fatal: the remote end hung up", r"cannot fetch URL: fatal: the remote end hung up"),
        ("", "printed nothing"),
    ],
)
def test_failures_of_git_in_words(output: str, meaning: str) -> None:
    assert meaning in fetch_source.explain(output, url="URL")


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    def start(url: str) -> subprocess.Popen[str]:
        code = f"import fetch_source, pathlib; f = pathlib.Path({str(tmp_path)!r})\n"
        code += "fetch_source.main(log=f / 'log', workspace=f)"
        environ = {"GIT_URL": url, "GIT_REF": "main", "GIT_COMMIT": "1" * 40, "DOCKERFILE": ""}
        return subprocess.Popen(
            [sys.executable, "-B", "-c", code],
            cwd=Path(fetch_source.__file__).parent,
            env={"PATH": os.environ["PATH"]} | environ,
            stdout=subprocess.PIPE,
            text=True,
        )

    return start


def test_the_failure_is_the_termination_message(
    script: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    with script("file:///x") as process:
        assert process.wait() == 1

    message = json.loads((tmp_path / "log").read_text())
    assert message == {"error": "the git url must begin with one of https, http, ssh"}


def test_sigterm_stops_a_fetch_that_hangs(
    script: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with script(f"http://127.0.0.1:{port}/demo.git") as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGTERM)
                assert process.wait(3) == 1

    message = json.loads((tmp_path / "log").read_text())
    assert message == {"error": "fetching the source was stopped"}
