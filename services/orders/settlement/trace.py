"""`orders trace`: the history of one order on a terminal.

It combines the stored rows with the ledgers of Payment and Inventory.
"""

import argparse
import datetime as dt
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final, TypeVar

import msgspec

from orders.database.pool import Pool
from orders.domain.lifecycle import Reason
from orders.errors import OrdersError
from orders.settlement.connections import database, payment_ledger, stock_ledger
from orders.settlement.trace_rows import JsonRow, OrderRows, TracedOrder
from orders.upstream.ledgers import Ledger, PaymentEntry, StockEntry

NOT_ASKED: Final = 3
_ROW: Final = "{:27}  {:>11}  {:12}  {}"

E = TypeVar("E", bound=PaymentEntry | StockEntry)


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
    order: JsonRow | None
    events: list[TraceEvent]
    waiting: list[str]
    needs: list[str]
    unknown: list[str]


def run(arguments: argparse.Namespace) -> int:
    """Print the history; return 0: the order exists, 1: it does not, 3: no database."""
    with database() as pool:
        trace = trace_order(
            pool, arguments.order, lambda name: print(f"asking {name} ...", file=sys.stderr)
        )
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(trace), indent=2).decode())
    else:
        print("\n".join(_lines(trace)))
    return NOT_ASKED if trace.exists is None else int(not trace.exists)


def _lines(trace: OrderTrace) -> Iterator[str]:
    yield _headline(trace)
    if trace.events:
        yield _ROW.format("AT", "AFTER", "BY", "WHAT")
    previous_at: dt.datetime | None = None
    for event in trace.events:
        time = event.at.astimezone(dt.UTC)
        delay = f"+{(time - previous_at).total_seconds():.3f} s" if previous_at else ""
        previous_at = time
        time_text = time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        yield _ROW.format(time_text, delay, event.source, _printable(event.what))
    yield from (f"still to come: {_printable(text)}" for text in trace.waiting)
    yield from (f"needs {_printable(text)}" for text in trace.needs)
    yield from (f"not known: {_printable(text)}" for text in trace.unknown)


def _headline(trace: OrderTrace) -> str:
    if trace.exists is None:
        return f"order {trace.order_id}: not known whether it exists"
    if trace.order is None:
        return f"order {trace.order_id}: the database has no such order"
    order = _order_columns(trace.order)
    reason = f" ({order.status_reason})" if order.status_reason else ""
    return (
        f"order {trace.order_id}: {order.status}{reason}, {order.quantity} × product "
        f"{order.product_id}, total {_money(order.total)}, user {order.user_id}, "
        f"correlation id {_printable(order.correlation_id)}"
    )


def _order_columns(row: JsonRow) -> TracedOrder:
    return msgspec.convert(row, TracedOrder)


def _printable(text: str) -> str:
    """Return text from other people without control characters of a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def trace_order(pool: Pool, order_id: int, announce: Callable[[str], None]) -> OrderTrace:
    """Return the history of an order, as far as it can be read. Never raises OrdersError.

    `announce` is called with the name of each source before it is read, which may take a while.
    """
    failures: list[str] = []
    rows = _read_rows(pool, order_id, failures)
    exists = None if failures else rows.order is not None
    announce("Payment")
    payments = _entries(payment_ledger, "Payment", order_id, failures)
    announce("Inventory")
    stock = _entries(stock_ledger, "Inventory", order_id, failures)
    events = [
        *_transitions(rows),
        *_attempts(rows),
        *_notifications(rows),
        *_interventions(rows),
        *(
            TraceEvent(
                entry.at,
                "Payment",
                f"{entry.kind} {entry.attempt_id}: {entry.status} {entry.amount}",
            )
            for entry in payments
        ),
        *(
            TraceEvent(
                entry.at,
                "Inventory",
                f"{entry.status} {entry.quantity} × product {entry.product_id}",
            )
            for entry in stock
        ),
    ]
    events.sort(key=lambda event: event.at)
    return OrderTrace(
        order_id,
        exists,
        rows.order,
        events,
        list(_waiting(rows)),
        list(_needs(rows)),
        failures,
    )


def _read_rows(pool: Pool, order_id: int, failures: list[str]) -> OrderRows:
    try:
        [(text,)] = pool.execute("trace_order", {"id": order_id})
    except OrdersError as error:
        failures.append(f"the database cannot be queried: {error}")
        return OrderRows()
    return msgspec.json.decode(text, type=OrderRows)


def _entries(
    open_ledger: Callable[[], AbstractContextManager[Ledger[E]]],
    name: str,
    order_id: int,
    failures: list[str],
) -> list[E]:
    try:
        with open_ledger() as ledger:
            return ledger.of_order(order_id)
    except OrdersError as error:
        failures.append(f"{name} cannot be queried: {error}")
        return []


def _transitions(rows: OrderRows) -> Iterator[TraceEvent]:
    for row in rows.history:
        change = f"{row.from_status} → {row.to_status}" if row.from_status else "accepted"
        reason = f" {row.reason}" if row.reason else ""
        note = f" “{row.note}”" if row.note else ""
        yield TraceEvent(row.at, "order", f"{change}{reason}, by {row.actor}{note}")


def _attempts(rows: OrderRows) -> Iterator[TraceEvent]:
    for row in rows.attempts:
        subject = f"{row.kind} {row.id}"
        yield TraceEvent(row.created_at, "attempt", f"{subject}: {_money(row.amount)} requested")
        if row.outcome != "unknown":
            yield TraceEvent(row.updated_at, "attempt", f"{subject}: {row.outcome}")


def _notifications(rows: OrderRows) -> Iterator[TraceEvent]:
    for row in rows.notifications:
        subject = row.template
        yield TraceEvent(row.created_at, "notification", f"{subject}: to be sent")
        if row.sent_at:
            text = f"{subject}: sent, tries: {row.tries}"
            yield TraceEvent(row.sent_at, "notification", text)
        elif row.ended_at:
            text = f"{subject}: {row.outcome}, tries: {row.tries}"
            yield TraceEvent(row.ended_at, "notification", text)


def _interventions(rows: OrderRows) -> Iterator[TraceEvent]:
    """Yield what the sweeper, reconciliation and persons did or found."""
    if rows.stalled:
        times = f"{rows.stalled.stalls} times without an effect"
        yield TraceEvent(rows.stalled.last_at, "sweeper", f"emitted again, {times}")
    for case in rows.cases:
        word = "violation" if case.violation else "doubt"
        yield TraceEvent(case.seen_at, "reconcile", f"{word} {case.kind}: {case.detail}")
    for action in rows.actions:
        yield TraceEvent(action.at, action.actor, f"{action.action}: “{action.because}”")


def _waiting(rows: OrderRows) -> Iterator[str]:
    """Yield the messages, outcomes and notifications that are still pending."""
    for row in rows.outbox:
        yield f"{row.type} waits in the outbox since {row.created_at}"
    for attempt in rows.attempts:
        if attempt.outcome == "unknown":
            yield f"the outcome of {attempt.kind} {attempt.id} is not known"
    for notification in rows.notifications:
        if not notification.sent_at and not notification.ended_at:
            reason = f": {notification.last_error}" if notification.last_error else ""
            tries = f"tries so far: {notification.tries}{reason}"
            yield f"{notification.template} is to be sent, {tries}"
    if rows.order and _order_columns(rows.order).reservation == "held":
        yield "Inventory holds the stock"


def _needs(rows: OrderRows) -> Iterator[str]:
    """Yield what only a person can do: settle declined refunds, which are not tried again."""
    for attempt in rows.attempts:
        if attempt.kind == "refund" and attempt.reason == Reason.REFUND_DECLINED:
            yield (
                f"a person, because Payment declined to refund {_money(attempt.amount)}: "
                f"`orders payments resolve {attempt.id} --refunded --against-payment` "
                "once it was refunded by other means"
            )


def _money(amount: float) -> str:
    return f"{amount:.2f}"
