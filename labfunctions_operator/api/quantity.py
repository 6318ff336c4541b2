"""Kubernetes quantities, as far as memory and the size of nodes need them."""

import re
from decimal import ROUND_CEILING, Decimal

_QUANTITY = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P|m)?$")
_UNITS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTP", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTP", 1)},
}
_MEBIBYTE = 2**20


def parse_quantity(text: str) -> Decimal | None:
    """Read an amount of anything, or None where it is not written as one."""
    match = _QUANTITY.match(text)
    return Decimal(match[1]) * _UNITS[match[2] or ""] if match else None


def parse_bytes(text: str) -> int:
    """Read an amount of memory, such as `512Mi`, `1.5Gi` or `1G`.

    Raises:
        ValueError: It is not one.
    """
    amount = parse_quantity(text)
    if amount is None:
        raise ValueError(f"{text!r} is not an amount of memory such as 512Mi or 2Gi")
    return int(amount.to_integral_value(rounding=ROUND_CEILING))


def format_bytes(amount: int) -> str:
    """Write an amount of memory in mebibytes, rounded up."""
    return f"{-(-amount // _MEBIBYTE)}Mi"
