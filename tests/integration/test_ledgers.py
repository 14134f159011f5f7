"""The ledgers of Inventory and Payment, read through their contract, on the real simulators."""

import contextlib
import datetime as dt
from collections.abc import Iterator
from decimal import Decimal

import pytest

from orders.errors import Transient
from orders.upstream import ledgers
from orders.upstream.http import Upstream
from orders.upstream.ledgers import Ledger, PaymentEntry, PaymentKind, PaymentStatus, StockEntry
from orders.upstream.policy import UpstreamPolicy
from upstreams.process import Control

POLICY = ledgers.for_pages(UpstreamPolicy(backoff_base_s=0.01, backoff_jitter_s=0, retries=1))
CAPTURE = {"orderId": 1, "amount": 5, "paymentMethod": "card"}
UNIT = {"productId": 5, "quantity": 1}


@pytest.fixture
def payments(till: Control) -> Iterator[Ledger[PaymentEntry]]:
    with contextlib.closing(Upstream("payment", till.url, POLICY)) as upstream:
        yield ledgers.payments(upstream)


@pytest.fixture
def reservations(stock: Control) -> Iterator[Ledger[StockEntry]]:
    with contextlib.closing(Upstream("inventory", stock.url, POLICY)) as upstream:
        yield ledgers.reservations(upstream)


def everything(ledger: Ledger[PaymentEntry], since: dt.datetime | None = None) -> list[str]:
    return [entry.attempt_id for page in ledger.since(since) for entry in page]


def test_captures_declines_and_refunds_are_entries_with_exact_amounts(
    till: Control, payments: Ledger[PaymentEntry]
) -> None:
    till.send("PUT", "/payments/a", {**CAPTURE, "amount": 19.9})
    till.send("PUT", "/payments/b", {**CAPTURE, "orderId": 2, "paymentMethod": "decline"})
    till.send("PUT", "/refunds/r", {"orderId": 1, "amount": 19.9, "captureId": "a"})
    [page] = list(payments.since(None))
    assert [(e.attempt_id, e.order_id, e.kind, e.amount, e.status) for e in page] == [
        ("a", 1, PaymentKind.CAPTURE, Decimal("19.90"), PaymentStatus.CAPTURED),
        ("b", 2, PaymentKind.CAPTURE, Decimal("5.00"), PaymentStatus.DECLINED),
        ("r", 1, PaymentKind.REFUND, Decimal("19.90"), PaymentStatus.REFUNDED),
    ]


def test_pages_follow_each_other_without_a_gap_while_entries_are_added(till: Control) -> None:
    for number in range(5):
        till.send("PUT", f"/payments/a{number}", CAPTURE)
    status, first = till.send("GET", "/payments?limit=3")
    assert status == 200
    till.send("PUT", "/payments/late", CAPTURE)
    _, second = till.send("GET", f"/payments?limit=3&cursor={first['next']}")
    ids = [entry["attemptId"] for page in (first, second) for entry in page["entries"]]
    assert ids == ["a0", "a1", "a2", "a3", "a4", "late"]
    assert second["next"] is None
    assert set(first["entries"][0]) == {"attemptId", "orderId", "kind", "amount", "status", "at"}


def test_an_entry_that_changes_moves_to_the_end(stock: Control) -> None:
    for order_id in (1, 2, 3):
        stock.send("PUT", f"/reservations/{order_id}", UNIT)
    _, first = stock.send("GET", "/reservations?limit=1")
    stock.send("POST", "/reservations/1/commit")
    stock.send("POST", "/reservations/2/release")
    _, entries = stock.send("GET", f"/reservations?cursor={first['next']}")
    assert [(entry["orderId"], entry["status"]) for entry in entries["entries"]] == [
        (3, "reserved"),
        (1, "committed"),
        (2, "released"),
    ]


def test_since_begins_at_that_moment(till: Control, payments: Ledger[PaymentEntry]) -> None:
    for name in ("a", "b", "c"):
        till.send("PUT", f"/payments/{name}", CAPTURE)
    moments = {entry.attempt_id: entry.at for page in payments.since(None) for entry in page}
    assert everything(payments, moments["b"]) == ["b", "c"]
    assert everything(payments, moments["c"] + dt.timedelta(seconds=1)) == []


def test_the_entries_of_one_order_come_together(
    till: Control,
    stock: Control,
    payments: Ledger[PaymentEntry],
    reservations: Ledger[StockEntry],
) -> None:
    for name, order_id in (("a", 1), ("b", 2), ("c", 1)):
        till.send("PUT", f"/payments/{name}", {**CAPTURE, "orderId": order_id})
    stock.send("PUT", "/reservations/1", UNIT)
    assert [entry.attempt_id for entry in payments.of_order(1)] == ["a", "c"]
    assert [entry.status for entry in reservations.of_order(1)] == ["reserved"]
    assert payments.of_order(9) == []
    assert reservations.of_order(9) == []


def test_more_than_a_page_is_read_to_its_end(till: Control, payments: Ledger[PaymentEntry]) -> None:
    names = [f"a{number}" for number in range(ledgers.PAGE + 1)]
    for name in names:
        till.send("PUT", f"/payments/{name}", CAPTURE)
    assert everything(payments) == names


@pytest.mark.parametrize(
    "query", ["since=yesterday", "since=2026-01-01T00:00:00", "cursor=x", "limit=0", "limit=1001"]
)
def test_a_wrong_question_is_refused(till: Control, query: str) -> None:
    assert till.send("GET", f"/payments?{query}")[0] == 400


def test_a_cursor_from_before_a_reset_is_refused(till: Control) -> None:
    for name in ("a", "b"):
        till.send("PUT", f"/payments/{name}", CAPTURE)
    _, page = till.send("GET", "/payments?limit=1")
    till.reset()
    status, answer = till.send("GET", f"/payments?cursor={page['next']}")
    assert (status, answer["error"]) == (400, "invalid_cursor")


def test_a_ledger_that_does_not_answer_is_transient(
    till: Control, payments: Ledger[PaymentEntry]
) -> None:
    till.faults(errorRatio=1)
    with pytest.raises(Transient, match="GET /payments failed"):
        list(payments.since(None))
