"""The rules for violations of an order, without a database."""

import datetime as dt
import uuid
from decimal import Decimal

import msgspec
import pytest

from orders.database.progress import AttemptOutcome
from orders.domain.deadlines import DEADLINES, deadlines
from orders.domain.integrity import Breach
from orders.domain.lifecycle import ACTIVE, TERMINAL, Status
from orders.settlement.evidence import AttemptFacts, Evidence, Known, OrderFacts
from orders.settlement.judge import Finding, judge
from orders.upstream.ledgers import (
    PaymentEntry,
    PaymentKind,
    PaymentStatus,
    StockEntry,
    StockStatus,
)

NOW = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)
TOTAL, QUANTITY = Decimal("20.00"), 2
OURS = uuid.uuid4()


def order(status: Status, refunded: int = 0, requested: int | None = None) -> OrderFacts:
    refund_requested = refunded if requested is None else requested
    return OrderFacts(
        1, status, 4, 5, QUANTITY, TOTAL, Decimal(refunded), Decimal(refund_requested), "none", NOW
    )


def capture(attempt: uuid.UUID | str = OURS, amount: Decimal = TOTAL) -> PaymentEntry:
    return PaymentEntry(str(attempt), 1, PaymentKind.CAPTURE, amount, PaymentStatus.CAPTURED, NOW)


def refund(amount: Decimal | int = TOTAL) -> PaymentEntry:
    return PaymentEntry("r", 1, PaymentKind.REFUND, Decimal(amount), PaymentStatus.REFUNDED, NOW)


def units(status: StockStatus, quantity: int = QUANTITY) -> StockEntry:
    return StockEntry(1, 5, quantity, status, NOW)


def findings(
    facts: OrderFacts | None, payments: list[PaymentEntry], stock: list[StockEntry]
) -> list[Finding]:
    attempts = [AttemptFacts(OURS, PaymentKind.CAPTURE, TOTAL, AttemptOutcome.APPROVED)]
    return judge(Evidence(1, Known(facts, attempts, [], NOW), payments, stock))


def kinds(
    facts: OrderFacts | None, payments: list[PaymentEntry], stock: list[StockEntry]
) -> list[Breach]:
    return [finding.kind for finding in findings(facts, payments, stock)]


SOLD = [units(StockStatus.COMMITTED)]


def test_every_status_with_what_belongs_to_it_is_clean() -> None:
    clean = {
        Status.COMPLETED: ([capture()], SOLD),
        Status.FAILED: ([], [units(StockStatus.RELEASED)]),
        Status.CANCELLED: ([], []),
        Status.REFUNDED: ([capture(), refund()], [units(StockStatus.RETURNED)]),
        Status.REFUNDING: ([capture()], SOLD),
        Status.PENDING: ([], []),
        Status.RESERVED: ([], [units(StockStatus.RESERVED)]),
        Status.CHARGING: ([], [units(StockStatus.RESERVED)]),
    }
    assert set(clean) == set(Status)
    for status, (payments, stock) in clean.items():
        assert findings(order(status), payments, stock) == [], status


@pytest.mark.parametrize("status", [Status.PENDING, Status.RESERVED, Status.CHARGING])
def test_a_capture_of_an_order_under_way_counts_after_its_deadline(status: Status) -> None:
    [finding] = findings(order(status), [capture()], [])
    assert finding.kind is Breach.CAPTURED_NOT_COMPLETED
    assert finding.due_at == NOW + dt.timedelta(seconds=DEADLINES[status].after_s)


@pytest.mark.parametrize("status", sorted(ACTIVE))
def test_two_captures_count_at_once_whatever_the_status(status: Status) -> None:
    breaches = findings(order(status), [capture(), capture("other")], [])
    assert (breaches[0].kind, breaches[0].due_at) == (Breach.CHARGED_TWICE, None)
    assert "other" in breaches[0].detail


@pytest.mark.parametrize(("reservation", "waits"), [("held", True), ("released", False)])
def test_a_capture_of_a_cancelled_order_counts_once_the_worker_has_asked_payment_about_it(
    reservation: str, waits: object
) -> None:
    cancelled = msgspec.structs.replace(order(Status.CANCELLED), reservation=reservation)
    [finding] = findings(cancelled, [capture()], [])
    assert finding.kind is Breach.CHARGED_FOR_NOTHING
    assert (finding.due_at is not None) == waits


def test_a_capture_of_a_lost_order_whose_id_came_again_counts_at_once() -> None:
    breaches = findings(order(Status.PENDING), [capture("of the lost one")], [])
    assert (breaches[0].kind, breaches[0].due_at) == (Breach.CHARGED_FOR_NOTHING, None)


def test_money_kept_of_an_order_that_ended_unpaid_counts_at_once() -> None:
    for status in TERMINAL - {Status.COMPLETED}:
        assert kinds(order(status), [capture()], []) == [Breach.CHARGED_FOR_NOTHING], status
        assert kinds(order(status), [capture(), refund()], []) == [], status


def test_a_partial_refund_under_way_is_between_the_two_amounts() -> None:
    facts = order(Status.COMPLETED, refunded=5, requested=8)
    assert kinds(facts, [capture(), refund(5)], SOLD) == []
    assert kinds(facts, [capture(), refund(8)], SOLD) == []
    assert kinds(facts, [capture(), refund(9)], SOLD) == [Breach.REFUNDED_TOO_MUCH]
    assert kinds(facts, [capture(), refund(4)], SOLD) == [Breach.CHARGED_TWICE]


def test_completed_means_captured_and_committed() -> None:
    facts = order(Status.COMPLETED)
    assert kinds(facts, [], SOLD) == [Breach.COMPLETED_NOT_CAPTURED]
    assert kinds(facts, [capture(amount=TOTAL - 1)], SOLD) == [Breach.COMPLETED_NOT_CAPTURED]
    assert kinds(facts, [capture()], []) == [Breach.OVERSOLD]
    assert kinds(facts, [capture()], [units(StockStatus.RELEASED)]) == [Breach.OVERSOLD]
    assert kinds(facts, [capture()], [*SOLD, units(StockStatus.COMMITTED)]) == [Breach.STOCK_HELD]
    [finding] = findings(facts, [capture()], [units(StockStatus.RESERVED)])
    assert finding.kind is Breach.STOCK_HELD
    assert finding.due_at is not None


def test_an_order_that_is_gone_is_lost_as_long_as_something_is_left_of_it() -> None:
    assert kinds(None, [], [units(StockStatus.RESERVED)]) == [Breach.LOST]
    assert kinds(None, [capture()], []) == [Breach.LOST, Breach.CHARGED_FOR_NOTHING]
    assert kinds(None, [capture(), refund()], [units(StockStatus.RELEASED)]) == []


def test_every_status_has_a_deadline() -> None:
    assert set(DEADLINES) == set(Status)
    assert deadlines(1.0)[Status.PENDING].after_s == 1.0
