"""Which answers are about the order, and which only about the way to the upstream."""

from typing import Final

import msgspec

from orders.upstream.transport import Reply

# The error codes of the contracts of Inventory and Payment. A 4xx without one comes from something
# in between (a proxy, a wrong route, a gateway) and says nothing of the order.
CODES: Final = frozenset(
    {
        "invalid",
        "invalid_cursor",
        "too_large",
        "conflict",
        "out_of_stock",
        "unknown_reservation",
        "not_committed",
        "already_committed",
        "already_released",
        "already_returned",
        "unknown_attempt",
        "unknown_capture",
        "not_captured",
        "exceeds_capture",
    }
)


class _Problem(msgspec.Struct):
    error: str = ""


def error_code(reply: Reply) -> str:
    """Return the machine-readable code of a 4xx answer; empty if it has none."""
    try:
        return msgspec.json.decode(reply.body, type=_Problem).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def has_code(reply: Reply) -> bool:
    """Tell whether a 4xx answer is one of the contract."""
    return error_code(reply) in CODES
