"""Settles the stock of an ended order, and pays money back.

The stock of a paid order is committed; that of any other is released or returned. Money is paid
back when the order was cancelled, or in part when support requested it. Every refund is an attempt.
Its id is committed before Payment is called, and the call is repeated under the same id until the
outcome is known. A refund that Payment declines is not tried again: a person has to settle it.
"""

from decimal import Decimal
from typing import Final

import msgspec
import structlog

from orders.database.progress import AttemptOutcome, Progress, Refund, Reservation, Step, Work
from orders.domain.lifecycle import Event, Reason, Status
from orders.domain.order import AttemptKind, attempt_id
from orders.errors import Permanent, Transient
from orders.upstream.inventory import Inventory, ReservationStatus
from orders.upstream.payment import Captured, Payment, Refunded
from orders.worker.metrics import ORDER_REFUNDS
from orders.worker.steps import Transitions, is_open, target

_log: Final = structlog.get_logger()


class Refunds:
    """Takes the steps of an order whose money is paid back."""

    def __init__(self, progress: Progress, payment: Payment, transitions: Transitions) -> None:
        self._progress, self._payment, self._transitions = progress, payment, transitions

    def pursue(self, work: Work, message_id: str) -> Work | None:
        """Take the next step; return the order's new state, or None to read it again."""
        if work.refund is not None:
            self._ask(work, work.refund)
            return None
        if work.order.status_reason == Reason.REFUND_DECLINED:
            self._progress.mark_processed(message_id)
            return msgspec.structs.replace(work, processed=True)
        if work.refund_left <= 0:
            raise Permanent("an order in Refunding has nothing to pay back", reason="no_refund")
        self._progress.start_refund(work)
        return None

    def _ask(self, work: Work, refund: Refund) -> None:
        """Have Payment refund the money, or tell that it did before; commit the outcome."""
        if work.attempt_id is None:
            raise Permanent("an order to pay back has no capture", reason="no_attempt")
        answer = self._payment.refund(
            str(refund.attempt_id),
            work.order.id,
            refund.amount,
            capture_id=str(work.attempt_id),
        )
        if isinstance(answer, Refunded):
            self._confirm(work, refund)
        else:
            self._decline(work, refund)

    def _confirm(self, work: Work, refund: Refund) -> None:
        remainder: Decimal = work.order.total - work.refunded - refund.amount
        event = Event.PART_REFUNDED if remainder > 0 else Event.REFUND_CONFIRMED
        step = Step(
            attempt=refund.attempt_id, outcome=AttemptOutcome.APPROVED, refunded=refund.amount
        )
        if self._transitions.commit(work, event, step):
            ORDER_REFUNDS.labels(AttemptOutcome.APPROVED).inc()

    def _decline(self, work: Work, refund: Refund) -> None:
        step = Step(
            attempt=refund.attempt_id,
            outcome=AttemptOutcome.DECLINED,
            outcome_reason=Reason.REFUND_DECLINED,
            refund_dropped=refund.amount,
        )
        if self._transitions.commit(work, Event.REFUND_DECLINED, step):
            ORDER_REFUNDS.labels(AttemptOutcome.DECLINED).inc()
            is_refunding = work.order.status is Status.REFUNDING
            _log.error("refund.declined", orderId=work.order.id, refunding=is_refunding)


class LostCaptures:
    """Finds captures whose record a failover lost, so that the order was cancelled as unpaid."""

    def __init__(self, payment: Payment, transitions: Transitions) -> None:
        self._payment, self._transitions = payment, transitions

    def pay_back(self, work: Work) -> bool:
        """Have a cancelled order paid back if Payment captured its money; then return True.

        The caller reads the order again after True. Asks Payment once for each cancelled order, by
        the id that the order's first capture would have: a lost attempt had the same one.
        """
        if work.order.status is not Status.CANCELLED:
            return False
        attempt = attempt_id(work.nonce, AttemptKind.CAPTURE, 1)
        capture = self._payment.find(str(attempt), work.order.id, work.order.total)
        if not isinstance(capture, Captured):
            return False
        step = Step(new_attempt=attempt, outcome=AttemptOutcome.APPROVED)
        self._transitions.commit(work, Event.CAPTURE_RECOVERED, step)
        _log.warning("capture.recovered", orderId=work.order.id)
        return True


class Stock:
    """Settles the stock of ended orders with Inventory."""

    def __init__(
        self, progress: Progress, inventory: Inventory, lost_captures: LostCaptures
    ) -> None:
        self._progress, self._inventory = progress, inventory
        self._lost_captures = lost_captures

    def settle(self, work: Work, message_id: str) -> Work | None:
        """Commit, release or return the stock and record that; None: read the order again."""
        if not is_open(work):
            self._progress.mark_processed(message_id)
        elif work.order.status is Status.COMPLETED:
            if not self._commit(work, message_id):
                return None
        elif not self._end(work, message_id):
            return None
        return msgspec.structs.replace(work, processed=True)

    def _end(self, work: Work, message_id: str) -> bool:
        """Give the stock back. Record that only after Payment was asked for a lost capture."""
        reservation = self._return(work)
        if self._lost_captures.pay_back(work):
            return False
        return self._progress.settle_stock(work, reservation, message_id)

    def _commit(self, work: Work, message_id: str) -> bool:
        status = self._inventory.commit(target(work))
        if status is ReservationStatus.COMMITTED:
            return self._progress.settle_stock(work, Reservation.COMMITTED, message_id)
        current = self._progress.load(work.order.id, message_id)
        if current is not None and current.order.version == work.order.version:
            raise Permanent(
                f"inventory has the stock of a paid order as {status}", reason="stock_lost"
            )
        return False  # it was cancelled meanwhile, and another worker gave its stock back

    def _return(self, work: Work) -> Reservation:
        """Release or return the stock; return its new state for the order."""
        inventory, reservation = self._inventory, target(work)
        was_committed = work.reservation is Reservation.COMMITTED
        status = (
            inventory.give_back(reservation) if was_committed else inventory.release(reservation)
        )
        if status is ReservationStatus.COMMITTED:  # a worker committed it before the cancellation
            status = inventory.give_back(reservation)
        elif status is ReservationStatus.RESERVED:
            status = inventory.release(reservation)
        if status is ReservationStatus.RETURNED:
            return Reservation.RETURNED
        if status is ReservationStatus.UNKNOWN and was_committed:
            raise Permanent("inventory does not know the stock of a paid order", reason="no_stock")
        if status in (ReservationStatus.RELEASED, ReservationStatus.UNKNOWN):
            return Reservation.RELEASED
        raise Transient("other processes keep changing the reservation", retry_after_s=1)
