"""Reads projects from git repositories. Every function blocks: call them from a thread."""

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import git

from labfunctions_operator.errors import Transient
from labfunctions_operator.providers.git_cache import cache_key, open_commit
from labfunctions_operator.providers.git_command import Deadline, Session, open_session, parse_url
from labfunctions_operator.providers.git_credentials import GitCredentials
from labfunctions_operator.providers.git_errors import SourceError, one_line
from labfunctions_operator.providers.notebooks import read_notebook
from labfunctions_operator.reconcile.source import Notebook, SourceSnapshot

__all__ = [
    "GitCredentials",
    "SourceError",
    "normalize_path",
    "read_source",
    "resolve_ref",
]

# A uv.lock of a hundred packages is close to a MiB.
FILE_LIMIT = 4 * 2**20
NOTEBOOKS_LIMIT = 200
_REQUIREMENT_INPUTS = ("requirements.txt", "pyproject.toml", "uv.lock")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REF = re.compile(r"(?!-)[^\x00-\x20\x7f~^:?*\[\\]{1,255}")
_REGULAR = ("100644", "100755")


@dataclass(frozen=True)
class _File:
    mode: str
    id: str
    size: int


def normalize_path(path: str) -> str:
    """Writes a path within a source in its shortest form; the whole source is `.`.

    Raises:
        SourceError: PathEscapes, if it is absolute or holds `..`.
    """
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise SourceError("PathEscapes", f"{one_line(path, 100)!r} leads out of the source")
    if not path.isprintable() or "\\" in path:
        raise SourceError("PathNotFound", f"{one_line(path, 100)!r} is not a path with slashes")
    return str(parts)


def resolve_ref(url: str, ref: str, credentials: GitCredentials | None, *, timeout: float) -> str:
    """Finds the commit that a branch or a tag points at; a branch wins over a tag.

    Args:
        url: Of the repository.
        ref: A branch, a tag, or a commit, which is returned as it is.
        credentials: None for a public repository.
        timeout: Seconds.

    Raises:
        SourceError: The message says which.
    """
    remote = parse_url(url)
    if _COMMIT.fullmatch(ref):
        return ref
    if not _REF.fullmatch(ref) or ".." in ref:
        raise SourceError("RefNotFound", f"{one_line(ref, 100)!r} cannot be the name of a ref")
    with _local_disk(), open_session(remote, credentials, Deadline(timeout)) as session:
        listing = session.run("ls-remote", "--quiet", "--heads", "--tags", "--", url)
    refs = {name: commit for commit, _, name in (x.partition("\t") for x in listing.splitlines())}
    for name in (f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}"):
        if name in refs:
            return refs[name]
    raise SourceError("RefNotFound", _no_such_ref(ref, refs))


def read_source(
    url: str,
    *,
    ref: str,
    commit: str,
    path: str,
    wanted: tuple[str, ...],
    credentials: GitCredentials | None,
    cache_dir: Path,
    timeout: float,
) -> SourceSnapshot:
    """Fetches a commit and reads one folder of it, without a checkout.

    Args:
        url: Of the repository.
        ref: The ref that `commit` was resolved from.
        commit: From `resolve_ref`.
        path: The folder within the repository.
        wanted: Further files to read, by their path within the folder.
        credentials: None for a public repository.
        cache_dir: Where clones are kept between calls.
        timeout: Seconds for the whole call.

    Raises:
        SourceError: The message says what to repair.
        Transient: The local disk or another fetch is in the way.
    """
    remote = parse_url(url)
    folder = normalize_path(path)
    names = {normalize_path(name) for name in (*_REQUIREMENT_INPUTS, *wanted)}
    if not _COMMIT.fullmatch(commit):
        raise SourceError("RefNotFound", "a commit has 40 hexadecimal digits")
    with (
        _local_disk(),
        open_session(remote, credentials, Deadline(timeout)) as session,
        open_commit(
            session,
            ref=ref,
            commit=commit,
            cache=cache_dir / "git",
            key=cache_key(url, credentials),
        ) as found,
    ):
        return _snapshot(session, found, folder, names)


def _snapshot(session: Session, commit: git.Commit, folder: str, names: set[str]) -> SourceSnapshot:
    tree = _folder(commit.tree, folder)
    files = dict(_list(session, commit.repo, tree))
    return SourceSnapshot(
        commit=commit.hexsha,
        author=one_line(commit.author.name or commit.author.email or "unknown", 200),
        message=one_line(_text(commit.message), 200),
        committed_at=_committed_at(commit),
        tree=tree.hexsha,
        files={
            name: _read_text(commit.repo, name, files[name])
            for name in sorted(names & files.keys())
        },
        notebooks=_read_notebooks(session, commit.repo, files),
    )


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _committed_at(commit: git.Commit) -> datetime:
    try:
        return commit.committed_datetime.astimezone(UTC)
    except (ValueError, OverflowError, OSError):  # git accepts any number as a time
        return datetime.fromtimestamp(0, UTC)


def _folder(root: git.Tree, folder: str) -> git.Tree:
    tree = root
    for part in PurePosixPath(folder).parts:
        entry = next((entry for entry in tree if entry.name == part), None)
        if not isinstance(entry, git.Tree):
            what = "does not exist in the commit" if entry is None else "is not a plain folder"
            raise SourceError("PathNotFound", f"source.git.path {folder!r} {what}")
        tree = entry
    return tree


def _list(session: Session, repository: git.Repo, tree: git.Tree) -> Iterator[tuple[str, _File]]:
    """Lists regular files; links are left out, as they may lead anywhere."""
    listing = session.run(
        f"--git-dir={repository.git_dir}", "ls-tree", "-r", "-z", "--long", tree.hexsha
    )
    for line in filter(None, listing.split("\0")):
        facts, _, name = line.partition("\t")
        mode, _, object_id, size = facts.split()
        if mode in _REGULAR:
            yield name, _File(mode=mode, id=object_id, size=int(size))


def _read_text(repository: git.Repo, name: str, file: _File) -> str:
    if file.size > FILE_LIMIT:
        raise SourceError("SourceTooLarge", f"{name} is larger than {FILE_LIMIT >> 20} MiB")
    try:
        text: str = _blob(repository, file).data_stream.read().decode()
    except UnicodeDecodeError:
        raise SourceError("PathNotFound", f"{name} is not a text file in UTF-8") from None
    return text


def _read_notebooks(
    session: Session, repository: git.Repo, files: Mapping[str, _File]
) -> Mapping[str, Notebook]:
    names = [
        name
        for name in sorted(files)
        if name.endswith(".ipynb") and ".ipynb_checkpoints" not in PurePosixPath(name).parts
    ]
    if len(names) > NOTEBOOKS_LIMIT:
        raise SourceError(
            "SourceTooLarge",
            f"more than {NOTEBOOKS_LIMIT} notebooks are under source.git.path; name a folder below",
        )
    notebooks = {}
    for name in names:
        if session.deadline.left() == 0:
            raise SourceError(
                "SourceTooLarge",
                f"the notebooks could not be read within {session.deadline.seconds:g} s",
            )
        file = files[name]
        notebooks[name] = read_notebook(_blob(repository, file).data_stream.read, file.size)
    return notebooks


def _blob(repository: git.Repo, file: _File) -> git.Blob:
    return git.Blob(repository, bytes.fromhex(file.id))


def _no_such_ref(ref: str, refs: Mapping[str, str]) -> str:
    if not refs:
        return "the repository has no branches and no tags yet"
    if re.fullmatch(r"[0-9a-f]{7,39}", ref):
        return f"a commit must be given with all of its 40 digits, not as {ref!r}"
    names = sorted({name.split("/", 2)[2].removesuffix("^{}") for name in refs})
    close = difflib.get_close_matches(ref, names[:5000], n=3) or names[:3]
    return f"no branch or tag is named {ref!r}; there is {', '.join(map(repr, close))}"


@contextmanager
def _local_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Transient(f"the operator's local disk cannot be used: {error.strerror}") from error
