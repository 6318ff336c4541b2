"""What all worlds of the tests have in common: they come to rest."""

from abc import ABC, abstractmethod
from typing import Any


class Settling(ABC):
    """A world in which a reconciler works.

    Attributes:
        writes: All that was written, in words.
    """

    writes: list[str]

    @abstractmethod
    def step(self) -> Any:
        """Reconcile once and carry the plan out."""

    def settle(self) -> list[str]:
        """Reconcile until nothing is written, as events of our own writes make the engine do."""
        before = len(self.writes)
        for _ in range(8):
            count = len(self.writes)
            self.step()
            if len(self.writes) == count:
                return self.writes[before:]
        raise AssertionError(f"it never settles: {self.writes[before:]}")
