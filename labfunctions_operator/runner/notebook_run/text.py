"""Words about values, and texts as a notebook holds and shows them."""

from __future__ import annotations

import difflib
import re

# What JSON calls a value, as Python's annotations write it.
TYPE_NAMES = {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "dict"}


def did_you_mean(name: str, known: list[str]) -> str:
    """The end of a message about an unknown name: what is like it, if anything is."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def joined(text: str | list[str]) -> str:
    """A text that nbformat may have in pieces."""
    return text if isinstance(text, str) else "".join(text)


def first_line(source: str) -> str:
    """The first line of a cell that does something, or its first line at all."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    code = [line for line in lines if not line.startswith("#")]
    return (code or lines or [""])[0][:200]


def strip_ansi(text: str) -> str:
    """The text without terminal colours."""
    return re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text) if "\x1b" in text else text
