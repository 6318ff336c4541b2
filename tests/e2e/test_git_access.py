"""Repositories that want credentials: a token over http, a key over ssh."""

from collections.abc import Callable

import pytest

from dev.gitserver.credentials import HOST, PRIVATE_REPOSITORY, Credentials

from .cluster import Repository, Team, seconds_between
from .objects import HELLO, Object, condition, inline_run, notebook, printed, project, secret

SSH_URL = f"ssh://git@{HOST}/srv/git/{PRIVATE_REPOSITORY}"
REF: Object = {"secretRef": {"name": "git"}}


@pytest.fixture(scope="module")
def commit(new_repository: Callable[[str], Repository]) -> str:
    files = {"hello.ipynb": HELLO, "private.ipynb": notebook("print('from behind the door')")}
    return new_repository(PRIVATE_REPOSITORY).commit(files, "Begin")


@pytest.fixture(scope="module")
def credentials(commit: str) -> Credentials:
    found = Credentials.load()
    assert found
    return found


def ssh_data(key: str, known_hosts: str) -> dict[str, str]:
    return {"ssh-privatekey": key, "known_hosts": known_hosts}


def test_a_token_opens_a_repository_over_http(
    team: Team, commit: str, credentials: Credentials
) -> None:
    team.apply(
        secret("git", {"username": "git", "password": credentials.read_token}),
        project(repository=PRIVATE_REPOSITORY, **REF),
        inline_run("inside", "private.ipynb"),
    )
    team.await_image(commit)
    done = team.await_success("inside")
    assert "from behind the door" in printed(team.read_notebook(done))


def test_a_wrong_token_is_told_and_mended(
    team: Team, commit: str, credentials: Credentials
) -> None:
    team.apply(
        secret("git", {"token": "not-the-token"}), project(repository=PRIVATE_REPOSITORY, **REF)
    )
    refused = team.await_reason("project", "lab", "AuthenticationFailed", seconds=45)
    told = condition(refused)
    assert told["message"] == f"{HOST} refused the credentials in the Secret"
    took = seconds_between(refused["metadata"]["creationTimestamp"], told["lastTransitionTime"])
    assert took <= 30
    assert not team.builds()
    team.apply(secret("git", {"token": credentials.read_token}))
    team.await_image(commit)


def test_a_missing_secret_is_told_and_mended(
    team: Team, commit: str, credentials: Credentials
) -> None:
    team.apply(
        project(repository=PRIVATE_REPOSITORY, **REF),
        project("open", repository=PRIVATE_REPOSITORY),
    )
    lost = team.await_reason("project", "lab", "SecretInvalid", seconds=45)
    assert condition(lost)["message"] == "Secret git does not exist in this namespace"
    without = team.await_reason("project", "open", "AuthenticationFailed", seconds=45)
    assert "source.git.secretRef" in condition(without)["message"]
    team.apply(secret("git", {"token": credentials.read_token}))
    team.await_image(commit)


def test_a_key_opens_a_repository_over_ssh(
    team: Team, commit: str, credentials: Credentials
) -> None:
    team.apply(
        secret("git", ssh_data(credentials.ssh_key, credentials.known_hosts)),
        project(url=SSH_URL, **REF),
        inline_run("inside", "private.ipynb"),
    )
    team.await_image(commit)
    done = team.await_success("inside")
    assert "from behind the door" in printed(team.read_notebook(done))


def test_another_host_key_is_refused(team: Team, commit: str, credentials: Credentials) -> None:
    data = ssh_data(credentials.ssh_key, Credentials.generate().known_hosts)
    team.apply(secret("git", data), project(url=SSH_URL, **REF))
    refused = team.await_reason("project", "lab", "AuthenticationFailed", seconds=45)
    assert "host key" in condition(refused)["message"]
    assert "known_hosts" in condition(refused)["message"]
    assert not team.builds()
