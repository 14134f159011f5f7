"""The life of an order: every status, every event, and the table of allowed transitions."""

import enum
from typing import Final

import msgspec

from orders.domain import events


class Status(enum.StrEnum):
    """Where an order stands. The values are what the API answers and PostgreSQL stores."""

    PENDING = "Pending"  # accepted; nothing is held yet
    RESERVED = "Reserved"  # Inventory holds the stock
    CHARGING = "Charging"  # a payment attempt exists; its outcome may be unknown
    COMPLETED = "Completed"  # paid
    FAILED = "Failed"  # ended without payment; `status_reason` says why
    CANCELLED = "Cancelled"  # cancelled; no money is known to have been taken
    REFUNDING = "Refunding"  # paid, then cancelled: the money is on its way back
    REFUNDED = "Refunded"  # paid and given back


# Who moves an order, as its history says; a person on the command line is `operator:<name>`.
CUSTOMER: Final = "customer"
SUPPORT: Final = "support"
WORKER: Final = "worker"


class Event(enum.StrEnum):
    """What can happen to an order."""

    STOCK_RESERVED = "stock_reserved"
    STOCK_REFUSED = "stock_refused"
    STOCK_GONE = "stock_gone"  # its reservation was released before: work that a failover lost
    CHARGE_STARTED = "charge_started"
    PAYMENT_CAPTURED = "payment_captured"
    PAYMENT_DECLINED = "payment_declined"
    CAPTURE_RECOVERED = "capture_recovered"  # Payment took the money in work that a failover lost
    CANCEL_REQUESTED = "cancel_requested"
    REFUND_REQUESTED = "refund_requested"  # by support, of a part or of all that is left
    PART_REFUNDED = "part_refunded"  # Payment confirmed a refund; some of the money stays
    REFUND_CONFIRMED = "refund_confirmed"  # Payment confirmed the refund of all that was left
    REFUND_DECLINED = "refund_declined"
    REFUND_DROPPED = "refund_dropped"  # a person said that a declined refund will not be made


class Reason(enum.StrEnum):
    """Why an order failed, was cancelled, or is where it is."""

    OUT_OF_STOCK = "OutOfStock"
    STOCK_RELEASED = "StockReleased"
    PAYMENT_DECLINED = "PaymentDeclined"
    CANCEL_REQUESTED = "CancelRequested"  # in the history: remembered while the charge is under way
    CANCELLED_BY_CUSTOMER = "CancelledByCustomer"
    CANCELLED_BY_SUPPORT = "CancelledBySupport"
    CAPTURE_RECOVERED = "CaptureRecovered"  # in the history: a lost capture is paid back
    REFUND_REQUESTED = "RefundRequested"
    PART_REFUNDED = "PartRefunded"
    REFUND_DECLINED = "RefundDeclined"  # a person has to settle it
    REFUND_DROPPED = "RefundDropped"


class Transition(msgspec.Struct, frozen=True):
    """One row of the table: the status that follows, why, and the message it is announced by.

    `announces` is the message type that goes into the outbox in the same transaction, if any.
    """

    to: Status
    reason: Reason | None = None
    announces: str | None = None


TERMINAL: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.REFUNDED})
ACTIVE: Final = frozenset(Status) - TERMINAL
# The statuses before the first end: customers wait for it.
ON_THE_WAY: Final = frozenset({Status.PENDING, Status.RESERVED, Status.CHARGING})
# Cancelled; money and stock may still be on their way back.
CANCELLED: Final = frozenset({Status.CANCELLED, Status.REFUNDING, Status.REFUNDED})

# A cancel that arrives while a charge is under way is remembered on the order (`cancel_requested`)
# and decides what the outcome of the charge leads to.
_TABLE: Final[dict[tuple[Status, Event], Transition]] = {
    (Status.PENDING, Event.STOCK_RESERVED): Transition(Status.RESERVED),
    (Status.PENDING, Event.STOCK_REFUSED): Transition(
        Status.FAILED, Reason.OUT_OF_STOCK, events.FAILED
    ),
    (Status.PENDING, Event.STOCK_GONE): Transition(
        Status.FAILED, Reason.STOCK_RELEASED, events.FAILED
    ),
    (Status.PENDING, Event.CANCEL_REQUESTED): Transition(Status.CANCELLED, None, events.CANCELLED),
    (Status.RESERVED, Event.CHARGE_STARTED): Transition(Status.CHARGING),
    (Status.RESERVED, Event.CANCEL_REQUESTED): Transition(Status.CANCELLED, None, events.CANCELLED),
    (Status.CHARGING, Event.PAYMENT_CAPTURED): Transition(Status.COMPLETED, None, events.COMPLETED),
    (Status.CHARGING, Event.PAYMENT_DECLINED): Transition(
        Status.FAILED, Reason.PAYMENT_DECLINED, events.FAILED
    ),
    # Remembered: the outcome of the charge decides.
    (Status.CHARGING, Event.CANCEL_REQUESTED): Transition(Status.CHARGING, Reason.CANCEL_REQUESTED),
    (Status.CANCELLED, Event.CAPTURE_RECOVERED): Transition(
        Status.REFUNDING, Reason.CAPTURE_RECOVERED, events.REFUND_DUE
    ),
    (Status.COMPLETED, Event.CANCEL_REQUESTED): Transition(
        Status.REFUNDING, None, events.REFUND_DUE
    ),
    (Status.COMPLETED, Event.REFUND_REQUESTED): Transition(
        Status.COMPLETED, Reason.REFUND_REQUESTED, events.REFUND_DUE
    ),
    (Status.COMPLETED, Event.PART_REFUNDED): Transition(Status.COMPLETED, Reason.PART_REFUNDED),
    (Status.COMPLETED, Event.REFUND_CONFIRMED): Transition(Status.REFUNDED, None, events.REFUNDED),
    (Status.COMPLETED, Event.REFUND_DECLINED): Transition(Status.COMPLETED, Reason.REFUND_DECLINED),
    (Status.COMPLETED, Event.REFUND_DROPPED): Transition(Status.COMPLETED, Reason.REFUND_DROPPED),
    (Status.REFUNDING, Event.PART_REFUNDED): Transition(Status.REFUNDING, Reason.PART_REFUNDED),
    (Status.REFUNDING, Event.REFUND_DECLINED): Transition(Status.REFUNDING, Reason.REFUND_DECLINED),
    (Status.REFUNDING, Event.REFUND_CONFIRMED): Transition(Status.REFUNDED, None, events.REFUNDED),
}

_CANCELLED_WHILE_CHARGING: Final[dict[Event, Transition]] = {
    Event.PAYMENT_CAPTURED: Transition(Status.REFUNDING, None, events.REFUND_DUE),
    Event.PAYMENT_DECLINED: Transition(Status.CANCELLED, None, events.CANCELLED),
}


def transition(
    status: Status, event: Event, *, cancel_requested: bool = False
) -> Transition | None:
    """Return what `event` does to an order in `status`, or None when it has no effect there."""
    if status is Status.CHARGING and cancel_requested and event in _CANCELLED_WHILE_CHARGING:
        return _CANCELLED_WHILE_CHARGING[event]
    return _TABLE.get((status, event))


def cancellation_reason(actor: str | None) -> Reason:
    """Return why an order is cancelled, by who asked for it."""
    if actor in (None, CUSTOMER):
        return Reason.CANCELLED_BY_CUSTOMER
    return Reason.CANCELLED_BY_SUPPORT
