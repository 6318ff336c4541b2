"""What README and docs name is there: files, folders, make targets, links."""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TOP = {path.name for path in ROOT.iterdir()}
# Sources of the operator may be named without their package.
PACKAGE = ROOT / "labfunctions_operator"


def spelled_out(name: str) -> Iterator[str]:
    """Write {a,b}.py as a.py and b.py, as a shell does."""
    parts = re.split(r"\{([^{}]*)\}", name)
    choices = [part.split(",") if n % 2 else [part] for n, part in enumerate(parts)]
    yield from map("".join, product(*choices))


def named_files(text: str) -> set[str]:
    """Return what looks like a path of ours in code spans."""
    spans = re.findall(r"`([\w./*{},-]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    ours = TOP | {path.name for path in PACKAGE.iterdir()}
    return {s for s in spans if "/" in s and s.split("/")[0] in ours}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    missing = [
        path
        for name in named_files(page.read_text())
        for path in spelled_out(name)
        if not any(True for root in (ROOT, PACKAGE) for _ in root.glob(path.rstrip("/")))
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_make_targets_of_a_page_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {word for line in targets for word in line.split()}
    named = re.findall(r"(?:`|^|&& )make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE)
    assert set(named) <= known


def test_every_module_has_a_place_in_the_map() -> None:
    """Each file of the operator stands in the table of docs/architecture.md, or its folder does."""
    text = (ROOT / "docs/architecture.md").read_text()
    listed = {
        p for name in named_files(text) for path in spelled_out(name) for p in ROOT.glob(path)
    }
    modules = {p for p in PACKAGE.rglob("*.py") if not p.name.startswith("__")}
    lost = {p for p in modules if p not in listed and not listed & set(p.parents)}
    assert sorted(str(p.relative_to(ROOT)) for p in lost) == []
