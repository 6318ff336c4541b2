"""Puts a folder into a repository of the git server: `python -m dev.gitserver.push FOLDER REPO`."""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

from dev.cluster.kubectl import Kubectl
from dev.gitserver.credentials import NAMESPACE, Credentials

BRANCH = "main"
_ASKPASS = "#!/bin/sh\nprintf '%s\\n' \"$PUSH_TOKEN\"\n"


class PushError(Exception):
    """The folder could not be published; the message says why."""


def publish(folder: Path, repo: str, message: str) -> str:
    """Makes the folder the content of a repository in the cluster.

    Args:
        folder: Becomes the root of the repository.
        repo: Its name, such as `wine.git`; made if missing.
        message: Of the commit.

    Returns:
        The commit; the present one if the folder is what the repository holds already.
    """
    credentials = Credentials.load()
    if credentials is None:
        raise PushError("there is no git server in the cluster: run dev.gitserver.deploy first")
    kubectl = Kubectl.of_environment()
    with kubectl.forwarded_port(NAMESPACE, "service/gitserver", 80) as port:
        return push(f"http://127.0.0.1:{port}/{repo}", credentials.push_token, folder, message)


def push(url: str, token: str, folder: Path, message: str) -> str:
    """Commits the folder on top of what the repository holds, and pushes that.

    Args:
        url: Of the repository.
        token: The server's push token.
        folder: Becomes the root of the repository; it is not touched.
        message: Of the commit.
    """
    with tempfile.TemporaryDirectory(prefix="push-") as scratch:
        askpass = Path(scratch, "askpass")
        askpass.write_text(_ASKPASS)
        askpass.chmod(0o700)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": scratch,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_DIR": str(Path(scratch, "git")),
            "GIT_WORK_TREE": str(folder.resolve()),
            "GIT_ASKPASS": str(askpass),
            "GIT_AUTHOR_NAME": "LabFunctions demo",
            "GIT_AUTHOR_EMAIL": "demo@labfunctions.io",
            "GIT_COMMITTER_NAME": "LabFunctions demo",
            "GIT_COMMITTER_EMAIL": "demo@labfunctions.io",
            "PUSH_TOKEN": token,
        }
        return _Git(environment, folder).publish(url, message)


class _Git:
    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder

    def publish(self, url: str, message: str) -> str:
        self._run("init", "--quiet", f"--initial-branch={BRANCH}")
        if self._holds_commits(url):
            self._run("fetch", "--quiet", _with_user(url), BRANCH)
            self._run("reset", "--quiet", "--soft", "FETCH_HEAD")
        self._run("add", "--all", ".")
        if self._run("status", "--porcelain"):
            self._run("commit", "--quiet", "-m", message)
            self._run("push", "--quiet", _with_user(url), f"HEAD:refs/heads/{BRANCH}")
        return self._run("rev-parse", "HEAD")

    def _holds_commits(self, url: str) -> bool:
        try:
            return bool(self._run("ls-remote", "--heads", _with_user(url), BRANCH))
        except PushError as error:
            if "not found" not in str(error):
                raise
            return False  # the push makes the repository

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PushError(f"git {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout.strip()


def _with_user(url: str) -> str:
    return url.replace("://", "://git@", 1)


def main() -> None:
    """Publishes what the command line names and prints the commit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("repo", help="such as wine.git")
    parser.add_argument("-m", "--message", default="Publish the example")
    arguments = parser.parse_args()
    print(publish(arguments.folder, arguments.repo, arguments.message))


if __name__ == "__main__":
    main()
