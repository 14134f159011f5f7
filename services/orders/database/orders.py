"""Orders in PostgreSQL: take one, find one, list a user's, move one on."""

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Final

import msgspec

from orders.database.failures import Busy, Locked, OutcomeUnknown
from orders.database.pool import Pool, Row
from orders.database.routing import Reads
from orders.domain.lifecycle import Status, Transition
from orders.domain.order import MAX_ID, NewOrder, Order, etag
from orders.errors import Transient
from orders.telemetry import tracing
from orders.telemetry.context import Context

CREATE_ROUTE: Final = "POST /api/orders"
ACCEPTED_MESSAGE: Final = "Order is being processed"
# Filled in by PostgreSQL's format(), which alone knows the id when the answer is stored.
_BODY: Final = f'{{"orderId":%s,"status":"{Status.PENDING}","message":"{ACCEPTED_MESSAGE}"}}'
_LOCATION: Final = "/api/orders/%s"
# Rows that a page skips by itself; beyond them, the index alone is asked where the page begins.
_SKIPPED: Final = 200
_NEWEST: Final = (dt.datetime(9999, 12, 31, tzinfo=dt.UTC), MAX_ID)


class Answer(msgspec.Struct, frozen=True):
    """What POST /api/orders answers, now or on replay."""

    status: int
    body: bytes
    location: str
    etag: str
    order_id: int | None = None  # of a new order only
    replayed: bool = False


class KeyReused(Exception):
    """Send another Idempotency-Key: this one belongs to a request with other contents."""


class Position(msgspec.Struct, frozen=True, array_like=True):
    """The last row of a page; the next page begins after it."""

    created_at: dt.datetime
    order_id: int


class Ledger:
    """The orders of the API: taking and reading them."""

    def __init__(self, primary: Pool, reads: Reads) -> None:
        self._primary, self._reads = primary, reads

    def accept(self, order: NewOrder, context: Context, principal: str, key: str | None) -> Answer:
        """Take an order, once per principal and idempotency key.

        Idempotent with a key. Raises KeyReused, Busy while the first use of the key is running,
        Transient when PostgreSQL is not to be had (nothing is stored then, or it can be replayed).
        """
        with tracing.span("SaveOrder"):
            rows = self._insert(_acceptance(order, context, principal, key))
        if rows:
            return _accepted(rows[0][0])
        if key is None:
            raise OutcomeUnknown("PostgreSQL took the order but did not say so")
        answer = self.replay(order, principal, key)
        if answer is None:
            raise Transient("the idempotency key expired this very moment", retry_after_s=1)
        return answer

    def _insert(self, acceptance: dict[str, object]) -> list[Row]:
        try:
            return self._primary.execute("accept_order", acceptance)
        except Locked as error:
            if acceptance["key"] is None:  # a migration, say: no other request is to blame
                raise
            raise Busy("the key's first use is running", retry_after_s=1) from error

    def replay(self, order: NewOrder, principal: str, key: str) -> Answer | None:
        """Return what the first use of a key was answered, if it was used. Raises KeyReused."""
        scope = {"principal": principal, "route": CREATE_ROUTE, "key": key}
        rows = self._primary.execute("find_answer", scope)
        if not rows:
            return None
        fingerprint, status, body, location, tag = rows[0]
        if bytes(fingerprint) != order.fingerprint():
            raise KeyReused
        return Answer(status, body.encode(), location, tag, replayed=True)

    def find(self, order_id: int) -> Order | None:
        """Return an order whoever it belongs to; the caller checks the owner."""
        row = self._reads.one("find_order", {"id": order_id})
        return _order(row) if row else None

    def page(
        self, user_id: int, limit: int, after: Position | None, offset: int, *, own_writes: bool
    ) -> list[Order]:
        """Return up to `limit` orders of a user, newest first, after a position or an offset."""
        if offset > _SKIPPED:
            after, offset = self._position(user_id, offset, own_writes=own_writes), 0
            if after is None:
                return []
        before_at, before_id = (after.created_at, after.order_id) if after else _NEWEST
        arguments = {
            "user_id": user_id,
            "before_at": before_at,
            "before_id": before_id,
            "limit": limit,
            "offset": offset,
        }
        rows = self._reads.rows("list_orders", arguments, own_writes=own_writes)
        return [_order(row) for row in rows]

    def _position(self, user_id: int, count: int, *, own_writes: bool) -> Position | None:
        """Return the last of the first `count` orders of a user; None if there are fewer."""
        arguments = {"user_id": user_id, "before": count - 1}
        rows = self._reads.rows("find_position", arguments, own_writes=own_writes)
        return Position(*rows[0]) if rows else None


def _acceptance(
    order: NewOrder, context: Context, principal: str, key: str | None
) -> dict[str, object]:
    return {
        "principal": principal,
        "route": CREATE_ROUTE,
        "key": key,
        "fingerprint": order.fingerprint() if key is not None else b"",
        "body": _BODY,
        "location": _LOCATION,
        "etag": etag(1),
        "user_id": order.user_id,
        "product_id": order.product_id,
        "quantity": order.quantity,
        "total": order.total,
        "payment_method": order.payment_method,
        "correlation_id": context.correlation_id,
        "traceparent": context.traceparent,
        "trace_id": context.trace_id,
    }


def _accepted(order_id: int) -> Answer:
    return Answer(
        202, (_BODY % order_id).encode(), _LOCATION % order_id, etag(1), order_id=order_id
    )


def _order(row: Row) -> Order:
    (order_id, user_id, product_id, quantity, total, status, version, created, updated, why) = row
    return Order(
        order_id,
        user_id,
        product_id,
        quantity,
        total,
        Status(status),
        version,
        created,
        updated,
        why,
    )


class Reservation(enum.StrEnum):
    """What Inventory holds for an order."""

    NONE = "none"
    HELD = "held"
    COMMITTED = "committed"
    RELEASED = "released"


class Outcome(enum.StrEnum):
    """What is known of a payment attempt."""

    UNKNOWN = "unknown"
    APPROVED = "approved"
    DECLINED = "declined"


class Work(msgspec.Struct, frozen=True):
    """An order as the worker needs it to take the next step."""

    order: Order
    payment_method: str
    cancel_requested: bool
    reservation: Reservation
    attempt_id: uuid.UUID | None
    processed: bool  # this very message needs no more work
    # False only right after the attempt was written: Payment cannot have heard of it.
    attempt_may_be_known: bool = True

    def after(self, order: Order, step: "Step") -> "Work":
        """Return how the work stands once `step` has moved its order on."""
        return msgspec.structs.replace(
            self,
            order=order,
            reservation=step.reservation or self.reservation,
            attempt_id=step.new_attempt or self.attempt_id,
            attempt_may_be_known=step.new_attempt is None,
            processed=step.message_id is not None,
        )


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What commits together with a transition."""

    reservation: Reservation | None = None
    new_attempt: uuid.UUID | None = None
    attempt: uuid.UUID | None = None
    outcome: Outcome | None = None
    message_id: str | None = None  # inbox: this message is done with


class Progress:
    """The orders of the worker: moving them on."""

    def __init__(self, primary: Pool, consumer: str) -> None:
        self._primary, self._consumer = primary, consumer

    def load(self, order_id: int, message_id: str) -> Work | None:
        """Return an order and what is known of its payment; None if there is no such order."""
        arguments = {"id": order_id, "message_id": message_id, "consumer": self._consumer}
        rows = self._primary.execute("load_work", arguments)
        return _work(rows[0]) if rows else None

    def advance(
        self, order: Order, transition: Transition, step: Step, context: Context
    ) -> Order | None:
        """Move an order on by compare-and-set; None if it is no longer where `order` says."""
        rows = self._primary.execute(
            "advance_order",
            {
                "id": order.id,
                "version": order.version,
                "from": order.status,
                "to": transition.to,
                "reason": transition.reason,
                "announces": transition.announces,
                "actor": self._consumer,
                "reservation": step.reservation,
                "new_attempt": step.new_attempt,
                "attempt": step.attempt,
                "outcome": step.outcome,
                "consumer": self._consumer,
                "message_id": step.message_id,
                "correlation_id": context.correlation_id,
                "traceparent": context.traceparent,
                "trace_id": context.trace_id,
            },
        )
        if not rows:
            return None
        version, updated_at, _ = rows[0]
        return msgspec.structs.replace(
            order,
            status=transition.to,
            version=version,
            updated_at=updated_at,
            status_reason=transition.reason,
        )

    def settle_stock(self, order_id: int, reservation: Reservation, message_id: str) -> None:
        """Note that Inventory committed or released the stock of an ended order. Idempotent."""
        self._primary.execute(
            "settle_stock",
            {
                "id": order_id,
                "reservation": reservation,
                "consumer": self._consumer,
                "message_id": message_id,
            },
        )

    def mark_processed(self, message_id: str) -> None:
        """Note that a message needs no more work. Idempotent."""
        self._primary.execute(
            "mark_processed", {"consumer": self._consumer, "message_id": message_id}
        )


def _work(row: Row) -> Work:
    (
        order_id,
        user_id,
        product_id,
        quantity,
        total,
        method,
        status,
        version,
        reason,
        cancel,
        reservation,
        created_at,
        updated_at,
        attempt_id,
        processed,
    ) = row
    order = Order(
        order_id,
        user_id,
        product_id,
        quantity,
        Decimal(total),
        Status(status),
        version,
        created_at,
        updated_at,
        reason,
    )
    return Work(order, method, cancel, Reservation(reservation), attempt_id, processed)
