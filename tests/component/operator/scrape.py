"""What Prometheus would store of one scrape of the operator."""

from dataclasses import dataclass

import urllib3
from prometheus_client.parser import text_string_to_metric_families

PREFIX = "labfunctions_"


@dataclass(frozen=True)
class Scrape:
    """Series by name and labels."""

    series: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def __len__(self) -> int:
        return len(self.series)

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of all series of that name with these labels; 0 where there is none."""
        return sum(self.all(name, **labels).values())

    def all(self, name: str, **labels: str) -> dict[frozenset[tuple[str, str]], float]:
        wanted = labels.items()
        return {
            found: value
            for (stored, found), value in self.series.items()
            if stored == PREFIX + name and wanted <= dict(found).items()
        }


def scrape(url: str) -> Scrape:
    with urllib3.PoolManager(retries=False, timeout=10) as pool:
        answer = pool.request("GET", url)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return Scrape(
        {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(answer.data.decode())
            for sample in family.samples
        }
    )
