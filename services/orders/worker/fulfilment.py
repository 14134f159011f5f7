"""Brings one order to its end: reserve the stock, charge, commit or release the stock.

What to do next follows from the order's status alone, never from the message that came, so a
message may arrive twice, late or out of turn. The message is acknowledged when the order needs
nothing more; until then every step is committed before the next is taken, and every call to the
outside carries a key that makes its repetition harmless.
"""

import time
import uuid
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from orders.database.orders import Outcome, Progress, Reservation, Step, Work
from orders.domain import events
from orders.domain.lifecycle import TERMINAL, Event, Status, transition
from orders.domain.order import Order
from orders.errors import OrdersError, Permanent, Transient, Unavailable
from orders.messaging.envelope import Message
from orders.telemetry import context, tracing
from orders.telemetry.metrics import ORDER_COMPLETION, exemplar
from orders.upstream.inventory import Inventory, OutOfStock
from orders.upstream.payment import Captured, Declined, Payment
from orders.worker.metrics import ORDER_PROCESSING, ORDER_TRANSITIONS

# An order takes four steps to its end; more rounds than that mean that others keep moving it.
_ROUNDS: Final = 12
_log = structlog.get_logger()


class Ports(msgspec.Struct, frozen=True):
    """What fulfilment works with; `changed` tells the cache of a new version."""

    progress: Progress
    inventory: Inventory
    payment: Payment
    changed: Callable[[Order], None]


class Fulfilment:
    """Handles the messages of order-processing."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def handle(self, message: Message) -> None:
        """Bring the order of a message to its end. Idempotent.

        Raises Transient to have the message again later, Permanent to have it put aside.
        """
        started_s = time.monotonic()
        try:
            self._pursue(message.body.order_id, message.message_id)
        except OrdersError as error:
            if message.type != events.STALLED or isinstance(error, Unavailable):
                raise
            # The sweeper will emit the order again: retrying both would multiply the work, and
            # what cannot be mended has put the order's first message aside already.
            _log.error("order.still_stalled", orderId=message.body.order_id, error=str(error))
        finally:
            ORDER_PROCESSING.observe(time.monotonic() - started_s, exemplar())

    def _pursue(self, order_id: int, message_id: str) -> None:
        work = self._load(order_id, message_id)
        if work.order.version > 1:  # somebody may have died between a commit and the cache
            self._ports.changed(work.order)
        for _ in range(_ROUNDS):
            if work.processed:
                return
            # None: somebody else moved the order meanwhile, so look at it again.
            work = self._step(work, message_id) or self._load(order_id, message_id)
        raise Transient(f"order {order_id} is being moved by others", retry_after_s=1)

    def _load(self, order_id: int, message_id: str) -> Work:
        work = self._ports.progress.load(order_id, message_id)
        if work is None:
            raise Permanent(f"there is no order {order_id}", reason="unknown_order")
        return work

    def _step(self, work: Work, message_id: str) -> Work | None:
        """Take the next step; return how the order stands then, None if it was moved by others."""
        match work.order.status:
            case Status.PENDING:
                return self._reserve(work, message_id)
            case Status.RESERVED:
                return self._start_charge(work)
            case Status.CHARGING:
                return self._charge(work)
            case status if status in TERMINAL:
                return self._settle_stock(work, message_id)
            case status:
                raise Permanent(f"the worker has no step for {status}", reason="unknown_status")

    def _reserve(self, work: Work, message_id: str) -> Work | None:
        order = work.order
        answer = self._ports.inventory.reserve(order.id, order.product_id, order.quantity)
        if isinstance(answer, OutOfStock):
            # Nothing is held, so this is the last step.
            return self._move(work, Event.STOCK_REFUSED, Step(message_id=message_id))
        step = Step(reservation=Reservation.HELD)
        return self._move(work, Event.STOCK_RESERVED, step) or self._give_back(order.id, message_id)

    def _give_back(self, order_id: int, message_id: str) -> Work:
        """Release what was reserved just now if the order has ended without it meanwhile."""
        now = self._load(order_id, message_id)
        ended = now.order.status in TERMINAL and now.order.status is not Status.COMPLETED
        if ended and now.reservation is Reservation.NONE:
            self._ports.inventory.release(order_id)
        return now

    def _start_charge(self, work: Work) -> Work | None:
        """Commit the attempt before the call: its id is the key that stops a second charge."""
        return self._move(work, Event.CHARGE_STARTED, Step(new_attempt=uuid.uuid4()))

    def _charge(self, work: Work) -> Work | None:
        if work.attempt_id is None:
            raise Permanent("an order in Charging has no attempt", reason="no_attempt")
        captured = isinstance(self._capture(work, work.attempt_id), Captured)
        event = Event.PAYMENT_CAPTURED if captured else Event.PAYMENT_DECLINED
        outcome = Outcome.APPROVED if captured else Outcome.DECLINED
        return self._move(work, event, Step(attempt=work.attempt_id, outcome=outcome))

    def _capture(self, work: Work, attempt_id: uuid.UUID) -> Captured | Declined:
        """Learn what became of an attempt that may have been made before; else make it."""
        key, order = str(attempt_id), work.order
        known = self._ports.payment.find(key) if work.attempt_may_be_known else None
        return known or self._ports.payment.capture(key, order.id, order.total, work.payment_method)

    def _settle_stock(self, work: Work, message_id: str) -> Work:
        order = work.order
        if work.reservation is not Reservation.HELD:
            self._ports.progress.mark_processed(message_id)
        elif order.status is Status.COMPLETED:
            self._ports.inventory.commit(order.id)
            self._ports.progress.settle_stock(order.id, Reservation.COMMITTED, message_id)
        else:
            self._ports.inventory.release(order.id)
            self._ports.progress.settle_stock(order.id, Reservation.RELEASED, message_id)
        return msgspec.structs.replace(work, processed=True)

    def _move(self, work: Work, event: Event, step: Step) -> Work | None:
        """Commit a transition with all that belongs to it, then tell the cache and the people."""
        change = transition(work.order.status, event, cancel_requested=work.cancel_requested)
        ids = context.current()
        if change is None or ids is None:
            raise Permanent(f"{event} has no effect in {work.order.status}", reason="no_transition")
        with tracing.span("AdvanceOrder", {"order.id": work.order.id, "order.status": change.to}):
            moved = self._ports.progress.advance(work.order, change, step, ids)
        if moved is None:
            return None
        self._ports.changed(moved)
        _report(moved)
        return work.after(moved, step)


def _report(order: Order) -> None:
    reason = {"reason": order.status_reason} if order.status_reason else {}
    _log.info("order.advanced", orderId=order.id, status=order.status, **reason)
    ORDER_TRANSITIONS.labels(order.status).inc()
    if order.status in TERMINAL:
        seconds = (order.updated_at - order.created_at).total_seconds()
        ORDER_COMPLETION.labels(order.status).observe(seconds, exemplar())
