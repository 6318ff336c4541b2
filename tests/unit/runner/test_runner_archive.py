"""What travels to the user's image, and that any Python there can run it."""

import ast
import sys

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


@pytest.mark.parametrize("name", SOURCES)
def test_what_travels_is_python_3_8_and_imports_the_standard_library_alone(name: str) -> None:
    tree = ast.parse(SOURCES[name], name, feature_version=(3, 8))
    own = {module for module in imported(list(ast.walk(tree))) if "labfunctions" in module}
    assert {f"{module.replace('.', '/')}.py" for module in own} <= SOURCES.keys()
    others = imported(list(tree.body)) - own
    assert {module.split(".")[0] for module in others} <= sys.stdlib_module_names
