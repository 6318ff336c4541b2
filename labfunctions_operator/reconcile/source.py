"""What is known of a project's source: facts for decisions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from labfunctions_operator.reconcile.plan import Problem
from labfunctions_operator.runner.notebook_run.declared import Declared


@dataclass(frozen=True)
class Notebook:
    """A file that claims to be a notebook.

    Attributes:
        sha256: Of the file as it is in git.
        error: Why it cannot be used as a notebook; None when it can.
        declared: The parameters of its `parameters` cell; None when that cannot be told, as in
            languages other than Python, so that any parameter may fit.
        language: Of its kernel, such as `python`; None when it does not say.
    """

    sha256: str
    error: str | None = None
    declared: tuple[Declared, ...] | None = ()
    language: str | None = None


@dataclass(frozen=True)
class SourceSnapshot:
    """What the operator knows of one folder at one commit.

    Attributes:
        commit: 40 hexadecimal digits.
        author: Who wrote the commit.
        message: The first line of the commit's message.
        committed_at: With its time zone.
        tree: The id of the folder's content: the same content, the same id.
        files: Texts of the requirement inputs and of the wanted files that exist, by their path
            within the folder.
        notebooks: By their path within the folder.
    """

    commit: str
    author: str
    message: str
    committed_at: datetime
    tree: str
    files: Mapping[str, str]
    notebooks: Mapping[str, Notebook]


@dataclass(frozen=True, kw_only=True)
class SourceView:
    """What is known of a source.

    Attributes:
        snapshot: The last good reading.
        problem: What went wrong since.
        tried: Whether a reading has ended, however it did.
    """

    snapshot: SourceSnapshot | None = None
    problem: Problem | None = None
    tried: bool = False
