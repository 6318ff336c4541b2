"""Amounts of memory."""

import pytest

from labfunctions_operator.api.quantity import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", 1),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1.5Gi", 3 * 2**29),
        ("1500m", 2),
        ("2T", 2 * 10**12),
    ],
)
def test_an_amount_is_read_in_each_unit(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "-1", "1GiB", "1e3", "lots"])
def test_nonsense_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 512Mi"):
        parse_bytes(text)


def test_an_amount_is_written_in_mebibytes_rounded_up() -> None:
    assert format_bytes(2**20 + 1) == "2Mi"
