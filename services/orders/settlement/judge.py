"""The rules of integrity: what is wrong with an order. Pure."""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

import msgspec

from orders.database.progress import Reservation
from orders.domain.deadlines import DEADLINES
from orders.domain.integrity import Breach
from orders.domain.lifecycle import ACTIVE, Status
from orders.settlement.evidence import Evidence, OrderFacts, attempt_uuid
from orders.upstream.ledgers import PaymentKind, PaymentStatus, StockStatus

_NOTHING: Final = Decimal(0)
_HOLDING: Final = frozenset({StockStatus.RESERVED, StockStatus.COMMITTED})


class Finding(msgspec.Struct, frozen=True):
    """One violation of an order.

    It counts from `due_at`, until which the service may still repair it; with None it counts at
    once.
    """

    kind: Breach
    detail: str
    due_at: dt.datetime | None = None


class Money(msgspec.Struct, frozen=True):
    """What Payment captured and refunded for an order, and what was refunded outside it."""

    captured: Decimal
    refunded: Decimal
    captures: int

    @property
    def kept(self) -> Decimal:
        """Return the amount that the customer has paid and not got back."""
        return self.captured - self.refunded


def judge(evidence: Evidence) -> list[Finding]:
    """Return the findings about an order's money and stock, overdue or not."""
    money, order = _money(evidence), evidence.known.order
    if order is None:
        return list(_lost_findings(evidence, money))
    return [*_money_findings(evidence, order, money), *_stock_findings(evidence, order)]


def _money(evidence: Evidence) -> Money:
    entries = evidence.payments
    captures = [entry for entry in entries if entry.status is PaymentStatus.CAPTURED]
    refunds = [entry.amount for entry in entries if entry.status is PaymentStatus.REFUNDED]
    outside_refunds = [attempt.elsewhere for attempt in evidence.known.attempts]
    return Money(
        sum((entry.amount for entry in captures), _NOTHING),
        sum((*refunds, *outside_refunds), _NOTHING),
        len(captures),
    )


def _lost_findings(evidence: Evidence, money: Money) -> Iterator[Finding]:
    units = sum(entry.quantity for entry in evidence.stock if entry.status in _HOLDING)
    if money.kept > 0 or units > 0:
        detail = f"Payment kept {money.kept}, Inventory holds {units} units; no such order"
        yield Finding(Breach.LOST, detail)
    if money.kept > 0:
        yield Finding(Breach.CHARGED_FOR_NOTHING, f"Payment kept {money.kept} of no order")
    if money.kept < 0:
        yield Finding(Breach.REFUNDED_TOO_MUCH, _balance(money))


def _money_findings(evidence: Evidence, order: OrderFacts, money: Money) -> Iterator[Finding]:
    minimum, maximum = _due(order)
    stray_ids = _stray_captures(evidence)
    if money.refunded > money.captured:
        yield Finding(Breach.REFUNDED_TOO_MUCH, _balance(money))
    elif money.kept > maximum:
        is_double = money.captures > 1 or order.status in {Status.COMPLETED, *ACTIVE}
        kind = Breach.CHARGED_TWICE if is_double else Breach.CHARGED_FOR_NOTHING
        detail = f"{_balance(money)}; due are {maximum} at most, the order is {order.status}"
        # The worker still has to ask Payment about it, and then refunds what a failover lost.
        asks = order.status is Status.CANCELLED and order.reservation == Reservation.HELD
        due_at = _overdue_at(evidence, order) if asks else None
        yield Finding(kind, f"{detail}{_list_strays(stray_ids)}", due_at)
    elif money.kept < minimum:
        breach = Breach.COMPLETED_NOT_CAPTURED if money.captured < order.total else None
        detail = f"{_balance(money)}; due are {minimum}"
        yield Finding(breach or Breach.REFUNDED_TOO_MUCH, detail)
    elif stray_ids and money.kept > 0 and order.status in ACTIVE:
        yield Finding(Breach.CHARGED_FOR_NOTHING, f"{_balance(money)}{_list_strays(stray_ids)}")
    if money.kept > 0 and order.status in ACTIVE and order.status is not Status.REFUNDING:
        detail = f"{_balance(money)}, but the order is {order.status}"
        yield Finding(Breach.CAPTURED_NOT_COMPLETED, detail, _overdue_at(evidence, order))


def _stray_captures(evidence: Evidence) -> list[str]:
    """Return captures under the order's id that another order caused, as after a failover."""
    known_ids = {attempt.id for attempt in evidence.known.attempts}
    return [
        entry.attempt_id
        for entry in evidence.payments
        if entry.status is PaymentStatus.CAPTURED
        and attempt_uuid(entry.attempt_id) not in known_ids
    ]


def _list_strays(stray_ids: list[str]) -> str:
    return f"; not attempts of this order: {', '.join(stray_ids[:3])}" if stray_ids else ""


def _due(order: OrderFacts) -> tuple[Decimal, Decimal]:
    """Return the lowest and highest amount that Payment may keep for an order in its status."""
    if order.status is Status.COMPLETED:
        return order.total - order.refund_requested, order.total - order.refunded
    if order.status in ACTIVE:
        return _NOTHING, order.total
    return _NOTHING, _NOTHING


def _overdue_at(evidence: Evidence, order: OrderFacts) -> dt.datetime:
    """Return the time until which work under way may explain the order's status."""
    capture_times = [entry.at for entry in evidence.payments if entry.kind is PaymentKind.CAPTURE]
    return max([order.updated_at, *capture_times]) + _grace(order)


def _stock_findings(evidence: Evidence, order: OrderFacts) -> Iterator[Finding]:
    units = {
        status: sum(entry.quantity for entry in evidence.stock if entry.status is status)
        for status in _HOLDING
    }
    committed_units, reserved_units = units[StockStatus.COMMITTED], units[StockStatus.RESERVED]
    overdue_at = order.updated_at + _grace(order)
    detail = f"Inventory holds {reserved_units} units and has committed {committed_units}"
    if order.status is Status.COMPLETED:
        if committed_units + reserved_units < order.quantity:
            yield Finding(Breach.OVERSOLD, f"{detail}, {order.quantity} were sold")
        elif committed_units + reserved_units > order.quantity:
            yield Finding(Breach.STOCK_HELD, f"{detail}, {order.quantity} were sold")
        elif reserved_units:
            yield Finding(Breach.STOCK_HELD, f"{detail}; all are sold", overdue_at)
    elif order.status not in ACTIVE and committed_units + reserved_units:
        yield Finding(Breach.STOCK_HELD, f"{detail}; the order is {order.status}", overdue_at)


def _grace(order: OrderFacts) -> dt.timedelta:
    return dt.timedelta(seconds=DEADLINES[order.status].after_s)


def _balance(money: Money) -> str:
    return f"captured {money.captured} in {money.captures}, refunded {money.refunded}"
