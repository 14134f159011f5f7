"""The steps of an order, for single orders and for sets: which comes next, and how it is committed.

Pure functions decide the next step from the order's state and the answers of Inventory and Payment.
`Transitions` commits it, then updates the cache.
"""

from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from orders.database.progress import AttemptOutcome, Progress, Reservation, Step, Work
from orders.domain.lifecycle import ON_THE_WAY, TERMINAL, Event, Status, Transition, transition
from orders.domain.order import AttemptKind, Order, attempt_id
from orders.errors import Permanent
from orders.telemetry import context, tracing
from orders.telemetry.metrics import ORDER_COMPLETION, exemplar
from orders.upstream.inventory import OutOfStock, ReservationStatus, Target
from orders.upstream.payment import Captured, Declined
from orders.worker.metrics import ORDER_TRANSITIONS

_log: Final = structlog.get_logger()


class Move(msgspec.Struct, frozen=True):
    """The event of a transition, and the changes that are committed with it."""

    event: Event
    step: Step


def target(work: Work) -> Target:
    """Return the reservation of an order."""
    return Target(work.reservation_key, work.order.id)


def decide_after_reserve(work: Work, answer: ReservationStatus | OutOfStock) -> Move:
    """Decide what follows from the answer to a reservation."""
    key = work.reservation_key
    step = Step(reservation=Reservation.HELD, reservation_key=key)
    if isinstance(answer, OutOfStock):
        # Recorded as held: a call that timed out, or one of another worker, may still arrive and
        # find stock. The release that follows makes Inventory refuse such a call.
        return Move(Event.STOCK_REFUSED, step)
    if answer in (ReservationStatus.RESERVED, ReservationStatus.COMMITTED):
        return Move(Event.STOCK_RESERVED, step)
    # The reservation was released before. Either the order was cancelled a moment ago, then this
    # commits nothing. Or it ended in work that a failover lost, before any charge.
    return Move(Event.STOCK_GONE, Step(reservation=Reservation.RELEASED, reservation_key=key))


def start_charge(work: Work) -> Move:
    """Return the step that commits the attempt's id; the id prevents a second charge."""
    attempt = attempt_id(work.nonce, AttemptKind.CAPTURE, 1)
    return Move(Event.CHARGE_STARTED, Step(new_attempt=attempt))


def decide_after_capture(work: Work, answer: Captured | Declined) -> Move:
    """Decide what follows from the outcome of an attempt."""
    is_captured = isinstance(answer, Captured)
    event = Event.PAYMENT_CAPTURED if is_captured else Event.PAYMENT_DECLINED
    outcome = AttemptOutcome.APPROVED if is_captured else AttemptOutcome.DECLINED
    return Move(event, Step(attempt=work.attempt_id, outcome=outcome))


def transition_of(work: Work, event: Event) -> Transition:
    """Return the transition of an event. Raises Permanent if it has none in the order's status."""
    order = work.order
    change = transition(order.status, event, cancel_requested=order.cancel_requested)
    if change is None:
        raise Permanent(f"{event} has no effect in {order.status}", reason="no_transition")
    return change


def is_open(work: Work) -> bool:
    """Return whether an ended order's stock has yet to be settled."""
    if work.reservation is Reservation.COMMITTED:
        return work.order.status is Status.REFUNDED
    return work.reservation is Reservation.HELD


class Transitions:
    """Commits transitions; `update_cache` updates the cache with a new version."""

    def __init__(self, progress: Progress, update_cache: Callable[[Order], None]) -> None:
        self._progress, self._update_cache = progress, update_cache

    def commit(self, work: Work, event: Event, step: Step) -> Work | None:
        """Commit a transition and `step` with it; None if another process changed the order."""
        order = work.order
        change, ids = transition_of(work, event), context.current()
        if ids is None:
            raise Permanent("a transition outside of any work", reason="no_transition")
        with tracing.span("AdvanceOrder", {"order.id": order.id, "order.status": change.to}):
            new_version = self._progress.advance(work, change, step, ids)
        if new_version is None:
            return None
        self._update_cache(new_version)
        report(order.status, new_version)
        return work.after(new_version, step)


def report(previous_status: Status, order: Order) -> None:
    """Log and count a committed transition."""
    reason = {"reason": order.status_reason} if order.status_reason else {}
    _log.info("order.advanced", orderId=order.id, status=order.status, **reason)
    ORDER_TRANSITIONS.labels(order.status).inc()
    # Only the first end counts: a refund may come long after it.
    if previous_status in ON_THE_WAY and order.status in TERMINAL:
        seconds = (order.updated_at - order.created_at).total_seconds()
        ORDER_COMPLETION.labels(order.status).observe(seconds, exemplar())
