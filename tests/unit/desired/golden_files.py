"""Compares with the files in golden/; `UPDATE_GOLDEN=1` writes them anew, for review as a diff."""

import os
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "golden"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def assert_golden_yaml(name: str, manifest: Any) -> None:
    text = yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    assert_golden(f"{name}.yaml", text)


def assert_golden(name: str, text: str) -> None:
    path = FOLDER / name
    if os.environ.get("UPDATE_GOLDEN"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.is_file(), f"{name} is missing: run with UPDATE_GOLDEN=1 and review it"
    assert text == path.read_text(), f"{name} differs: run with UPDATE_GOLDEN=1 and review the diff"
