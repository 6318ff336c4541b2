"""Which Runs' results the store need not keep any longer."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from labfunctions_operator.api.project import Retention

# A pod whose Run was deleted in flight still uploads for as long as its grace period lasts.
SETTLED_AFTER = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What the store has of one Run.

    Attributes:
        workflow: The folder above it: a Workflow's name, or `adhoc`.
        name: `<run>-<first 8 of its uid>`.
        written: When the newest of its files was written.
    """

    workflow: str
    name: str
    written: datetime


def group_folders(files: Iterable[tuple[str, datetime]]) -> list[Folder]:
    """Join the files of a Project, by their paths within its folder, to Runs.

    A file that lies in no Run's folder is none of ours, and left out.
    """
    written: dict[tuple[str, str], datetime] = {}
    for path, time in files:
        parts = path.split("/")
        if len(parts) < 3 or not all(parts[:3]):
            continue
        run = (parts[0], parts[1])
        written[run] = max(written.get(run, time), time)
    return [Folder(workflow=w, name=n, written=time) for (w, n), time in written.items()]


def find_expired(
    folders: Iterable[Folder], *, live: Collection[str], retention: Retention, now: datetime
) -> list[Folder]:
    """Return the folders to delete: older than `days`, and beyond the last `keepLast`.

    Args:
        folders: Of one Project.
        live: Names of folders that may still be written to.
        retention: A limit that is not given does not hold anything back.
        now: The time by the store's clock, or near it.
    """
    before = now - max(SETTLED_AFTER, timedelta(days=retention.days or 0))
    by_workflow: dict[str, list[Folder]] = defaultdict(list)
    for folder in folders:
        by_workflow[folder.workflow].append(folder)
    expired = []
    for runs in by_workflow.values():
        runs.sort(key=lambda folder: (folder.written, folder.name), reverse=True)
        beyond = runs[retention.keep_last or 0 :]
        expired += [f for f in beyond if f.written < before and f.name not in live]
    return expired
