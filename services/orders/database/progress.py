"""Orders in PostgreSQL as the worker sees them: what is known of one, and moving it on."""

import enum
import uuid
from decimal import Decimal
from typing import Protocol

import msgspec

from orders.database.orders import ORDER_COLUMNS, order_of
from orders.database.pool import Row
from orders.database.statements import Statements
from orders.domain.keys import AttemptKind, attempt_id, legacy_nonce
from orders.domain.lifecycle import CANCELLED, Reason, Status, Transition, cancellation_reason
from orders.domain.order import Order
from orders.telemetry.context import Context


class Reservation(enum.StrEnum):
    """What Inventory holds for an order.

    HELD also while it may hold something: an ended order stays so until Inventory was told.
    """

    NONE = "none"
    HELD = "held"
    COMMITTED = "committed"
    RELEASED = "released"
    RETURNED = "returned"


class Outcome(enum.StrEnum):
    """What is known of a payment attempt."""

    UNKNOWN = "unknown"
    APPROVED = "approved"
    DECLINED = "declined"


class Refund(msgspec.Struct, frozen=True):
    """A refund whose outcome is unknown; its id is the key that Payment knows it by."""

    attempt_id: uuid.UUID
    amount: Decimal


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the worker needs it to take the next step."""

    order: Order
    payment_method: str
    nonce: uuid.UUID
    reservation: Reservation
    reservation_key: str
    cancelled_by: str | None
    attempt_id: uuid.UUID | None  # the capture that took, or may take, the money
    refund: Refund | None  # the oldest whose outcome is unknown
    refunds: int  # how many were begun
    refund_requested: Decimal  # the sum of those that moved money, or may have
    processed: bool  # this very message needs no more work
    # False only right after the attempt was written: Payment cannot have heard of it.
    attempt_may_be_known: bool = True

    @property
    def refunded(self) -> Decimal:
        """The sum of the refunds that Payment confirmed."""
        return self.order.refunded or Decimal(0)

    @property
    def refund_left(self) -> Decimal:
        """What was captured and is not asked back yet."""
        return self.order.total - self.refund_requested

    def after(self, order: Order, step: "Step") -> "Work":
        """Return how the work stands once `step` has moved its order on."""
        return msgspec.structs.replace(
            self,
            order=order,
            reservation=step.reservation or self.reservation,
            attempt_id=step.new_attempt or self.attempt_id,
            attempt_may_be_known=step.new_attempt is None,
        )


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What commits together with a transition.

    `refunded` is the amount of a confirmed refund, `refund_dropped` of a declined one.
    """

    reservation: Reservation | None = None
    reservation_key: str | None = None
    new_attempt: uuid.UUID | None = None
    attempt: uuid.UUID | None = None
    outcome: Outcome | None = None
    outcome_reason: Reason | None = None
    refunded: Decimal = Decimal(0)
    refund_dropped: Decimal = Decimal(0)


class Primary(Statements, Protocol):
    """What progress is written through: a pool, or a transaction of a person's command."""

    def wake_relay(self) -> None:
        """Have the relay woken once the statements have committed."""


class Progress:
    """The orders of the worker: moving them on."""

    def __init__(self, primary: Primary, consumer: str) -> None:
        self._primary, self._consumer = primary, consumer

    def load(self, order_id: int, message_id: str) -> Work | None:
        """Return an order and what is known of its payment; None if there is no such order."""
        arguments = {"id": order_id, "message_id": message_id, "consumer": self._consumer}
        rows = self._primary.execute("load_work", arguments)
        return work_of(rows[0]) if rows else None

    def advance(
        self, work: Work, transition: Transition, step: Step, context: Context
    ) -> Order | None:
        """Move an order on by compare-and-set; None if it is no longer where `work` says."""
        order, status_reason = work.order, status_reason_of(work, transition, step)
        rows = self._primary.execute(
            "advance_order",
            {
                "id": order.id,
                "version": order.version,
                "from": order.status,
                "cancel_requested": order.cancel_requested,
                "to": transition.to,
                "status_reason": status_reason,
                "reason": transition.reason or status_reason,
                "announces": transition.announces,
                "actor": self._consumer,
                "reservation": step.reservation,
                "reservation_key": step.reservation_key,
                "new_attempt": step.new_attempt,
                "attempt": step.attempt,
                "outcome": step.outcome,
                "outcome_reason": step.outcome_reason,
                "refunded": step.refunded,
                "refund_dropped": step.refund_dropped,
                "correlation_id": context.correlation_id,
                "traceparent": context.traceparent,
                "trace_id": context.trace_id,
            },
        )
        if not rows:
            return None
        if rows[0][-1]:  # relay_sleeps
            self._primary.wake_relay()
        return moved(work, transition, step, rows[0])

    def start_refund(self, work: Work) -> bool:
        """Write the attempt that pays back all that is left, before Payment is asked.

        Returns False if the order is no longer where `work` says. Idempotent: its id derives from
        the order's nonce.
        """
        number = work.refunds + 1
        rows = self._primary.execute(
            "start_refund",
            {
                "id": work.order.id,
                "version": work.order.version,
                "requested": work.refund_requested,
                "attempt": attempt_id(work.nonce, AttemptKind.REFUND, number),
                "number": number,
                "amount": work.refund_left,
                "actor": self._consumer,
            },
        )
        return bool(rows)

    def settle_stock(self, work: Work, reservation: Reservation, message_id: str) -> bool:
        """Note what Inventory did with the stock of an ended order; the message is done with.

        Returns False, and notes nothing, if the order was moved on meanwhile.
        """
        rows = self._primary.execute(
            "settle_stock",
            {
                "id": work.order.id,
                "version": work.order.version,
                "before": work.reservation,
                "reservation": reservation,
                "consumer": self._consumer,
                "message_id": message_id,
            },
        )
        return bool(rows)

    def mark_processed(self, message_id: str) -> None:
        """Note that a message needs no more work. Idempotent."""
        self._primary.execute(
            "mark_processed", {"consumer": self._consumer, "message_id": message_id}
        )


def moved(work: Work, transition: Transition, step: Step, row: Row) -> Order:
    """Return the order after a transition, of which a row has the version, time and sum."""
    version, updated_at, refunded, *_ = row
    return msgspec.structs.replace(
        work.order,
        status=transition.to,
        version=version,
        updated_at=updated_at,
        status_reason=status_reason_of(work, transition, step),
        refunded=refunded,
        refund_pending=work.refund_requested - step.refund_dropped > (refunded or 0),
    )


def status_reason_of(work: Work, transition: Transition, step: Step) -> str | None:
    """Return what the order says about its new status: why it failed, who cancelled it."""
    needs_person = work.order.status_reason == Reason.REFUND_DECLINED
    if needs_person and transition.to is Status.REFUNDING and step.refund_dropped >= 0:
        return work.order.status_reason  # another refund went well; only a person settles this one
    if transition.to is Status.FAILED or transition.reason is Reason.REFUND_DECLINED:
        return None if transition.to is Status.COMPLETED else transition.reason
    if transition.to in CANCELLED and work.cancelled_by is not None:
        return cancellation_reason(work.cancelled_by)
    return None


def work_of(row: Row) -> Work:
    """Return the work of a row of load_work.sql and its like."""
    (
        payment_method, nonce, reservation, reservation_key, cancelled_by, refund_requested,
        attempt, refund, refund_amount, refunds, processed,
    ) = row[ORDER_COLUMNS:]  # fmt: skip
    refunded = row[ORDER_COLUMNS - 1] or 0
    order = order_of(row[:ORDER_COLUMNS], refund_pending=refund_requested > refunded)
    return Work(
        order=order,
        payment_method=payment_method,
        nonce=nonce or legacy_nonce(order.id, order.created_at),
        reservation=Reservation(reservation),
        reservation_key=reservation_key,
        cancelled_by=cancelled_by,
        attempt_id=attempt,
        refund=None if refund is None else Refund(refund, refund_amount),
        refunds=refunds,
        refund_requested=refund_requested,
        processed=processed,
    )
