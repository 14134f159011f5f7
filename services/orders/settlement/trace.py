"""`orders trace`: the history of one order on a terminal.

It combines the stored rows with the ledgers of Payment and Inventory.
"""

import argparse
import datetime as dt
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

import msgspec

from orders.database.pool import Pool
from orders.domain.lifecycle import Reason
from orders.errors import OrdersError
from orders.settlement.connections import database, payment_ledger, stock_ledger
from orders.upstream.ledgers import Ledger, PaymentEntry, StockEntry

NOT_ASKED: Final = 3
_ROW: Final = "{:27}  {:>11}  {:12}  {}"

E = TypeVar("E", bound=PaymentEntry | StockEntry)

Facts = dict[str, Any]


class Stored(msgspec.Struct, frozen=True):
    """The rows of the database about an order."""

    order: Facts | None = None
    history: list[Facts] = []
    attempts: list[Facts] = []
    notifications: list[Facts] = []
    outbox: list[Facts] = []
    stalled: Facts | None = None
    cases: list[Facts] = []
    actions: list[Facts] = []


class TraceEvent(msgspec.Struct, frozen=True):
    """One event. `source` names the clock of `at`."""

    at: dt.datetime
    source: str
    what: str


class OrderTrace(msgspec.Struct, frozen=True, rename="camel"):
    """The whole history; `unknown` names the sources that could not be read, and why.

    `exists` is None if the database could not be read. `needs` is what a person has to do.
    """

    order_id: int
    exists: bool | None
    order: Facts | None
    events: list[TraceEvent]
    waiting: list[str]
    needs: list[str]
    unknown: list[str]


def run(chosen: argparse.Namespace) -> int:
    """Print the history; return 0: the order exists, 1: it does not, 3: no database."""
    with database() as pool:
        trace = trace_order(pool, chosen.order, _announce)
    if chosen.json:
        print(msgspec.json.format(msgspec.json.encode(trace), indent=2).decode())
    else:
        print("\n".join(_lines(trace)))
    return NOT_ASKED if trace.exists is None else int(not trace.exists)


def _announce(name: str) -> None:
    print(f"asking {name} ...", file=sys.stderr)


def _lines(trace: OrderTrace) -> Iterator[str]:
    yield _headline(trace)
    if trace.events:
        yield _ROW.format("AT", "AFTER", "BY", "WHAT")
    before: dt.datetime | None = None
    for event in trace.events:
        at = event.at.astimezone(dt.UTC)
        after = f"+{(at - before).total_seconds():.3f} s" if before else ""
        before = at
        moment = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        yield _ROW.format(moment, after, event.source, _printable(event.what))
    yield from (f"still to come: {_printable(text)}" for text in trace.waiting)
    yield from (f"needs {_printable(text)}" for text in trace.needs)
    yield from (f"not known: {_printable(text)}" for text in trace.unknown)


def _headline(trace: OrderTrace) -> str:
    order = trace.order
    if trace.exists is None:
        return f"order {trace.order_id}: not known whether it exists"
    if order is None:
        return f"order {trace.order_id}: the database has no such order"
    reason = f" ({order['status_reason']})" if order["status_reason"] else ""
    return (
        f"order {trace.order_id}: {order['status']}{reason}, {order['quantity']} × product "
        f"{order['product_id']}, total {order['total']:.2f}, user {order['user_id']}, "
        f"correlation id {_printable(order['correlation_id'])}"
    )


def _printable(text: str) -> str:
    """Return text from other people without control characters of a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def trace_order(pool: Pool, order_id: int, announce: Callable[[str], None]) -> OrderTrace:
    """Return the history of an order, as far as it can be read. Never raises OrdersError.

    `announce` is called with the name of each source before it is read, which may take a while.
    """
    unknown: list[str] = []
    stored = _stored(pool, order_id, unknown)
    exists = None if unknown else stored.order is not None
    announce("Payment")
    payments = _entries(payment_ledger, "Payment", order_id, unknown)
    announce("Inventory")
    stock = _entries(stock_ledger, "Inventory", order_id, unknown)
    events = [
        *_transitions(stored),
        *_attempts(stored),
        *_notifications(stored),
        *_others(stored),
        *(_paid(entry) for entry in payments),
        *(_held(entry) for entry in stock),
    ]
    events.sort(key=lambda event: event.at)
    return OrderTrace(
        order_id,
        exists,
        stored.order,
        events,
        list(_waiting(stored)),
        list(_needs(stored)),
        unknown,
    )


def _stored(pool: Pool, order_id: int, unknown: list[str]) -> Stored:
    try:
        [(text,)] = pool.execute("trace_order", {"id": order_id})
    except OrdersError as error:
        unknown.append(f"the database cannot be asked: {error}")
        return Stored()
    return msgspec.json.decode(text, type=Stored)


def _entries(
    opened: Callable[[], AbstractContextManager[Ledger[E]]],
    name: str,
    order_id: int,
    unknown: list[str],
) -> list[E]:
    try:
        with opened() as ledger:
            return ledger.of_order(order_id)
    except OrdersError as error:
        unknown.append(f"{name} cannot be asked: {error}")
        return []


def _transitions(stored: Stored) -> Iterator[TraceEvent]:
    for row in stored.history:
        change = f"{row['from_status']} → {row['to_status']}" if row["from_status"] else "accepted"
        reason = f" {row['reason']}" if row["reason"] else ""
        note = f" “{row['note']}”" if row.get("note") else ""
        yield TraceEvent(_at(row["at"]), "order", f"{change}{reason}, by {row['actor']}{note}")


def _attempts(stored: Stored) -> Iterator[TraceEvent]:
    for row in stored.attempts:
        subject = f"{row['kind']} {row['id']}"
        yield TraceEvent(
            _at(row["created_at"]), "attempt", f"{subject}: {_money(row['amount'])} asked for"
        )
        if row["outcome"] != "unknown":
            yield TraceEvent(_at(row["updated_at"]), "attempt", f"{subject}: {row['outcome']}")


def _notifications(stored: Stored) -> Iterator[TraceEvent]:
    for row in stored.notifications:
        subject = row["template"]
        yield TraceEvent(_at(row["created_at"]), "notification", f"{subject}: to be sent")
        if row["sent_at"]:
            yield TraceEvent(
                _at(row["sent_at"]), "notification", f"{subject}: sent, tries: {row['tries']}"
            )
        elif row.get("ended_at"):
            ended = f"{subject}: {row['outcome']}, tries: {row['tries']}"
            yield TraceEvent(_at(row["ended_at"]), "notification", ended)


def _others(stored: Stored) -> Iterator[TraceEvent]:
    if stored.stalled:
        times = f"{stored.stalled['stalls']} times without an effect"
        yield TraceEvent(_at(stored.stalled["last_at"]), "sweeper", f"emitted again, {times}")
    for row in stored.cases:
        word = "violation" if row["violation"] else "doubt"
        yield TraceEvent(_at(row["seen_at"]), "reconcile", f"{word} {row['kind']}: {row['detail']}")
    for row in stored.actions:
        yield TraceEvent(_at(row["at"]), row["actor"], f"{row['action']}: “{row['because']}”")


def _paid(entry: PaymentEntry) -> TraceEvent:
    text = f"{entry.kind} {entry.attempt_id}: {entry.status} {entry.amount}"
    return TraceEvent(entry.at, "Payment", text)


def _held(entry: StockEntry) -> TraceEvent:
    text = f"{entry.status} {entry.quantity} × product {entry.product_id}"
    return TraceEvent(entry.at, "Inventory", text)


def _waiting(stored: Stored) -> Iterator[str]:
    """Yield what is still to happen."""
    for row in stored.outbox:
        yield f"{row['type']} waits in the outbox since {row['created_at']}"
    for row in stored.attempts:
        if row["outcome"] == "unknown":
            yield f"the outcome of {row['kind']} {row['id']} is not known"
    for row in stored.notifications:
        if not row["sent_at"] and not row.get("ended_at"):
            why = f": {row['last_error']}" if row.get("last_error") else ""
            yield f"{row['template']} is to be sent, tries so far: {row['tries']}{why}"
    if stored.order and stored.order["reservation"] == "held":
        yield "Inventory holds the stock"


def _needs(stored: Stored) -> Iterator[str]:
    """Yield what only a person can do: settle declined refunds, which are not tried again."""
    for row in stored.attempts:
        if row["kind"] == "refund" and row.get("reason") == Reason.REFUND_DECLINED:
            yield (
                f"a person, because Payment declined to pay back {_money(row['amount'])}: "
                f"`orders payments resolve {row['id']} --refunded --against-payment` "
                "once it was paid back otherwise"
            )


def _at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def _money(amount: float) -> str:
    return f"{amount:.2f}"
