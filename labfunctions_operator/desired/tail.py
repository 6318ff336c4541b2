"""What a notebook printed last, as its executed copy has it: the runner has masked it already."""

import json
import re
from collections.abc import Iterator
from typing import Any

LINES = 40
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def tail_of(notebook: bytes) -> list[str]:
    """Return the last lines of the cell that failed, or else of the last cell that printed.

    A notebook that cannot be read has none.
    """
    try:
        cells = json.loads(notebook)["cells"]
        printed = [(cell, lines) for cell in cells if (lines := list(_printed(cell)))]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    failed = [lines for cell, lines in printed if _has_failed(cell)]
    last = failed or [lines for _, lines in printed]
    return last[-1][-LINES:] if last else []


def _has_failed(cell: dict[str, Any]) -> bool:
    return any(output.get("output_type") == "error" for output in cell["outputs"])


def _printed(cell: dict[str, Any]) -> Iterator[str]:
    for output in cell.get("outputs", ()):
        if output.get("output_type") == "error":
            text = f"{output.get('ename', '')}: {output.get('evalue', '')}"
        else:
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
        if isinstance(text, list):
            text = "".join(text)
        # What is written over, as a progress bar is, has not stayed.
        lines = _ANSI.sub("", text).rstrip("\n").split("\n")
        yield from (line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines if line.strip())
