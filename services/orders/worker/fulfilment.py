"""Brings one order to its end: reserve the stock, charge, settle the stock; pay back if cancelled.

The next step follows from the order's status alone, never from the message. So a message may arrive
twice, late or out of order. It is acknowledged when the order needs nothing more. Each step is
committed before the next begins. Each call to Inventory and Payment carries a key, so that a
repeated call has no further effect.
"""

import time
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from orders.database.progress import Progress, Work
from orders.domain import events
from orders.domain.lifecycle import Status
from orders.domain.order import Order
from orders.errors import OrdersError, Permanent, Transient, Unavailable
from orders.messaging.envelope import Message
from orders.telemetry.metrics import exemplar
from orders.upstream.inventory import Inventory
from orders.upstream.payment import Payment
from orders.worker import steps
from orders.worker.metrics import ORDER_PROCESSING
from orders.worker.settling import LostCaptures, Refunds, Stock
from orders.worker.steps import Move, Transitions, target

# An order takes four steps to its first end and six to pay its money back in two parts. If it takes
# many more rounds, other processes keep changing it.
_ROUNDS: Final = 20
_log = structlog.get_logger()


class WorkerPorts(msgspec.Struct, frozen=True):
    """The dependencies of fulfilment; `update_cache` updates the cache with a new version."""

    progress: Progress
    inventory: Inventory
    payment: Payment
    update_cache: Callable[[Order], None]


class Fulfilment:
    """Handles the messages of order-processing."""

    def __init__(self, ports: WorkerPorts) -> None:
        self._ports = ports
        self._transitions = Transitions(ports.progress, ports.update_cache)
        self._refunds = Refunds(ports.progress, ports.payment, self._transitions)
        lost_captures = LostCaptures(ports.payment, self._transitions)
        self._stock = Stock(ports.progress, ports.inventory, lost_captures)

    def handle(self, message: Message) -> None:
        """Bring the order of a message to its end. Idempotent.

        Raises Transient if the message has to be tried again, Permanent to dead-letter it.
        """
        started_s = time.monotonic()
        try:
            self._pursue(message.body.order_id, message.message_id)
        except OrdersError as error:
            if not log_if_stalled(message, error):
                raise
        finally:
            ORDER_PROCESSING.observe(time.monotonic() - started_s, exemplar())

    def _pursue(self, order_id: int, message_id: str) -> None:
        work = self._load(order_id, message_id)
        if work.order.version > 1:  # a process may have died between its commit and the cache
            self._ports.update_cache(work.order)
        for _ in range(_ROUNDS):
            if work.processed:
                return
            # None: another process changed the order meanwhile, so read it again.
            work = self._step(work, message_id) or self._load(order_id, message_id)
        raise Transient(f"other processes keep changing order {order_id}", retry_after_s=1)

    def _load(self, order_id: int, message_id: str) -> Work:
        work = self._ports.progress.load(order_id, message_id)
        if work is None:
            raise Permanent(f"there is no order {order_id}", reason="unknown_order")
        return work

    def _step(self, work: Work, message_id: str) -> Work | None:
        """Take the next step; return the order's new state, None to read it again."""
        match work.order.status:
            case Status.PENDING:
                order, inventory = work.order, self._ports.inventory
                answer = inventory.reserve(target(work), order.product_id, order.quantity)
                return self._commit(work, steps.decide_after_reserve(work, answer))
            case Status.RESERVED:
                return self._commit(work, steps.start_charge(work))
            case Status.CHARGING:
                return self._charge(work)
            case status if work.refund is not None or status is Status.REFUNDING:
                return self._refunds.pursue(work, message_id)
            case _:
                return self._stock.settle(work, message_id)

    def _charge(self, work: Work) -> Work | None:
        if work.attempt_id is None:
            raise Permanent("an order in Charging has no attempt", reason="no_attempt")
        payment, order, key = self._ports.payment, work.order, str(work.attempt_id)
        # The attempt may have reached Payment before: ask for its outcome first.
        outcome = payment.find(key, order.id, order.total) if work.attempt_may_be_known else None
        answer = outcome or payment.capture(key, order.id, order.total, work.payment_method)
        return self._commit(work, steps.decide_after_capture(work, answer))

    def _commit(self, work: Work, move: Move) -> Work | None:
        return self._transitions.commit(work, move.event, move.step)


def log_if_stalled(message: Message, error: Exception) -> bool:
    """Log the failure of a sweeper's message; return true if it is acknowledged all the same.

    The sweeper emits a stalled order again anyway: retries would only add work. A Permanent error
    has dead-lettered the order's first message already. False for other messages, and for an
    outage: the consumer has to learn of it, or it would end a pause.
    """
    if message.type != events.STALLED or isinstance(error, Unavailable):
        return False
    if isinstance(error, OrdersError):
        _log.error("order.still_stalled", orderId=message.body.order_id, error=str(error))
        return True
    return False
