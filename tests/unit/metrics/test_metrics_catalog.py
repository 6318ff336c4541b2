"""The catalog is the only source: of what is served, and of docs/metrics.md."""

from pathlib import Path

import pytest
from scrape import Scraped

from labfunctions_operator.metrics.__main__ import page
from labfunctions_operator.metrics.catalog import CATALOG, Definition

ROOT = Path(__file__).parents[3]


def test_docs_are_fresh() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == page(), "run make generate"


def test_everything_in_the_catalog_is_served_and_nothing_else() -> None:
    served = {family.name for family in Scraped().registry.collect()}
    documented = {d.name.removesuffix("_total") for d in CATALOG}
    assert documented == {name for name in served if not name.startswith("process_")}


@pytest.mark.parametrize("definition", CATALOG, ids=lambda d: d.name)
def test_names_follow_prometheus(definition: Definition) -> None:
    assert definition.name.startswith("labfunctions_")
    assert definition.name.endswith("_total") == (definition.type == "counter")
    assert bool(definition.buckets) == (definition.type == "histogram")
    assert list(definition.buckets) == sorted(definition.buckets)
    assert "run" not in definition.labels
