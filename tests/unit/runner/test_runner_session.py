"""What an execution knows of itself."""

import time
from pathlib import Path

from executions import session


def test_a_limit_that_passes_is_known_by_its_name(tmp_path: Path) -> None:
    assert session(tmp_path).overdue() == ""
    late = session(tmp_path, run=5, cell=2)
    late.cell_started(0)
    assert late.overdue() == ""
    late.cell_started_at = time.monotonic() - 3
    assert late.overdue() == "CellTimedOut"
    late.started -= 6
    assert late.overdue() == "TimedOut"
    late.cell_ended()
    late.started += 6
    assert late.overdue() == ""
