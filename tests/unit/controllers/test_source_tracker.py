"""Following a source: what is under way when that is stopped has no effect any more."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from objects import make_project, make_source

from labfunctions_operator.controllers import source
from labfunctions_operator.controllers.source import SourceTracker
from labfunctions_operator.reconcile.plan import Key

KEY = Key("Project", "team", "demo")


async def test_a_reading_under_way_when_a_project_is_paused_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started, answered = threading.Event(), threading.Event()

    def resolve(*_: Any, **__: Any) -> str:
        started.set()
        assert answered.wait(5)
        return "c" * 40

    monkeypatch.setattr(source, "resolve_ref", resolve)
    monkeypatch.setattr(source, "read_source", lambda *_, **__: make_source())
    heard: list[bool] = []
    client: Any = None
    tracker = SourceTracker(client, tmp_path, lambda _, news: heard.append(news))
    assert tracker.follow(KEY, make_project()) is None
    reading: Any = tracker._readings[KEY].task
    await tracker._in_thread(started.wait, 5)
    tracker.pause(KEY)
    answered.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert (tracker.view(KEY).snapshot, heard) == (None, [])
    assert tracker.follow(KEY, make_project()) is None, "it is read as soon as it is followed"
    again: Any = tracker._readings[KEY].task
    await again
    assert heard == [True]
    await tracker.close()
