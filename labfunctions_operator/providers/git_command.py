"""Runs git against a remote: bounded, cut off from the machine's configuration, leaking nothing.

GitPython's own timeout kills by the output of `ps`, which slim images lack, and its environment is
the whole process's; so whatever talks to a network runs here, in a process group of its own.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from labfunctions_operator.providers.git_credentials import GitCredentials
from labfunctions_operator.providers.git_errors import SourceError, explain

_SCP_LIKE = re.compile(
    r"(?P<user>[A-Za-z0-9_][\w.-]*)@(?P<host>[A-Za-z0-9][\w.-]*):(?P<path>[^/-].*|/[^/].*)"
)
_HOST = re.compile(r"[A-Za-z0-9][\w.-]*|[0-9a-f:.]+")
_SSH_USER = re.compile(r"[A-Za-z0-9_][\w.-]*")
_INHERITED = (
    "PATH",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "GIT_SSL_CAINFO",
)
_OUTPUT_LIMIT = 64 * 2**20
_STDERR_SHOWN = 64 * 2**10
_POLL_SECONDS = 0.1
_CONFIG = (
    "credential.helper=",
    "core.hooksPath=/dev/null",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.version=2",
    "http.followRedirects=initial",
)
# A server that redirects elsewhere would be given the password of the first one, were it not for
# the comparison with the host that the URL names; from http to https of the same host is fine.
_ASKPASS = """#!/bin/sh
case "$1" in
  "Username for '$LABFUNCTIONS_GIT_SCHEME://$LABFUNCTIONS_GIT_HOST'"* | \\
  "Username for 'https://$LABFUNCTIONS_GIT_HOST'"*)
    printf '%s\\n' "$LABFUNCTIONS_GIT_USERNAME" ;;
  "Password for '$LABFUNCTIONS_GIT_SCHEME://"*"@$LABFUNCTIONS_GIT_HOST'"* | \\
  "Password for 'https://"*"@$LABFUNCTIONS_GIT_HOST'"*)
    printf '%s\\n' "$LABFUNCTIONS_GIT_PASSWORD" ;;
  *) exit 1 ;;
esac
"""


@dataclass(frozen=True)
class Remote:
    """A URL that git may be given."""

    url: str
    scheme: str
    host: str


def parse_url(url: str) -> Remote:
    """Accepts http, https and ssh URLs without credentials in them.

    Raises:
        SourceError: UrlNotAllowed, with what to write instead.
    """
    if not url.isprintable() or " " in url or len(url) > 2048:
        raise _refused("it holds blanks or control characters, or is too long")
    scp = _SCP_LIKE.fullmatch(url)
    if scp:
        return Remote(url=url, scheme="ssh", host=scp["host"])
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        raise _refused("it is not a URL") from None
    if parts.scheme not in ("http", "https", "ssh"):
        raise _refused("only https://, http://, ssh:// and user@host:path are")
    if not _HOST.fullmatch(host) or parts.path in ("", "/"):
        raise _refused("it names no host or no repository")
    _check_login(parts)
    # As written, since git's prompts and messages spell it so too.
    return Remote(url=url, scheme=parts.scheme, host=parts.netloc.rpartition("@")[2])


def _check_login(parts: SplitResult) -> None:
    web = parts.scheme != "ssh"
    if parts.password is not None or (web and parts.username is not None):
        raise _refused("credentials belong into a Secret, named by source.git.secretRef")
    if web and (parts.query or parts.fragment):
        raise _refused("it may have no ?query and no #fragment")
    if parts.username is not None and not _SSH_USER.fullmatch(parts.username):
        raise _refused("its user name is not one")


def _refused(why: str) -> SourceError:
    return SourceError("UrlNotAllowed", f"source.git.url is not allowed: {why}")


class Deadline:
    """The moment by which a whole operation must have ended."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._end - time.monotonic())


class Session:
    """Git commands for one remote with one set of credentials, inside one deadline."""

    def __init__(
        self,
        remote: Remote,
        credentials: GitCredentials | None,
        deadline: Deadline,
        folder: Path,
    ) -> None:
        self.remote = remote
        self.deadline = deadline
        self._credentials = credentials
        self._folder = folder
        self.environment = _environment(remote, credentials, folder)

    def run(self, *arguments: str, check: Callable[[], None] | None = None) -> str:
        """Runs one git command and returns what it printed.

        Args:
            arguments: Without the leading `git`.
            check: Called several times a second and at the end; what it raises ends the command.

        Raises:
            SourceError: The command failed, took too long or printed too much.
        """
        options = [word for setting in _CONFIG for word in ("-c", setting)]
        with (
            tempfile.TemporaryFile(dir=self._folder) as output,
            tempfile.TemporaryFile(dir=self._folder) as errors,
        ):
            process = subprocess.Popen(
                ["git", *options, *arguments],
                cwd=self._folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
            try:
                self._wait(process, check, (output.fileno(), errors.fileno()))
            finally:
                _end(process)
            if process.returncode != 0:
                raise self._failure(os.pread(errors.fileno(), _STDERR_SHOWN, 0))
            if check is not None:
                check()
            output.seek(0)
            return output.read().decode(errors="replace")

    def _wait(
        self,
        process: subprocess.Popen[bytes],
        check: Callable[[], None] | None,
        outputs: Sequence[int],
    ) -> None:
        while True:
            try:
                process.wait(timeout=min(_POLL_SECONDS, self.deadline.left()))
                return
            except subprocess.TimeoutExpired:
                pass
            if self.deadline.left() == 0:
                raise SourceError(
                    "RepositoryUnreachable",
                    f"{self.remote.host} did not answer within {self.deadline.seconds:g} s",
                )
            if any(os.fstat(output).st_size > _OUTPUT_LIMIT for output in outputs):
                raise SourceError(
                    "SourceTooLarge", f"{self.remote.host} lists more names than can be read"
                )
            if check is not None:
                check()

    def _failure(self, stderr: bytes) -> SourceError:
        text = stderr.decode(errors="replace").replace(self.remote.url, "the repository")
        credentials = self._credentials
        if credentials is not None and credentials.password:
            text = text.replace(credentials.password, "***")
        return explain(
            text, host=self.remote.host, with_credentials=_can_log_in(self.remote, credentials)
        )


@contextlib.contextmanager
def open_session(
    remote: Remote, credentials: GitCredentials | None, deadline: Deadline
) -> Iterator[Session]:
    """Prepares credentials for git in a private folder, which goes when the session does."""
    if remote.scheme == "ssh" and not _can_log_in(remote, credentials):
        raise SourceError(
            "SecretInvalid",
            "git over ssh needs source.git.secretRef: a Secret with ssh-privatekey and known_hosts",
        )
    with tempfile.TemporaryDirectory(prefix="git-session-") as folder:
        yield Session(remote, credentials, deadline, Path(folder))


def _can_log_in(remote: Remote, credentials: GitCredentials | None) -> bool:
    if credentials is None:
        return False
    secret = credentials.private_key if remote.scheme == "ssh" else credentials.password
    return secret is not None


def _environment(
    remote: Remote, credentials: GitCredentials | None, folder: Path
) -> Mapping[str, str]:
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment |= {
        "HOME": str(folder),
        "LC_ALL": "C",
        "GIT_ALLOW_PROTOCOL": "http:https:ssh",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }
    if credentials is None:
        return environment
    if credentials.ca:
        environment["GIT_SSL_CAINFO"] = str(_write(folder / "ca.crt", credentials.ca))
    if remote.scheme == "ssh":
        environment["GIT_SSH_COMMAND"] = _ssh_command(credentials, folder)
    elif credentials.password is not None:
        environment |= {
            "GIT_ASKPASS": str(_write(folder / "askpass", _ASKPASS, mode=0o700)),
            "LABFUNCTIONS_GIT_SCHEME": remote.scheme,
            "LABFUNCTIONS_GIT_HOST": remote.host,
            "LABFUNCTIONS_GIT_USERNAME": credentials.username or "git",
            "LABFUNCTIONS_GIT_PASSWORD": credentials.password,
        }
    return environment


def _ssh_command(credentials: GitCredentials, folder: Path) -> str:
    key = _write(folder / "identity", credentials.private_key or "")
    known_hosts = _write(folder / "known_hosts", credentials.known_hosts or "")
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "UpdateHostKeys": "no",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "IdentityFile": str(key),
        "ConnectTimeout": "10",
    }
    words = ["ssh", "-F", "/dev/null"]
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    return shlex.join(words)


def _write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.touch(mode=mode)
    path.write_text(text)
    return path


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends git together with the transport helpers it started."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # In a container we are process 1 and inherit the helpers; nobody else would reap them.
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-process.pid, 0)
