"""The manifests in the documentation mean to kubectl what they mean to a reader."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def keys(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_key_is_taken_for_something_else(page: Path) -> None:
    """Like kubectl, PyYAML reads a bare `on`, `no` or `y` as a boolean."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    found = [key for b in blocks for doc in yaml.safe_load_all(b) for key in keys(doc)]
    assert [key for key in found if not isinstance(key, str)] == []
