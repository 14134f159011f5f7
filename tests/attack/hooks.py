"""For schemathesis: the rules that no schema can say, and what is known beforehand.

Read by `SCHEMATHESIS_HOOKS=attack.hooks`.
"""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

import schemathesis

from orders.api.order_list import DEFAULT_PAGE_SIZE, MAX_DEPTH
from orders.domain.order import CENT

_MONEY: Final = ("total", "amount")
_LARGEST_MONEY: Final = 1e15  # beyond it a float has no cents, and Decimal no digits for them
_INTEGERS: Final = ("userId", "productId", "quantity")


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:
    """Leave out valid requests that rules stated only in text refuse."""
    query = case.query or {}
    return "cursor" not in query and _depth(query) <= MAX_DEPTH


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    """Write whole cents as such (0.57 and not 0.5700000000000001), and integers as integers."""
    if isinstance(body, dict):
        return {name: _as_written(name, value) for name, value in body.items()}
    return body


def _depth(query: Any) -> int:
    try:
        return int(query.get("page", 1)) * int(query.get("pageSize", DEFAULT_PAGE_SIZE))
    except (ValueError, TypeError, AttributeError):
        return 0


def _as_written(name: str, value: Any) -> Any:
    if not isinstance(value, float):
        return value
    if name in _INTEGERS and value.is_integer():
        return int(value)
    return _cents(value) if name in _MONEY else value


def _cents(value: float) -> float:
    if not abs(value) < _LARGEST_MONEY:  # nor NaN: neither has cents
        return value
    exact = Decimal(str(value)).quantize(CENT, ROUND_HALF_EVEN)
    return float(exact) if abs(float(exact) - value) < 1e-9 else value
