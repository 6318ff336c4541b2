"""Bare, shallow clones on local disk, so that a new commit costs only what changed."""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import git

from labfunctions_operator.errors import Transient
from labfunctions_operator.providers.git_command import Session
from labfunctions_operator.providers.git_credentials import GitCredentials
from labfunctions_operator.providers.git_errors import SourceError

FETCH_LIMIT = 2**30
_KEPT_BYTES = 500 * 2**20
_KEPT_PACKS = 100
_KEPT_SECONDS = 24 * 3600
_OWN_REF = "refs/cache/head"
_FETCHING = "labfunctions-fetching"

_locks: dict[str, threading.Lock] = {}


def cache_key(url: str, credentials: GitCredentials | None) -> str:
    """Names the clone of a URL.

    The credentials are part of it: whoever cannot fetch a commit must not find it here because
    somebody else could.
    """
    secret = () if credentials is None else (credentials.password, credentials.private_key)
    return hashlib.sha256(repr((url, secret)).encode()).hexdigest()[:40]


@contextmanager
def open_commit(
    session: Session, *, ref: str, commit: str, cache: Path, key: str
) -> Iterator[git.Commit]:
    """Fetches a commit unless it is here already, and holds its clone for the caller alone.

    Args:
        session: The remote.
        ref: The branch or tag that the commit was found at, for servers that hand out no others.
        commit: 40 hexadecimal digits.
        cache: The folder of all clones.
        key: This clone's name, from `cache_key`.
    """
    lock = _locks.setdefault(key, threading.Lock())
    if not lock.acquire(timeout=session.deadline.left()):
        raise Transient(f"{session.remote.host} is still being fetched from")
    try:
        _forget_unused(cache, keep=key)
        clone = _prepare(session, cache / key)
        with closing(git.Repo(clone)) as repository:
            repository.git.update_environment(**session.environment)
            if _type(repository, commit) is None:
                _fetch(session, clone, ref=ref, commit=commit)
            yield _commit(repository, commit)
    finally:
        lock.release()


def _prepare(session: Session, clone: Path) -> Path:
    """Makes the clone, anew if it has grown or an earlier fetch was cut off."""
    size, packs = _packs(clone)
    if (clone / _FETCHING).exists() or size > _KEPT_BYTES or packs > _KEPT_PACKS:
        shutil.rmtree(clone)
    if not (clone / "HEAD").exists():
        session.run("init", "--bare", "--quiet", "--template=", "--", str(clone))
    os.utime(clone)
    return clone


def _packs(clone: Path) -> tuple[int, int]:
    sizes = []
    for pack in (clone / "objects" / "pack").glob("*"):
        try:
            sizes.append(pack.stat().st_size)
        except FileNotFoundError:
            continue  # git renames what it has received
    return sum(sizes), len(sizes) // 2


def _type(repository: git.Repo, commit: str) -> str | None:
    try:
        kind: bytes = repository.odb.info(bytes.fromhex(commit)).type
        return kind.decode()
    except (ValueError, git.exc.ODBError):
        return None


def _commit(repository: git.Repo, commit: str) -> git.Commit:
    kind = _type(repository, commit)
    if kind is None:
        raise SourceError("RefNotFound", f"commit {commit} is gone from the ref; it has moved on")
    if kind != "commit":
        raise SourceError("RefNotFound", f"{commit} is a {kind}, not a commit")
    return git.Commit(repository, bytes.fromhex(commit))


def _fetch(session: Session, clone: Path, *, ref: str, commit: str) -> None:
    marker = clone / _FETCHING
    marker.touch()
    try:
        _fetch_one(session, clone, commit)
    except SourceError as error:
        if error.reason != "RefNotFound" or ref == commit:
            raise
        # Servers before protocol 2 hand out nothing but what a branch or a tag points at.
        _fetch_ref(session, clone, ref)
    marker.unlink()


def _fetch_ref(session: Session, clone: Path, ref: str) -> None:
    try:
        _fetch_one(session, clone, f"refs/heads/{ref}")
    except SourceError as error:
        if error.reason != "RefNotFound":
            raise
        _fetch_one(session, clone, f"refs/tags/{ref}")


def _fetch_one(session: Session, clone: Path, what: str) -> None:
    def check() -> None:
        if _packs(clone)[0] > FETCH_LIMIT:
            raise SourceError(
                "SourceTooLarge",
                f"one commit of the repository is larger than {FETCH_LIMIT >> 20} MiB",
            )

    session.run(
        f"--git-dir={clone}",
        "-c",
        "fetch.unpackLimit=1",
        "fetch",
        "--quiet",
        "--depth=1",
        "--no-tags",
        "--no-recurse-submodules",
        "--no-write-fetch-head",
        "--",
        session.remote.url,
        f"+{what}:{_OWN_REF}",
        check=check,
    )


def _forget_unused(cache: Path, keep: str) -> None:
    """Drops the clones that no Project has used for a day."""
    cache.mkdir(parents=True, exist_ok=True)
    for clone in cache.iterdir():
        lock = _locks.setdefault(clone.name, threading.Lock())
        if clone.name == keep or not lock.acquire(blocking=False):
            continue
        try:
            if clone.exists() and clone.stat().st_mtime < time.time() - _KEPT_SECONDS:
                shutil.rmtree(clone)
        finally:
            lock.release()
