"""Deadlines per status: when an order is emitted again, and when it needs a person."""

from typing import Final

import msgspec

from orders.domain.lifecycle import Status


class Deadline(msgspec.Struct, frozen=True):
    """The row of one status.

    `after_s`: seconds without progress until work is emitted again. Each further emission waits
    twice as long as the one before, up to `longest_s`. After `stalls` emissions that changed
    nothing, the order needs a person.
    """

    after_s: float
    longest_s: float = 6 * 3600.0
    stalls: int = 3


# A message's own retries take about eleven minutes: sooner than that, both would do the work.
_BEYOND_RETRIES: Final = 900.0

DEADLINES: Final[dict[Status, Deadline]] = {
    Status.PENDING: Deadline(_BEYOND_RETRIES),
    Status.RESERVED: Deadline(_BEYOND_RETRIES),
    # The customer does not know whether they paid: ask Payment at least every hour.
    Status.CHARGING: Deadline(_BEYOND_RETRIES, longest_s=3600.0),
    Status.REFUNDING: Deadline(_BEYOND_RETRIES, longest_s=3600.0),
    # Ended orders owe stock or a refund.
    Status.COMPLETED: Deadline(_BEYOND_RETRIES),
    Status.FAILED: Deadline(_BEYOND_RETRIES),
    Status.CANCELLED: Deadline(_BEYOND_RETRIES),
    Status.REFUNDED: Deadline(_BEYOND_RETRIES),
}


def deadlines(after_s: float | None = None) -> dict[Status, Deadline]:
    """Return the table; with `after_s`, every status has that first deadline instead of its own."""
    if after_s is None:
        return DEADLINES
    return {
        status: msgspec.structs.replace(deadline, after_s=after_s)
        for status, deadline in DEADLINES.items()
    }
