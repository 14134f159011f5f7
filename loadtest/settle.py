"""After the load: wait until every order has ended, then check the books."""

import time
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from loadtest import reversals
from loadtest.books import Books, Payment, Reservation
from loadtest.evidence import Evidence
from loadtest.invariants import IN_LEDGERS, InvariantCheck, check, unended
from loadtest.purchase import Purchase
from loadtest.target import simulators
from loadtest.target.addresses import Target
from loadtest.target.orders import Orders

Entry = TypeVar("Entry", Payment, Reservation)
_LOOK_EVERY_S: Final = 1.0
# After an order's end the next message commits or releases its stock.
_BOOKED_WITHIN_S: Final = 30.0


def settle(
    target: Target,
    orders: Orders,
    purchases: Sequence[Purchase],
    stock: Mapping[int, int],
    within_s: float,
) -> tuple[Books, list[InvariantCheck], float]:
    """Return the books, the violations, and the time until the last order ended."""
    start = time.monotonic()
    _await_ends(orders, purchases, start + within_s)
    took_s = time.monotonic() - start
    deadline = time.monotonic() + _BOOKED_WITHIN_S
    while True:
        books = read(target, orders, purchases)
        findings = check(Evidence(purchases, books, stock))
        if not any(map(mendable, findings)) or time.monotonic() > deadline:
            return books, findings, round(took_s, 1)
        time.sleep(_LOOK_EVERY_S)


def mendable(finding: InvariantCheck) -> bool:
    """Return whether waiting may help: only the ledgers lag behind an order's end."""
    return not finding.holds and finding.invariant in IN_LEDGERS


def _await_ends(orders: Orders, purchases: Sequence[Purchase], deadline: float) -> None:
    while time.monotonic() < deadline:
        books = Books(orders.read(purchases), orders.whole, None, None)
        evidence = Evidence(purchases, books)
        if not any(unended(evidence)) and not any(reversals.unmade(evidence)):
            return
        time.sleep(_LOOK_EVERY_S)


def _since(order_id: int, entries: list[Entry] | None) -> list[Entry] | None:
    """Return the entries of later orders; None if the ledger cannot be read."""
    return None if entries is None else [entry for entry in entries if entry.order_id > order_id]


def read(target: Target, orders: Orders, purchases: Sequence[Purchase]) -> Books:
    """Read all books: the ledgers after the orders, so that no charge is missed."""
    found_orders = orders.read(purchases)
    payments = simulators.payments(target.payment) if target.payment else None
    reservations = simulators.reservations(target.inventory) if target.inventory else None
    return Books(
        found_orders,
        orders.whole,
        _since(orders.after, payments),
        _since(orders.after, reservations),
        alone=target.stack is not None,
    )
