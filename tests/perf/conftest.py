"""The servers of the component tests; a benchmark takes its time."""

from pathlib import Path

import pytest

from dev.cluster import kwok
from dev.cluster.binaries import ensure
from tests.component.conftest import control_plane, kubectl
from tests.component.operator.conftest import (
    _operator,
    api,
    asked,
    git_server,
    inbox_server,
    repository,
    store,
)
from tests.component.operator.process import OperatorProcess

__all__ = ["_operator", "api", "asked", "control_plane", "git_server", "kubectl"]
__all__ += ["inbox_server", "repository", "store"]
HERE = Path(__file__).parent
SECONDS = 1500


@pytest.fixture
def operator(_operator: OperatorProcess) -> OperatorProcess:
    """The operator, not started yet."""
    _operator.stop()
    return _operator


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.timeout(SECONDS))
    if ours and not config.option.collectonly:
        ensure(("kubernetes", "kubectl", "etcd", "helm", "versitygw", *kwok.COMPONENTS))
