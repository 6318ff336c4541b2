"""Reaching real git servers, and failing to."""

import base64
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from labfunctions_operator.providers import git_command
from labfunctions_operator.providers.git import (
    GitCredentials,
    SourceError,
    resolve_ref,
)
from tests.providers.provider_servers import (
    HttpGit,
    HttpsGit,
    Repository,
    SshGit,
    free_port,
    read,
)


def login(password: str) -> GitCredentials:
    return GitCredentials.from_secret({"token": base64.b64encode(password.encode()).decode()})


class TestResolveRef:
    def test_a_branch_is_its_newest_commit(self, repository: Repository) -> None:
        repository.commit({"a": "1"})
        newest = repository.commit({"a": "2"})

        assert resolve_ref(repository.url, "main", None, timeout=5) == newest

    def test_a_branch_wins_over_a_tag_of_its_name(self, repository: Repository) -> None:
        old = repository.commit({"a": "1"})
        repository.git("tag", "both")
        new = repository.commit({"a": "2"})
        repository.git("push", "-q", "origin", "refs/tags/both", "main:refs/heads/both")

        assert resolve_ref(repository.url, "both", None, timeout=5) == new != old

    def test_an_annotated_tag_is_the_commit_it_names(self, repository: Repository) -> None:
        commit = repository.commit({"a": "1"})
        repository.git("tag", "-a", "v1.0", "-m", "First")
        repository.git("tag", "light")
        repository.git("push", "-q", "origin", "--tags")

        assert resolve_ref(repository.url, "v1.0", None, timeout=5) == commit
        assert resolve_ref(repository.url, "light", None, timeout=5) == commit

    def test_a_commit_is_itself_without_asking(self) -> None:
        commit = "0123456789abcdef0123456789abcdef01234567"

        assert resolve_ref("https://nowhere.invalid/a.git", commit, None, timeout=5) == commit

    def test_a_missing_ref_names_the_closest(self, repository: Repository) -> None:
        repository.commit({"a": "1"})
        repository.git("push", "-q", "origin", "main:develop")

        with pytest.raises(SourceError) as caught:
            resolve_ref(repository.url, "mian", None, timeout=5)

        assert caught.value.reason == "RefNotFound"
        assert caught.value.message == "no branch or tag is named 'mian'; there is 'main'"

    def test_an_empty_repository(self, repository: Repository) -> None:
        with pytest.raises(SourceError, match="no branches and no tags yet") as caught:
            resolve_ref(repository.url, "main", None, timeout=5)

        assert caught.value.reason == "RefNotFound"

    @pytest.mark.parametrize("ref", ["--upload-pack=touch /tmp/x", "a..b", "a b", "x:y", ""])
    def test_what_no_ref_can_be_called(self, ref: str) -> None:
        with pytest.raises(SourceError, match="cannot be the name of a ref"):
            resolve_ref("https://nowhere.invalid/a.git", ref, None, timeout=5)


class TestUnreachable:
    def test_no_server(self) -> None:
        port = free_port()
        with pytest.raises(SourceError) as caught:
            resolve_ref(f"http://127.0.0.1:{port}/a.git", "main", None, timeout=5)

        assert caught.value.reason == "RepositoryUnreachable"
        assert caught.value.message == f"127.0.0.1:{port} refuses connections"

    def test_no_such_name(self) -> None:
        with pytest.raises(SourceError) as caught:
            resolve_ref("https://nowhere.invalid/a.git", "main", None, timeout=10)

        assert caught.value.reason == "RepositoryUnreachable"
        assert caught.value.message == "the name of nowhere.invalid does not resolve"

    def test_no_repository(self, http_git: HttpGit) -> None:
        with pytest.raises(SourceError, match="has no such repository") as caught:
            resolve_ref(f"{http_git.url}/none.git", "main", None, timeout=5)

        assert caught.value.reason == "RepositoryUnreachable"

    def test_a_server_that_never_answers_costs_the_timeout_and_no_process(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.git"
            started = time.monotonic()
            with pytest.raises(SourceError, match="did not answer within 1 s") as caught:
                resolve_ref(url, "main", None, timeout=1)

        assert caught.value.reason == "RepositoryUnreachable"
        assert time.monotonic() - started < 10
        while url in processes():  # until the kernel has carried out the kill
            assert time.monotonic() - started < 30
            time.sleep(0.02)

    def test_a_web_site_that_is_not_git(self) -> None:
        with (
            serve(b"<!doctype html>\n<html>\n<p>hello</p>\n</html>\n" * 9) as url,
            pytest.raises(SourceError) as caught,
        ):
            resolve_ref(f"{url}/a.git", "main", None, timeout=5)

        assert caught.value.reason == "RepositoryUnreachable"
        assert "has no such repository" in caught.value.message


class TestHttpCredentials:
    def test_a_token_opens_the_repository(
        self, repository: Repository, http_git: HttpGit, tmp_path: Path
    ) -> None:
        commit = repository.commit({"a": "1"})
        http_git.read_tokens[repository.bare.name] = "s3 cr'et$(touch x)"

        credentials = login("s3 cr'et$(touch x)")

        assert resolve_ref(repository.url, "main", credentials, timeout=5) == commit
        assert read(repository.url, commit, tmp_path, credentials=credentials).commit == commit

    @pytest.mark.parametrize(
        ("credentials", "message"),
        [
            (None, "asks for credentials; name their Secret in source.git.secretRef"),
            (login("wrong"), "refused the credentials in the Secret"),
        ],
        ids=["none", "wrong"],
    )
    def test_other_logins_are_refused(
        self,
        repository: Repository,
        http_git: HttpGit,
        credentials: GitCredentials | None,
        message: str,
    ) -> None:
        repository.commit({"a": "1"})
        http_git.read_tokens[repository.bare.name] = "right"

        with pytest.raises(SourceError) as caught:
            resolve_ref(repository.url, "main", credentials, timeout=5)

        assert caught.value.reason == "AuthenticationFailed"
        assert caught.value.message.endswith(message)

    def test_a_commit_fetched_with_a_token_is_not_found_without_it(
        self, repository: Repository, http_git: HttpGit, tmp_path: Path
    ) -> None:
        commit = repository.commit({"a": "1"})
        http_git.read_tokens[repository.bare.name] = "right"
        read(repository.url, commit, tmp_path, credentials=login("right"))

        with pytest.raises(SourceError) as caught:
            read(repository.url, commit, tmp_path)

        assert caught.value.reason == "AuthenticationFailed"

    def test_a_redirect_to_another_server_gets_no_token(self) -> None:
        seen: list[str | None] = []

        class Thief(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.headers.get("Authorization"))
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        with running(Thief) as thief:

            class Redirect(Thief):
                def do_GET(self) -> None:
                    self.send_response(302)
                    self.send_header("Location", f"{thief}{self.path}")
                    self.end_headers()

            with running(Redirect) as url, pytest.raises(SourceError) as caught:
                resolve_ref(f"{url}/a.git", "main", login("s3cret"), timeout=5)

        assert caught.value.reason == "AuthenticationFailed"
        assert seen == [None]

    def test_the_token_is_neither_in_arguments_nor_in_messages(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commands: list[object] = []
        popen = git_command.subprocess.Popen

        def record(command: list[str], **options: Any) -> Any:
            commands.append(command)
            return popen(command, **options)

        monkeypatch.setattr(git_command.subprocess, "Popen", record)

        with serve(b"x", status=500) as url, pytest.raises(SourceError) as caught:
            resolve_ref(f"{url}/a.git", "main", login("s3cret"), timeout=5)

        assert "s3cret" not in caught.value.message
        assert commands
        assert "s3cret" not in repr(commands)


class TestTls:
    def test_a_private_authority_is_trusted_if_the_secret_holds_it(
        self, repository: Repository, https_git: HttpsGit
    ) -> None:
        commit = repository.commit({"a": "1"})
        url = f"{https_git.url}/{repository.bare.name}"
        credentials = GitCredentials.from_secret(secret({"ca.crt": https_git.certificate}))

        assert resolve_ref(url, "main", credentials, timeout=5) == commit

    def test_a_certificate_of_nobody_is_refused(
        self, repository: Repository, https_git: HttpsGit
    ) -> None:
        with pytest.raises(SourceError, match=r"TLS .* ca\.crt") as caught:
            resolve_ref(f"{https_git.url}/{repository.bare.name}", "main", None, timeout=5)

        assert caught.value.reason == "RepositoryUnreachable"


class TestSsh:
    def test_a_key_opens_the_repository(
        self, repository: Repository, ssh_git: SshGit, tmp_path: Path
    ) -> None:
        commit = repository.commit({"requirements.txt": "pandas\n"})
        credentials = GitCredentials.from_secret(
            secret({"ssh-privatekey": ssh_git.private_key, "known_hosts": ssh_git.known_hosts})
        )
        url = ssh_git.url(repository)

        assert resolve_ref(url, "main", credentials, timeout=10) == commit
        snapshot = read(url, commit, tmp_path, credentials=credentials)
        assert snapshot.files == {"requirements.txt": "pandas\n"}

    def test_a_stranger_key_is_refused(
        self, repository: Repository, ssh_git: SshGit, tmp_path: Path
    ) -> None:
        run_ssh_keygen(tmp_path / "other")
        credentials = GitCredentials(
            private_key=(tmp_path / "other").read_text(), known_hosts=ssh_git.known_hosts
        )

        with pytest.raises(SourceError, match="refused the credentials") as caught:
            resolve_ref(ssh_git.url(repository), "main", credentials, timeout=10)

        assert caught.value.reason == "AuthenticationFailed"

    @pytest.mark.parametrize("known", ["other.example ssh-ed25519 AAAA", "changed"])
    def test_a_host_that_is_not_known_is_not_trusted(
        self, repository: Repository, ssh_git: SshGit, tmp_path: Path, known: str
    ) -> None:
        run_ssh_keygen(tmp_path / "changed")
        public = (tmp_path / "changed.pub").read_text()
        known_hosts = f"[127.0.0.1]:{ssh_git.port} {public}" if known == "changed" else known
        credentials = GitCredentials(private_key=ssh_git.private_key, known_hosts=known_hosts)

        with pytest.raises(SourceError, match="known_hosts") as caught:
            resolve_ref(ssh_git.url(repository), "main", credentials, timeout=10)

        assert caught.value.reason == "AuthenticationFailed"

    def test_a_damaged_key_cannot_be_used(self, repository: Repository, ssh_git: SshGit) -> None:
        lines = ssh_git.private_key.splitlines()
        damaged = "\n".join([*lines[:2], lines[-1], ""])
        credentials = GitCredentials(private_key=damaged, known_hosts=ssh_git.known_hosts)

        with pytest.raises(SourceError, match="cannot be parsed by ssh") as caught:
            resolve_ref(ssh_git.url(repository), "main", credentials, timeout=10)

        assert caught.value.reason == "SecretInvalid"

    def test_a_repository_that_is_not_there(self, repository: Repository, ssh_git: SshGit) -> None:
        credentials = GitCredentials(
            private_key=ssh_git.private_key, known_hosts=ssh_git.known_hosts
        )

        with pytest.raises(SourceError, match="has no such repository"):
            resolve_ref(ssh_git.url(repository) + "x", "main", credentials, timeout=10)

    def test_no_key(self, repository: Repository, ssh_git: SshGit) -> None:
        with pytest.raises(SourceError, match=r"needs source\.git\.secretRef") as caught:
            resolve_ref(ssh_git.url(repository), "main", None, timeout=10)

        assert caught.value.reason == "SecretInvalid"


def secret(values: dict[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


def run_ssh_keygen(path: Path) -> None:
    git_command.subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True
    )


def processes() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text().replace("\0", " "))
        except OSError:
            continue
    return "\n".join(found)


@contextmanager
def running(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def serve(body: bytes, status: int = 200) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with running(Handler) as url:
        yield url
