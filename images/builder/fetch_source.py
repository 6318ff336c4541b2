#!/usr/bin/env python3
"""Fetches exactly one commit of a git repository and lays out one folder of it, without `.git`.

Submodules stay empty folders and LFS files stay pointers. Symbolic links are kept as links and
never followed. This is the only container that sees the git credentials of a Project.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn
from urllib.parse import urlsplit

import termination

WORKSPACE = Path("/workspace")
GIT_SECRET = Path("/etc/git-secret")
PROTOCOLS = ("https", "http", "ssh")

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SCP_STYLE = re.compile(r"(?:[A-Za-z0-9_.+-]+@)?[A-Za-z0-9.-]+:(?!/)[^\s]+")
# The server offers only the tips of its branches, so the commit must come with one of them.
_BARE_COMMIT_REFUSED = re.compile(r"not our ref|unadvertised object|couldn't find remote ref")
_CREDENTIAL_HELPER = (
    '!f() { test "$1" = get && '
    'printf "username=%s\\npassword=%s\\n" "$FETCH_USERNAME" "$FETCH_PASSWORD"; }; f'
)
_MEANINGS = (
    (r"could not read Username", "the repository asks for credentials and none are given"),
    (r"Authentication failed|error: 40[13]", "the repository refused the credentials"),
    (r"Permission denied", "the repository refused the ssh key"),
    (r"Host key verification failed", "the server's ssh key is not the one in known_hosts"),
    (r"error in libcrypto|invalid format", "the ssh key in the secret is not a private key"),
    (r"certificate", "the server's TLS certificate is not trusted (add ca.crt to the git secret)"),
    (r"Could not resolve host", "the repository's host name does not resolve"),
    (r"not found|does not appear to be a git repo", "the repository does not exist there"),
    (r"No space left on device", "the build pod's disk is full"),
)


class SourceError(Exception):
    """The source cannot be laid out; the message says why, for the user."""


class GitFailed(Exception):
    """A git command ended with an error; the message is what it printed."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to fetch: all of it comes from the pod's environment."""

    url: str
    ref: str
    commit: str
    path: str

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Request":
        """Read and check the request, since its parts become arguments of git."""
        request = cls(
            url=environ["GIT_URL"],
            ref=environ["GIT_REF"],
            commit=environ["GIT_COMMIT"],
            path=environ.get("SOURCE_PATH") or ".",
        )
        if not _COMMIT.fullmatch(request.commit):
            raise SourceError(f"{request.commit!r} is not a full commit id")
        if request.ref.startswith("-") or re.search(r"[\s:^~?*\[\\]|\.\.", request.ref):
            raise SourceError(f"{request.ref!r} is not the name of a branch, tag or commit")
        path = PurePosixPath(request.path)
        if path.is_absolute() or ".." in path.parts:
            raise SourceError(f"the path {request.path!r} leaves the source")
        _check_url(request.url)
        return request


def _check_url(url: str) -> None:
    if "://" not in url and _SCP_STYLE.fullmatch(url):
        return
    parts = urlsplit(url)
    if parts.scheme not in PROTOCOLS or not parts.hostname:
        raise SourceError(f"the git url must begin with one of {', '.join(PROTOCOLS)}")
    if parts.password is not None:
        raise SourceError("the git url holds a password: put it into a Secret instead")


@dataclass(frozen=True, kw_only=True)
class Access:
    """Environment for git that carries the credentials, and what must never be printed."""

    env: dict[str, str]
    secrets: tuple[str, ...]


def access(url: str, *, secret: Path, scratch: Path, environ: Mapping[str, str]) -> Access:
    """Turn the files of a git Secret into an environment; nothing secret reaches an argument.

    Args:
        url: The repository; basic credentials are bound to its scheme and host by git itself.
        secret: Folder with the keys of the Secret; may be missing.
        scratch: Private folder for the copy of an ssh key.
        environ: The process environment to extend.
    """
    env = {name: value for name, value in environ.items() if not name.startswith(("GIT_", "SSH_"))}
    env.pop("DOCKERFILE", None)
    env |= {
        "HOME": str(scratch),
        "LC_ALL": "C",
        "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }
    config = {"http.lowSpeedLimit": "1000", "http.lowSpeedTime": "60"}
    keys = (
        {file.name: file for file in secret.iterdir() if file.is_file()} if secret.is_dir() else {}
    )
    if "ca.crt" in keys:
        config["http.sslCAInfo"] = str(keys["ca.crt"])
    env["GIT_SSH_COMMAND"] = _ssh_command(keys, scratch)
    password = _text(keys, "password") or _text(keys, "token")
    if password:
        origin = urlsplit(url)
        config[f"credential.{origin.scheme}://{origin.netloc.rpartition('@')[2]}.helper"] = (
            _CREDENTIAL_HELPER
        )
        env["FETCH_USERNAME"] = _text(keys, "username") or "git"
        env["FETCH_PASSWORD"] = password
    env["GIT_CONFIG_COUNT"] = str(len(config))
    for number, (name, value) in enumerate(config.items()):
        env[f"GIT_CONFIG_KEY_{number}"] = name
        env[f"GIT_CONFIG_VALUE_{number}"] = value
    return Access(env=env, secrets=(password,) if password else ())


def _text(keys: Mapping[str, Path], name: str) -> str | None:
    if name not in keys:
        return None
    # `echo token | base64` leaves a newline at the end.
    text = keys[name].read_text().rstrip("\r\n")
    if "\n" in text or "\r" in text:
        raise SourceError(f"the key {name} of the git secret has more than one line")
    return text


def _ssh_command(keys: Mapping[str, Path], scratch: Path) -> str:
    options = [
        "-F none",
        "-o BatchMode=yes",
        "-o ConnectTimeout=20",
        "-o StrictHostKeyChecking=yes",
        f"-o GlobalKnownHostsFile={os.devnull}",
        f"-o UserKnownHostsFile={keys.get('known_hosts', Path(os.devnull))}",
    ]
    source = keys.get("ssh-privatekey") or keys.get("identity")
    if source:
        if "known_hosts" not in keys:
            raise SourceError("the git secret has an ssh key but no known_hosts")
        # ssh refuses a key that others may read (every mounted Secret) or without a last newline.
        key = scratch / "identity"
        key.touch(mode=0o600)
        key.write_text(source.read_text().replace("\r\n", "\n").rstrip("\n") + "\n")
        options += [f"-i {key}", "-o IdentitiesOnly=yes"]
    return " ".join(["ssh", *options])


class Repository:
    """A bare scratch repository that one commit is fetched into."""

    def __init__(self, folder: Path, url: str, access: Access) -> None:
        self._access = access
        self._git_dir = folder
        self.git("init", "--quiet", "--bare", str(folder))
        self.git("remote", "add", "origin", url)

    def git(self, *arguments: str, work_tree: Path | None = None) -> str:
        """Run git and return what it printed; raise GitFailed if it ends with an error."""
        env = self._access.env | {"GIT_DIR": str(self._git_dir)}
        if work_tree is not None:
            env |= {"GIT_WORK_TREE": str(work_tree), "GIT_INDEX_FILE": f"{self._git_dir}/index"}
        done = subprocess.run(
            ["git", *arguments], env=env, cwd=work_tree, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise GitFailed(termination.clean(done.stderr, secrets=self._access.secrets).strip())
        return done.stdout

    def fetch(self, request: Request) -> None:
        """Fetch the commit, alone if the server allows it, else with the history that holds it."""
        try:
            self.git("fetch", "--quiet", "--depth=1", "--no-tags", "origin", request.commit)
            return
        except GitFailed as failure:
            if not _BARE_COMMIT_REFUSED.search(str(failure)):
                raise
        print(
            f"The server gives no single commits; fetching the history of {request.ref}", flush=True
        )
        for refspecs in ([request.ref], ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]):
            try:
                self.git("fetch", "--quiet", "--no-tags", "origin", *refspecs)
            except GitFailed as failure:
                if not _BARE_COMMIT_REFUSED.search(str(failure)):
                    raise
            if self._has(request.commit):
                return
        raise SourceError(f"commit {request.commit} is not in the repository any more")

    def _has(self, commit: str) -> bool:
        try:
            self.git("cat-file", "-e", f"{commit}^{{commit}}")
        except GitFailed:
            return False
        return True

    def export(self, request: Request, target: Path) -> None:
        """Lay out the folder of the commit in `target`."""
        path = str(PurePosixPath(request.path))
        tree = f"{request.commit}^{{tree}}" if path == "." else f"{request.commit}:{path}"
        try:
            kind = self.git("cat-file", "-t", tree).strip()
        except GitFailed:
            kind = "missing"
        if kind != "tree":
            raise SourceError(f"there is no folder {path!r} in commit {request.commit[:12]}")
        target.mkdir(parents=True)
        # A volume's group bit would go on to every folder in it, and from there into the image.
        target.chmod(0o755)
        self.git("read-tree", tree, work_tree=target)
        self.git("checkout-index", "--all", work_tree=target)


def explain(output: str, *, url: str) -> str:
    """Say in one line for a person why git failed, followed by git's own last line."""
    lines = [line for line in output.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "ERROR:", "error:"))]
    detail = (fatal or lines or ["git printed nothing"])[-1].strip()
    for pattern, meaning in _MEANINGS:
        if re.search(pattern, output, re.IGNORECASE):
            return f"cannot fetch {url}: {meaning} ({detail})"
    return f"cannot fetch {url}: {detail}"


def fetch_source(
    environ: Mapping[str, str], *, workspace: Path = WORKSPACE, secret: Path = GIT_SECRET
) -> None:
    """Fill `context` and `dockerfile` of the workspace."""
    request = Request.of(environ)
    context = workspace / "context"
    # A restarted container finds what its predecessor left.
    shutil.rmtree(context, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        tempfile.TemporaryDirectory(dir=workspace) as repository,
    ):
        granted = access(request.url, secret=secret, scratch=Path(scratch), environ=environ)
        print(f"Fetching {request.commit} of {termination.clean(request.url)}", flush=True)
        try:
            source = Repository(Path(repository) / "source.git", request.url, granted)
            source.fetch(request)
            source.export(request, context)
        except GitFailed as failure:
            raise SourceError(
                explain(str(failure), url=termination.clean(request.url))
            ) from failure
    dockerfile = workspace / "dockerfile" / "Dockerfile"
    dockerfile.parent.mkdir(exist_ok=True)
    dockerfile.write_text(environ["DOCKERFILE"])
    print(f"The source is in {context}", flush=True)


def _stop(*_: object) -> NoReturn:
    raise SourceError("fetching the source was stopped")


def main(*, log: Path = termination.LOG, workspace: Path = WORKSPACE) -> NoReturn:
    """Run as the container's command."""
    # Process 1 of a container ignores signals that it has no handler for.
    signal.signal(signal.SIGTERM, _stop)
    try:
        fetch_source(os.environ, workspace=workspace)
    except (SourceError, OSError) as failure:
        print(failure, file=sys.stderr)
        termination.write(log, error=str(failure))
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
