"""What nodes offer and pods ask for: resource names to quantities, as the API writes them."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from labfunctions_operator.api.quantity import parse_quantity
from labfunctions_operator.api.times import parse_time
from labfunctions_operator.reconcile.fitting import is_told

Object = Mapping[str, Any]

# Nodes of one kind differ by some kibibytes of memory: that is no other kind.
_ALIKE = Decimal("0.02")
# A node joins before its devices are announced: until then it has what others have.
JOINING = timedelta(minutes=10)


def requests_of(pod_spec: Object) -> dict[str, str]:
    """Return what the containers of a pod ask for together, the courier included."""
    total: dict[str, Decimal] = {}
    sidecars = [c for c in pod_spec.get("initContainers") or () if c.get("restartPolicy")]
    for container in (*sidecars, *(pod_spec.get("containers") or ())):
        resources = container.get("resources") or {}
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for name, text in asked.items():
            total[name] = total.get(name, Decimal(0)) + (parse_quantity(str(text)) or Decimal(0))
    return {name: str(amount) for name, amount in total.items()}


def offer(node: Object) -> dict[str, str]:
    """Return what of a node pods can ask for: CPU, memory and extended resources."""
    allocatable = node.get("status", {}).get("allocatable") or {}
    return {name: str(text) for name, text in sorted(allocatable.items()) if is_told(name)}


def coming_node(resources: Mapping[str, str], devices: Mapping[str, str]) -> dict[str, str]:
    """Return what the next node offers: as others, but no fewer devices than said.

    It may have more: what is said is what one Run gets.
    """
    more = {
        name: text
        for name, text in devices.items()
        if (parse_quantity(resources.get(name, "0")) or 0) < (parse_quantity(text) or 0)
    }
    return {**resources, **more}


def joined(
    node: Object, offered: dict[str, str], coming: Mapping[str, str], now: datetime
) -> dict[str, str]:
    """Add what a node will have that has just joined."""
    is_new = parse_time(node["metadata"]["creationTimestamp"]) + JOINING > now
    if not offered or not is_new:
        return offered
    return {**{name: text for name, text in coming.items() if "/" in name}, **offered}


def newest_offer(
    nodes: Sequence[Object], offers: Sequence[Mapping[str, str]], known: Mapping[str, str]
) -> Mapping[str, str]:
    """Return what the newest node offers, or what is known if that is as good as the same."""
    newest = max(
        (
            (node["metadata"]["creationTimestamp"], node["metadata"]["name"], offered)
            for node, offered in zip(nodes, offers, strict=True)
            if offered
        ),
        default=None,
    )
    if newest is None or _are_alike(newest[2], known):
        return known
    return newest[2]


def _are_alike(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    if one.keys() != other.keys():
        return False
    for name, text in one.items():
        amount, before = parse_quantity(text), parse_quantity(other[name])
        if amount is None or before is None or abs(amount - before) > before * _ALIKE:
            return False
    return True
