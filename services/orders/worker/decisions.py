"""An order's next step, for single orders and for sets.

Pure: from the order's state and the answers of Inventory and Payment.
"""

import msgspec

from orders.database.progress import Outcome, Reservation, Step, Work
from orders.domain.lifecycle import Event, Transition, transition
from orders.domain.order import AttemptKind, attempt_id
from orders.errors import Permanent
from orders.upstream.inventory import OutOfStock, Standing, Target
from orders.upstream.payment import Captured, Declined


class Move(msgspec.Struct, frozen=True):
    """A transition, and what commits with it."""

    event: Event
    step: Step


def target(work: Work) -> Target:
    """Return the reservation of an order."""
    return Target(work.reservation_key, work.order.id)


def reserved(work: Work, answer: Standing | OutOfStock) -> Move:
    """Decide what follows from the answer to a reservation."""
    key = work.reservation_key
    held = Step(reservation=Reservation.HELD, reservation_key=key)
    if isinstance(answer, OutOfStock):
        # Held all the same: a call that timed out, or of another worker, may still come through
        # and find stock. The release that follows makes Inventory refuse it.
        return Move(Event.STOCK_REFUSED, held)
    if answer in (Standing.RESERVED, Standing.COMMITTED):
        return Move(Event.STOCK_RESERVED, held)
    # Released already: cancelled a moment ago (then this commits nothing), or this order ended
    # before, in work that a failover lost, and nobody was charged.
    return Move(Event.STOCK_GONE, Step(reservation=Reservation.RELEASED, reservation_key=key))


def charge_started(work: Work) -> Move:
    """Name the attempt, which is committed before the call: its id stops a second charge."""
    attempt = attempt_id(work.nonce, AttemptKind.CAPTURE, 1)
    return Move(Event.CHARGE_STARTED, Step(new_attempt=attempt))


def charged(work: Work, answer: Captured | Declined) -> Move:
    """Decide what follows from what became of an attempt."""
    captured = isinstance(answer, Captured)
    event = Event.PAYMENT_CAPTURED if captured else Event.PAYMENT_DECLINED
    outcome = Outcome.APPROVED if captured else Outcome.DECLINED
    return Move(event, Step(attempt=work.attempt_id, outcome=outcome))


def change(work: Work, event: Event) -> Transition:
    """Return the transition of an event. Raises Permanent if it has none in the order's status."""
    order = work.order
    named = transition(order.status, event, cancel_requested=order.cancel_requested)
    if named is None:
        raise Permanent(f"{event} has no effect in {order.status}", reason="no_transition")
    return named
