"""What travels to the user's image, and that any Python there can run it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from labfunctions_operator.runner import archive

SOURCES = archive.sources()


def imported(nodes: list[ast.AST]) -> set[str]:
    """The modules that import statements name, among the given nodes."""
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


def test_all_modules_travel_and_nothing_else_is_in_their_packages() -> None:
    package = "labfunctions_operator/runner/notebook_run"
    assert {name.split("/")[0] for name in SOURCES} == {"labfunctions_operator", "__main__.py"}
    assert SOURCES["labfunctions_operator/__init__.py"] == ""
    assert SOURCES["labfunctions_operator/runner/__init__.py"] == ""
    others = {name for name in SOURCES if not name.startswith(package)}
    assert len(others) == 3


def test_the_zip_is_the_same_each_time_and_its_main_program_runs_alone(tmp_path: Path) -> None:
    """With no module but the standard library's, and none of them at a path of ours."""
    packed = archive.zipped(SOURCES)
    assert packed == archive.zipped(archive.sources())
    ended = subprocess.run(
        [sys.executable, "-I", "-S", archive.install(tmp_path / "bin")],
        env={"LABFUNCTIONS_DIR": str(tmp_path), "TERMINATION_LOG": str(tmp_path / "log")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.startswith("InternalError: ValueError: RUNNER_CONFIG cannot be read")
    assert (ended.returncode, ended.stderr) == (70, "")


@pytest.mark.parametrize("name", SOURCES)
def test_what_travels_is_python_3_8_and_imports_the_standard_library_alone(name: str) -> None:
    tree = ast.parse(SOURCES[name], name, feature_version=(3, 8))
    own = {module for module in imported(list(ast.walk(tree))) if "labfunctions" in module}
    assert {f"{module.replace('.', '/')}.py" for module in own} <= SOURCES.keys()
    others = imported(list(tree.body)) - own
    assert {module.split(".")[0] for module in others} <= sys.stdlib_module_names
