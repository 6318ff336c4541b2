"""Tells the operator how far the notebook is; a lost report costs nothing but freshness."""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labfunctions_operator.runner.transfer import Outage, Refusal, post

TICK_SECONDS = 0.5
REPORT_SECONDS = 10.0
# The operator keeps what it has not written yet in its memory, and has one write a minute.
REMINDER_SECONDS = 60.0


def read(path: Path) -> Any:
    """What the runner last said of its progress; None if it did not."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text("utf-8"))
    return None


def report(url: str, progress: Any) -> bool:
    """Tells the operator once; says whether it has heard."""
    try:
        post(url, {"progress": progress})
    except (Refusal, Outage) as error:
        print(f"the progress could not be reported: {error}", flush=True)
        return False
    return True


def follow(
    url: str,
    path: Path,
    is_over: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Reports each change at once and then not too often, until it is heard, and now and then anew.

    An operator that has restarted since does not know what was reported before.
    """
    heard: Any = None
    silence = 0.0
    while not is_over():
        progress = read(path)
        if progress is not None and (progress != heard or silence >= REMINDER_SECONDS):
            heard = progress if report(url, progress) else None
            sleep(REPORT_SECONDS)
            silence = REPORT_SECONDS
        sleep(TICK_SECONDS)
        silence += TICK_SECONDS
