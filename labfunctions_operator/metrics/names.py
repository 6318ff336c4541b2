"""Keeps labels bounded: only objects that exist get values of their own, and only so many."""

from labfunctions_operator.kube.cache import Cache
from labfunctions_operator.metrics.catalog import OTHER


class Names:
    """The label values of one kind.

    Args:
        cache: Of the kind.
        limit: How many objects get values of their own at once.
    """

    def __init__(self, cache: Cache, limit: int) -> None:
        self._cache = cache
        self._limit = limit
        self._admitted: set[tuple[str, str]] = set()

    def label(self, namespace: str, name: str) -> str:
        """Return the name itself, or what it shares with all that are too many or not there."""
        key = (namespace, name)
        if not name or key in self._admitted:
            return name
        if len(self._admitted) >= self._limit or self._cache.get(namespace, name) is None:
            return OTHER
        self._admitted.add(key)
        return name

    def forget_gone(self) -> list[tuple[str, str]]:
        """Return the objects that are gone, whose values are free for others now."""
        gone = [key for key in self._admitted if self._cache.get(*key) is None]
        self._admitted.difference_update(gone)
        return gone
