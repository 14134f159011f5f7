"""The evidence about one order from the database, Payment and Inventory."""

import datetime as dt
import uuid
from decimal import Decimal
from typing import Final

import msgspec

from orders.database.pool import Pool
from orders.database.progress import AttemptOutcome
from orders.domain.lifecycle import Status
from orders.upstream.ledgers import Ledger, PaymentEntry, PaymentKind, StockEntry

_READS: Final = 3  # an order that changes more often than this while it is read is in progress


class OrderFacts(msgspec.Struct, frozen=True, rename="camel"):
    """The members of an order on which money and stock depend."""

    id: int
    status: Status
    version: int
    product_id: int
    quantity: int
    total: Decimal
    refunded: Decimal
    refund_requested: Decimal
    reservation: str
    updated_at: dt.datetime
    reason: str | None = None


class AttemptFacts(msgspec.Struct, frozen=True):
    """A payment attempt in the database.

    `elsewhere` is the part of a refund that was paid back outside Payment, as a person recorded.
    """

    id: uuid.UUID
    kind: PaymentKind
    amount: Decimal
    outcome: AttemptOutcome
    elsewhere: Decimal = Decimal(0)


class Known(msgspec.Struct, frozen=True):
    """The database's evidence. `order` is None if no such order exists."""

    order: OrderFacts | None
    attempts: list[AttemptFacts]
    notified: list[str]  # templates
    now: dt.datetime


class Evidence(msgspec.Struct, frozen=True):
    """The evidence of all three sides; the order did not change while it was read."""

    order_id: int
    known: Known
    payments: list[PaymentEntry]
    stock: list[StockEntry]


class EvidenceSources(msgspec.Struct, frozen=True):
    """The three sources of evidence."""

    pool: Pool
    payments: Ledger[PaymentEntry]
    stock: Ledger[StockEntry]


def load_known(pool: Pool, order_id: int) -> Known:
    """Return the database's evidence. Raises Transient if the database is not available."""
    [(text,)] = pool.execute("find_evidence", {"id": order_id})
    return msgspec.json.decode(text, type=Known)


def gather(evidence_sources: EvidenceSources, order_id: int) -> Evidence | None:
    """Return the evidence about an order; None if it kept changing. Raises Transient, Permanent."""
    previous = load_known(evidence_sources.pool, order_id)
    for _ in range(_READS):
        payments = evidence_sources.payments.of_order(order_id)
        stock = evidence_sources.stock.of_order(order_id)
        current = load_known(evidence_sources.pool, order_id)
        if msgspec.structs.replace(previous, now=current.now) == current:
            return Evidence(order_id, current, payments, stock)
        previous = current
    return None


def attempt_uuid(text: str) -> uuid.UUID | None:
    """Return the id of one of our attempts; None if it cannot be ours."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
