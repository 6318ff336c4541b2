from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from objects import at

from labfunctions_operator.api.project import Retention
from labfunctions_operator.reconcile.retention import Folder, find_expired, group_folders

NOW = at(0) + timedelta(days=100)


def folder(name: str, days: float, workflow: str = "report") -> Folder:
    return Folder(workflow=workflow, name=name, written=NOW - timedelta(days=days))


RUNS = [folder("a", 0.5), folder("b", 5), folder("c", 20), folder("d", 50)]


@pytest.mark.parametrize(
    ("retention", "expired"),
    [
        (Retention(days=10), "cd"),
        (Retention(days=90), ""),
        (Retention(keep_last=1), "bcd"),
        (Retention(keep_last=9), ""),
        (Retention(days=10, keep_last=3), "d"),
        (Retention(days=30, keep_last=1), "d"),
    ],
)
def test_a_run_goes_that_is_past_all_limits_given(retention: Retention, expired: str) -> None:
    found = find_expired(reversed(RUNS), live=(), retention=retention, now=NOW)
    assert "".join(sorted(f.name for f in found)) == expired


def test_each_workflow_keeps_its_own_last_runs() -> None:
    runs = [folder("a", 1), folder("b", 2), folder("c", 3, "other")]
    found = find_expired(runs, live=(), retention=Retention(keep_last=1), now=NOW)
    assert [f.name for f in found] == ["b"]


def test_a_live_run_and_one_that_was_just_written_stay() -> None:
    runs = [folder("old-and-live", 50), folder("fresh", 0.01), folder("newest", 0)]
    found = find_expired(runs, live={"old-and-live"}, retention=Retention(keep_last=1), now=NOW)
    assert found == []


@given(
    ages=st.lists(st.floats(0, 300), max_size=20),
    live=st.sets(st.integers(0, 19)),
    days=st.none() | st.integers(1, 200),
    keep_last=st.none() | st.integers(1, 10),
)
def test_no_live_run_goes_and_the_last_ones_stay(
    ages: list[float], live: set[int], days: int | None, keep_last: int | None
) -> None:
    if days is None and keep_last is None:
        return
    runs = [folder(str(number), age) for number, age in enumerate(ages)]
    retention = Retention(days=days, keep_last=keep_last)
    names = {str(number) for number in live}
    found = find_expired(runs, live=names, retention=retention, now=NOW)
    assert not names & {f.name for f in found}
    kept = len(runs) - len(found)
    assert kept >= min(len(runs), keep_last or 0)
    kept_runs = [f for f in runs if f not in found]
    assert find_expired(kept_runs, live=names, retention=retention, now=NOW) == []


def test_files_are_joined_to_runs_and_strangers_left_out() -> None:
    files = [
        ("report/first-1234abcd/1/notebook.ipynb", at(0)),
        ("report/first-1234abcd/run.json", at(60)),
        ("report/notes.txt", at(0)),
        ("loose", at(0)),
        ("report//x", at(0)),
    ]
    assert group_folders(files) == [
        Folder(workflow="report", name="first-1234abcd", written=at(60))
    ]
