"""The bounds of an order, and when two requests ask for the same one."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.domain.order import InvalidTotal, NewOrder, parse_total


@pytest.mark.parametrize(
    ("literal", "amount"),
    [
        (b"19.9", "19.90"),
        (b"20", "20.00"),
        (b"1e1", "10.00"),
        (b"1E+1", "10.00"),
        (b"0.01", "0.01"),
        (b"99999999.99", "99999999.99"),
        (b"1.500", "1.50"),
        (b"1999e-2", "19.99"),
    ],
)
def test_a_number_with_at_most_two_significant_decimals_is_money(
    literal: bytes, amount: str
) -> None:
    assert str(parse_total(literal)) == amount


@pytest.mark.parametrize(
    "literal",
    [
        b"0", b"-1", b"-0", b"0.001", b"1.005", b"100000000", b"99999999.991", b"1e9",
        b"1e999999999", b"1e-999999999", b"1e9999999999", b'"19.90"', b"true", b"null", b"[]",
        b"{}", b"NaN", b"01", b"1.", b".5", b"+1", b"1_0", b"\xd9\xa1", b"", b"1 ",
    ],
)  # fmt: skip
def test_anything_else_is_refused(literal: bytes) -> None:
    with pytest.raises(InvalidTotal):
        parse_total(literal)


@given(st.decimals(min_value="0.01", max_value="99999999.99", places=2))
def test_money_survives_its_literal_to_the_cent(amount: Decimal) -> None:
    assert parse_total(str(amount).encode()) == amount


def test_the_fingerprint_is_over_values_not_spelling() -> None:
    first = NewOrder(1, 2, 3, parse_total(b"19.9"), "card")
    same = NewOrder(1, 2, 3, Decimal("19.90"), "card")
    assert first.fingerprint() == same.fingerprint()


@pytest.mark.parametrize(
    "other",
    [
        NewOrder(2, 2, 3, Decimal(1), "card"),
        NewOrder(1, 3, 3, Decimal(1), "card"),
        NewOrder(1, 2, 4, Decimal(1), "card"),
        NewOrder(1, 2, 3, Decimal(2), "card"),
        NewOrder(1, 2, 3, Decimal(1), "cash"),
        NewOrder(12, 3, 3, Decimal(1), "card"),
    ],
)
def test_every_member_counts_in_the_fingerprint(other: NewOrder) -> None:
    assert NewOrder(1, 2, 3, Decimal(1), "card").fingerprint() != other.fingerprint()
