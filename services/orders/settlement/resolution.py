"""The effect of a person's statement about a payment attempt on its order. Pure."""

import enum
import uuid
from decimal import Decimal
from typing import Final

import msgspec

from orders.database.progress import AttemptOutcome, Step, Work
from orders.domain.lifecycle import Event, Reason, Status, Transition, transition
from orders.domain.order import AttemptKind
from orders.errors import OrdersError
from orders.upstream.ledgers import PaymentStatus


class LearnedOutcome(enum.StrEnum):
    """The outcome of an attempt, as a person learned it."""

    CAPTURED = "captured"
    DECLINED = "declined"
    REFUNDED = "refunded"


class Attempt(msgspec.Struct, frozen=True):
    """The attempt to settle."""

    id: uuid.UUID
    kind: AttemptKind
    amount: Decimal
    outcome: AttemptOutcome


class Resolution(msgspec.Struct, frozen=True):
    """The changes to commit."""

    change: Transition
    step: Step


_SAYS: Final = {
    LearnedOutcome.CAPTURED: PaymentStatus.CAPTURED,
    LearnedOutcome.DECLINED: PaymentStatus.DECLINED,
    LearnedOutcome.REFUNDED: PaymentStatus.REFUNDED,
}


def resolve(work: Work, attempt: Attempt, learned_outcome: LearnedOutcome) -> Resolution:
    """Return the changes that follow from a statement. Raises OrdersError if there are none."""
    if attempt.kind is AttemptKind.CAPTURE:
        event, step = _settle_capture(work, attempt, learned_outcome)
    else:
        event, step = _settle_refund(work, attempt, learned_outcome)
    order = work.order
    change = transition(order.status, event, cancel_requested=order.cancel_requested)
    if change is None:
        raise OrdersError(f"the order is {order.status}: {event} has no effect there")
    return Resolution(change, step)


def contradicts(learned_outcome: LearnedOutcome, ledger: PaymentStatus) -> bool:
    """Return whether Payment's ledger contradicts the person."""
    return _SAYS[learned_outcome] is not ledger


def _settle_capture(
    work: Work, attempt: Attempt, learned_outcome: LearnedOutcome
) -> tuple[Event, Step]:
    if learned_outcome is LearnedOutcome.REFUNDED:
        raise OrdersError("a capture is --captured or --declined")
    if attempt.outcome is not AttemptOutcome.UNKNOWN:
        raise OrdersError(
            f"the capture is known to be {attempt.outcome}, and the order is {work.order.status}"
        )
    is_captured = learned_outcome is LearnedOutcome.CAPTURED
    event = Event.PAYMENT_CAPTURED if is_captured else Event.PAYMENT_DECLINED
    outcome = AttemptOutcome.APPROVED if is_captured else AttemptOutcome.DECLINED
    return event, Step(attempt=attempt.id, outcome=outcome)


def _settle_refund(
    work: Work, attempt: Attempt, learned_outcome: LearnedOutcome
) -> tuple[Event, Step]:
    if learned_outcome is LearnedOutcome.CAPTURED:
        raise OrdersError("a refund is --refunded or --declined")
    if attempt.outcome is AttemptOutcome.APPROVED:
        raise OrdersError("the refund is known to be approved")
    if learned_outcome is LearnedOutcome.DECLINED:
        return _settle_declined_refund(work, attempt)
    # A declined refund was dropped from the requested sum. Paid back after all, it counts again.
    dropped_amount = -attempt.amount if attempt.outcome is AttemptOutcome.DECLINED else Decimal(0)
    if work.refund_requested - dropped_amount > work.order.total:
        raise OrdersError("more would be paid back than was captured")
    remainder = work.order.total - work.refunded - attempt.amount
    step = Step(
        attempt=attempt.id,
        outcome=AttemptOutcome.APPROVED,
        refunded=attempt.amount,
        refund_dropped=dropped_amount,
    )
    return (Event.PART_REFUNDED if remainder > 0 else Event.REFUND_CONFIRMED), step


def _settle_declined_refund(work: Work, attempt: Attempt) -> tuple[Event, Step]:
    if attempt.outcome is AttemptOutcome.DECLINED:
        if work.order.status is not Status.COMPLETED:
            raise OrdersError(
                f"the refund is known to be declined, and the order is {work.order.status}: "
                "--refunded once the money went back"
            )
        # No person has to act any more. Its sum was dropped when Payment declined it.
        return Event.REFUND_DROPPED, Step(
            attempt=attempt.id,
            outcome=AttemptOutcome.DECLINED,
            outcome_reason=Reason.REFUND_DROPPED,
        )
    return Event.REFUND_DECLINED, Step(
        attempt=attempt.id,
        outcome=AttemptOutcome.DECLINED,
        outcome_reason=Reason.REFUND_DECLINED,
        refund_dropped=attempt.amount,
    )
