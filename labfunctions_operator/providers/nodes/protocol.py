"""What every provider of nodes can do: say how large a pool is, and move its bounds."""

from typing import Protocol

from labfunctions_operator.reconcile.nodes import Bounds, GroupSize


class NodeProvider(Protocol):
    """One pool of nodes; made for one NodeGroup, and never asked two things at once.

    No call blocks the event loop. All of them raise Transient, Denied, NotFound (no such pool) or
    InvalidSpec (the path begins with `spec.provider`), of `labfunctions_operator.errors`.
    """

    async def read(self) -> GroupSize:
        """Return the pool as it is."""

    async def write(self, bounds: Bounds, seen: GroupSize) -> GroupSize:
        """Set the bounds, and the hints that go with them, and return the pool as it is then.

        Writes nothing that is there already. Raises Drifted if the pool is no longer as `seen`, or
        if it has more nodes than `bounds.max` allows.
        """

    async def close(self) -> None:
        """Let go of connections."""
