"""What the operator says of its own process."""

from tests.component.operator.scrape import Scrape


def process_value(scrape: Scrape, name: str) -> float:
    return scrape.series[f"process_{name}", frozenset()]
