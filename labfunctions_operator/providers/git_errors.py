"""Why a source could not be read, in words for the person who wrote the Project."""

import re
from typing import Literal

Reason = Literal[
    "RepositoryUnreachable",
    "AuthenticationFailed",
    "RefNotFound",
    "PathNotFound",
    "PathEscapes",
    "SourceTooLarge",
    "UrlNotAllowed",
    "SecretInvalid",
]

_MESSAGE_LIMIT = 300


class SourceError(Exception):
    """The source cannot be read until somebody changes or repairs something.

    Args:
        reason: A condition reason.
        message: One line for a person, without credentials.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason: Reason = reason
        self.message = message


# Git and ssh report through English text alone (the commands run with LC_ALL=C). The first match
# wins: ssh ends every failure with "Could not read from remote repository", so causes come first.
_CAUSES: tuple[tuple[str, Reason, str], ...] = (
    (
        r"could not resolve (host|proxy)|name or service not known|name resolution",
        "RepositoryUnreachable",
        "the name of {host} does not resolve",
    ),
    (
        r"host key is known for|host key verification failed|host identification has changed",
        "AuthenticationFailed",
        "the host key of {host} is not the one that known_hosts in the Secret gives for it",
    ),
    (
        r"load key .*(invalid format|error in libcrypto|unknown|unsupported)",
        "SecretInvalid",
        "the private key in the Secret cannot be parsed by ssh",
    ),
    (
        r"tim(ed |e)out|operation too slow",
        "RepositoryUnreachable",
        "{host} did not answer in time",
    ),
    (
        r"no route to host|network is unreachable",
        "RepositoryUnreachable",
        "there is no network route to {host}",
    ),
    (
        r"connection refused|failed to connect to|couldn't connect to server",
        "RepositoryUnreachable",
        "{host} refuses connections",
    ),
    (
        r"permission denied|authentication failed|could not read (username|password)|access denied"
        r"|returned error: 40[137]\b",
        "AuthenticationFailed",
        "{login}",
    ),
    (
        r"not our ref|couldn't find remote ref|unadvertised object",
        "RefNotFound",
        "{host} no longer offers the commit",
    ),
    (
        r"repository .*(not found|does not exist|not exist)|repository not found"
        r"|not appear to be a git repository|is this a git repository|returned error: 404",
        "RepositoryUnreachable",
        "{host} has no such repository, or it needs other credentials",
    ),
    (
        r"dumb http transport does not support shallow",
        "RepositoryUnreachable",
        "{host} speaks only git's dumb HTTP protocol, which cannot fetch a single commit",
    ),
    (
        r"returned error: (429|5\d\d)",
        "RepositoryUnreachable",
        "{host} is overloaded or broken (HTTP {code})",
    ),
    (
        r"connection (reset|closed)|empty reply|hung up|early eof|unexpected disconnect"
        r"|transfer closed|gnutls recv error|unexpected eof",
        "RepositoryUnreachable",
        "{host} closed the connection",
    ),
    (
        r"certificate|gnutls|\bssl\b|\btls\b",
        "RepositoryUnreachable",
        "the TLS connection to {host} failed; a private CA goes under ca.crt into the Secret"
        " that source.git.secretRef names",
    ),
    (r"transport '.*' not allowed", "UrlNotAllowed", "{host} redirects to a protocol not allowed"),
)


def explain(stderr: str, *, host: str, with_credentials: bool) -> SourceError:
    """Turns what a failed git command wrote into a reason and a message.

    Args:
        stderr: The output of git, with secrets and the URL already taken out.
        host: The server, as the message shall name it.
        with_credentials: Whether the command had any.
    """
    login = (
        f"{host} refused the credentials in the Secret"
        if with_credentials
        else f"{host} asks for credentials; name their Secret in source.git.secretRef"
    )
    for pattern, reason, message in _CAUSES:
        found = re.search(pattern, stderr, re.IGNORECASE)
        if found:
            code = found.group(1) if "{code}" in message else ""
            return SourceError(reason, message.format(host=host, login=login, code=code))
    return SourceError("RepositoryUnreachable", f"git failed at {host}: {_last_words(stderr)}")


def one_line(text: str, limit: int = _MESSAGE_LIMIT) -> str:
    """The first line of a text that others wrote, bounded and without control characters."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    return "".join(char if char.isprintable() else " " for char in line).strip()[:limit]


def _last_words(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return one_line((fatal or lines or ["no explanation"])[-1])
