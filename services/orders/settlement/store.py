"""Reconciliation's reads and writes in PostgreSQL, with the time that statements take."""

import datetime as dt
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from orders.database.pool import Pool
from orders.database.statements import Row
from orders.settings import ReconcileSettings
from orders.settlement.evidence import attempt_uuid
from orders.settlement.judge import Finding
from orders.upstream.ledgers import PaymentEntry, StockEntry

LISTED: Final = 1000  # violations in a report, at most


class Watermark(msgspec.Struct, frozen=True):
    """How far the ledgers (by their owners' clocks) and the orders (by id) have been compared."""

    payments_at: dt.datetime | None
    stock_at: dt.datetime | None
    order_id: int


class Difference(msgspec.Struct, frozen=True, array_like=True):
    """An order that differs from a page of a ledger."""

    order_id: int
    suspect: bool
    under_way: bool


class OrderBalance(msgspec.Struct, frozen=True, array_like=True):
    """An order as the database alone shows it; `captured_by` must be in the ledger."""

    order_id: int
    under_way: bool
    suspect: bool
    unnotified: bool
    captured_by: uuid.UUID | None


class Violation(msgspec.Struct, frozen=True, rename="camel"):
    """A violation that is still open."""

    order_id: int
    kind: str
    detail: str
    since: dt.datetime


class ReconciliationStore:
    """The statements of reconciliation. Every method raises Transient or Permanent as Pool does."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.busy_s = 0.0  # time spent in statements, network included
        self.statements = 0

    def begin(self) -> dt.datetime:
        """Record the start of a run and return the database's time."""
        [(now,)] = self._run("begin_reconciliation", {})
        return now  # type: ignore[no-any-return] # rows have no types

    def watermark(self) -> Watermark:
        """Return how far the previous runs got."""
        [row] = self._run("find_watermark", {})
        return Watermark(*row)

    def move(self, watermark: Watermark, *, finished: bool) -> None:
        """Record how far this run got, and whether it has finished."""
        self._run("move_watermark", {**msgspec.structs.asdict(watermark), "done": finished})

    def compare_payments(self, page: Sequence[PaymentEntry]) -> list[Difference]:
        """Return the differences of a page of Payment's ledger to orders and attempts."""
        rows = self._run(
            "reconcile_payments",
            {
                "orders": [entry.order_id for entry in page],
                "attempts": [attempt_uuid(entry.attempt_id) for entry in page],
                "kinds": [entry.kind.value for entry in page],
                "amounts": [entry.amount for entry in page],
                "statuses": [entry.status.value for entry in page],
            },
        )
        return [Difference(*row) for row in rows]

    def compare_stock(self, page: Sequence[StockEntry]) -> list[Difference]:
        """Return the differences of a page of Inventory's ledger to the orders."""
        rows = self._run(
            "reconcile_stock",
            {
                "orders": [entry.order_id for entry in page],
                "products": [entry.product_id for entry in page],
                "quantities": [entry.quantity for entry in page],
                "statuses": [entry.status.value for entry in page],
            },
        )
        return [Difference(*row) for row in rows]

    def next_orders(self, after_id: int, limit: int) -> list[tuple[int, dt.datetime]]:
        """Return the next orders by id, and when they were accepted."""
        rows = self._run("next_orders", {"after": after_id, "limit": limit})
        return [(row.id, row.created_at) for row in rows]

    def balances(self, orders: list[int], under_way_s: float) -> list[OrderBalance]:
        """Return what the database has of orders; those in Charging or Refunding for long are
        suspects.
        """
        arguments = {"orders": orders, "under_way_s": under_way_s}
        return [OrderBalance(*row) for row in self._run("reconcile_orders", arguments)]

    def note_under_way(self, orders: Iterable[int]) -> None:
        """Record orders to check once they have ended."""
        self._run_for(orders, "note_under_way")

    def forget_under_way(self, orders: Iterable[int]) -> None:
        """Remove orders that have ended from those to check."""
        self._run_for(orders, "forget_under_way")

    def find_missing(self, orders: set[int]) -> set[int]:
        """Return the ids for which no order exists."""
        if not orders:
            return set()
        rows = self._run("list_existing", {"orders": sorted(orders)})
        return orders - {row.id for row in rows}

    def note_unnotified(self, orders: Iterable[int]) -> None:
        """Record ended orders whose notification is not sent yet."""
        self._run_for(orders, "note_unnotified")

    def refresh_unnotified(self, settings: ReconcileSettings) -> None:
        """Remove notifications that have been sent; record those that are overdue."""
        arguments = {
            "within_s": settings.notified_within_s, "second_look_s": settings.second_look_s,
        }  # fmt: skip
        self._run("refresh_unnotified", arguments)

    def under_way(self, after_id: int, limit: int) -> list[int]:
        """Return recorded orders that had not ended, by id."""
        rows = self._run("list_under_way", {"after": after_id, "limit": limit})
        return [row.order_id for row in rows]

    def note_suspects(self, orders: Iterable[int]) -> None:
        """Record orders that the next run must judge."""
        self._run_for(orders, "note_suspects")

    def cases(self, limit: int) -> list[int]:
        """Return orders that were suspects before."""
        return [row.order_id for row in self._run("list_cases", {"limit": limit})]

    def record(
        self, order_id: int, findings: Sequence[Finding], second_look_s: float
    ) -> list[Finding]:
        """Replace the findings about an order; return those that are not accepted."""
        rows = self._run(
            "record_case",
            {
                "id": order_id,
                "kinds": [finding.kind.value for finding in findings],
                "details": [finding.detail[:1000] for finding in findings],
                "dues": [finding.due_at for finding in findings],
                "second_look_s": second_look_s,
            },
        )
        accepted = {kind for kind, is_accepted in rows if is_accepted}
        return [finding for finding in findings if finding.kind.value not in accepted]

    def count_too_young(self, after_id: int) -> int:
        """Return how many orders are too young to judge; those after `after_id` were not read."""
        [(count,)] = self._run("count_young", {"after": after_id})
        return int(count)

    def violations(self) -> list[Violation]:
        """Return the oldest open violations."""
        return [Violation(*row) for row in self._run("list_violations", {"limit": LISTED})]

    def _run_for(self, orders: Iterable[int], name: str) -> None:
        if ids := sorted(set(orders)):
            self._run(name, {"orders": ids})

    def _run(self, name: str, arguments: Mapping[str, Any]) -> list[Row]:
        began_s = time.perf_counter()
        try:
            return self._pool.execute(name, arguments)
        finally:
            self.busy_s += time.perf_counter() - began_s
            self.statements += 1
