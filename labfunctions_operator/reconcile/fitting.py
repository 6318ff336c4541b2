"""Which of the Runs that wait fit onto which nodes; both may be there by the thousand."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from labfunctions_operator.api.quantity import parse_quantity

# What a node's size is told by; pods and ephemeral storage say nothing of a Run.
_TOLD = ("cpu", "memory")


class Fitting(NamedTuple):
    """What fits.

    Attributes:
        runs: How many Runs fit onto a node of some size; all, if no size is known.
        awaited: Of each size, whether one of these Runs fits onto it.
    """

    runs: int
    awaited: list[bool]


def match(waiting: Iterable[Mapping[str, str]], sizes: Sequence[Mapping[str, str]]) -> Fitting:
    """Compare what Runs ask for with the sizes of empty nodes; Runs that are alike only once."""
    offered = [_told(size) for size in sizes]
    alike = Counter(frozenset(_told(requests).items()) for requests in waiting)
    fitting = [r for r in alike if not offered or any(_fits(r, size) for size in offered)]
    return Fitting(
        runs=sum(alike[requests] for requests in fitting),
        awaited=[any(_fits(r, size) for r in fitting) for size in offered],
    )


def is_told(name: str) -> bool:
    """Whether a resource tells a node's size: CPU, memory and extended resources."""
    return name in _TOLD or "/" in name


def _told(resources: Mapping[str, str]) -> dict[str, Decimal]:
    return {
        name: parse_quantity(text) or Decimal(0)
        for name, text in resources.items()
        if is_told(name)
    }


def _fits(requests: Iterable[tuple[str, Decimal]], size: Mapping[str, Decimal]) -> bool:
    return all(amount <= size.get(name, 0) for name, amount in requests)
