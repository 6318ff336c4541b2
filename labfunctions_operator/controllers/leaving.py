"""What is put back at a pool that no group looks after any more: a minimum raised for a time.

There is no finalizer, so nothing here is certain: an operator that is down while a group is deleted
lowers nothing. The mark at the pool then says since when nobody needs the raise.
"""

from collections.abc import Sequence
from dataclasses import replace

from labfunctions_operator.api.nodegroup import NodeGroup
from labfunctions_operator.providers.nodes.hints import RAISED_UNTIL
from labfunctions_operator.providers.nodes.protocol import NodeProvider
from labfunctions_operator.reconcile.bounds import bounds_of, on_record
from labfunctions_operator.reconcile.nodes import Bounds, GroupSize
from labfunctions_operator.reconcile.offers import coming_node


def raise_on_record(group: NodeGroup) -> Bounds | None:
    """Return the raise that a group's status tells of, if there is one of its very pool."""
    wanted = on_record(group).wanted
    if wanted is None or wanted.until is None:
        return None
    return bounds_of(group, wanted, coming_node(group.status.node_resources, group.spec.devices))


async def lower_raise(provider: NodeProvider, told: Sequence[Bounds], least: int) -> bool:
    """Lower the minimum of a pool if it is raised by our word.

    A mark of another time is another group's, and a minimum that was never told is somebody's own.
    Without a mark, which anybody can remove, a pool is ours that shows a raise as it was told.

    Args:
        provider: Of the pool.
        told: What it was told, or may have been, the last one at the end.
        least: The group's own minimum.

    Returns:
        Whether something was written.

    Raises:
        Transient, Denied, NotFound, InvalidSpec, Drifted: Of the provider.
    """
    raises = [bounds for bounds in told if bounds.raised_until]
    if not raises:
        return False
    seen = await provider.read()
    if not _is_raised(seen, raises):
        return False
    is_ours = seen.min in {bounds.min for bounds in told}
    lower = min(least, seen.max) if is_ours else seen.min
    await provider.write(replace(told[-1], min=lower, max=seen.max, raised_until=None), seen)
    return True


def _is_raised(seen: GroupSize, raises: Sequence[Bounds]) -> bool:
    mark = seen.tags.get(RAISED_UNTIL)
    if mark is None:
        return seen.min in {bounds.min for bounds in raises}
    return mark in {bounds.raised_until for bounds in raises}
