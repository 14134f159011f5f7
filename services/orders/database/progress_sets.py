"""Orders in PostgreSQL as the worker sees them, several in one statement.

Each order moves, or does not, by itself: the statements compare and set row by row. They take their
rows as JSON: as arrays, 50 rows of 16 columns cost psycopg 374 µs of CPU, and this 9.
"""

import uuid
from collections.abc import Mapping, Sequence

import msgspec

from orders.database.pool import Pool
from orders.database.progress import (
    Outcome,
    Progress,
    Reservation,
    Step,
    Work,
    moved,
    status_reason_of,
    work_of,
)
from orders.domain.lifecycle import Status, Transition
from orders.domain.order import Order
from orders.telemetry.context import Context


class Advance(msgspec.Struct, frozen=True):
    """A step of one order, and the ids of the work that takes it."""

    work: Work
    transition: Transition
    step: Step
    context: Context


class Settlement(msgspec.Struct, frozen=True):
    """What Inventory did with the stock of an ended order; its message is done with."""

    work: Work
    reservation: Reservation
    message_id: str


class _Asked(msgspec.Struct):
    id: int
    message_id: str


class _Step(msgspec.Struct):
    id: int
    version: int
    from_status: Status
    cancel_requested: bool
    to_status: Status
    status_reason: str | None
    reason: str | None
    announces: str | None
    reservation: Reservation | None
    reservation_key: str | None
    new_attempt: uuid.UUID | None
    attempt: uuid.UUID | None
    outcome: Outcome | None
    correlation_id: str
    traceparent: str
    trace_id: str


class _Settlement(msgspec.Struct):
    id: int
    version: int
    before: Reservation
    reservation: Reservation
    message_id: str


class ProgressSets:
    """The orders of the worker, several at once; no order may be in a set twice."""

    def __init__(self, primary: Pool, consumer: str) -> None:
        self._primary, self._consumer = primary, consumer
        # An order that comes alone takes the statements of one order: 1 ms each instead of 3.6.
        self._alone = Progress(primary, consumer)

    def load(self, messages: Mapping[int, str]) -> dict[int, Work]:
        """Return orders by their ids, and what is known of their payments; not those unknown.

        `messages` are the ids of the orders, and of the message about each.
        """
        if len(messages) == 1:
            [(order_id, message_id)] = messages.items()
            work = self._alone.load(order_id, message_id)
            return {} if work is None else {order_id: work}
        items = [_Asked(order_id, message_id) for order_id, message_id in messages.items()]
        arguments = {"asked": _json(items), "consumer": self._consumer}
        rows = self._primary.execute("load_works", arguments)
        return {row[0]: work_of(row) for row in rows}

    def advance(self, advances: Sequence[Advance]) -> dict[int, Order]:
        """Move orders on by compare-and-set; return those that were where their work says."""
        steps = [_step(advance) for advance in advances]
        if len(advances) == 1:
            [advance] = advances
            order = self._alone.advance(
                advance.work, advance.transition, advance.step, advance.context
            )
            return {} if order is None else {order.id: order}
        arguments = {"steps": _json(steps), "actor": self._consumer}
        rows = {row[0]: row[1:] for row in self._primary.execute("advance_orders", arguments)}
        if any(row[-1] for row in rows.values()):  # relay_sleeps
            self._primary.wake_relay()
        return {
            advance.work.order.id: moved(advance.work, advance.transition, advance.step, row)
            for advance in advances
            if (row := rows.get(advance.work.order.id)) is not None
        }

    def settle(self, settlements: Sequence[Settlement]) -> set[int]:
        """Note what became of stock; return the orders that were where their work says."""
        if len(settlements) == 1:
            [settlement] = settlements
            noted = self._alone.settle_stock(
                settlement.work, settlement.reservation, settlement.message_id
            )
            return {settlement.work.order.id} if noted else set()
        steps = [
            _Settlement(
                settlement.work.order.id,
                settlement.work.order.version,
                settlement.work.reservation,
                settlement.reservation,
                settlement.message_id,
            )
            for settlement in settlements
        ]
        arguments = {"steps": _json(steps), "consumer": self._consumer}
        return {row[0] for row in self._primary.execute("settle_stocks", arguments)}


def _step(advance: Advance) -> _Step:
    work, transition, step, context = (
        advance.work,
        advance.transition,
        advance.step,
        advance.context,
    )
    recovered = step.new_attempt is not None and step.outcome is not None
    if step.refunded or step.refund_dropped or step.outcome_reason or recovered:
        raise ValueError("refunds and lost captures are advanced one by one")
    status_reason = status_reason_of(work, transition, step)
    return _Step(
        id=work.order.id,
        version=work.order.version,
        from_status=work.order.status,
        cancel_requested=work.order.cancel_requested,
        to_status=transition.to,
        status_reason=status_reason,
        reason=transition.reason or status_reason,
        announces=transition.announces,
        reservation=step.reservation,
        reservation_key=step.reservation_key,
        new_attempt=step.new_attempt,
        attempt=step.attempt,
        outcome=step.outcome,
        correlation_id=context.correlation_id,
        traceparent=context.traceparent,
        trace_id=context.trace_id,
    )


def _json(rows: Sequence[msgspec.Struct]) -> str:
    return msgspec.json.encode(rows).decode()
