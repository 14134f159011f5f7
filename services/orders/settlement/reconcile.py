"""Compares the orders with the ledgers of Payment and Inventory, page by page.

Two passes find suspects by comparing whole pages in SQL: from the ledgers to the orders, and from
the orders to the ledgers. Each suspect is then judged alone, on all evidence about it. Both passes
go through time in steps, so an order's entries have been read before its turn comes.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator
from typing import Final, Generic, Literal, TypeVar

import msgspec
import structlog

from orders.domain.deadlines import DEADLINES
from orders.domain.lifecycle import Status
from orders.settings import ReconcileSettings
from orders.settlement.evidence import EvidenceSources, attempt_uuid, gather
from orders.settlement.judge import judge
from orders.settlement.store import (
    Difference,
    OrderBalance,
    ReconciliationStore,
    Violation,
    Watermark,
)
from orders.upstream.ledgers import PaymentEntry, PaymentStatus, StockEntry, StockStatus

PAGE: Final = 1000  # orders in one statement
# Ledger entries remembered while their orders are awaited: about 100 bytes each.
REMEMBERED: Final = 300_000
STEP: Final = dt.timedelta(minutes=10)
# An order ends seconds after it was accepted; its entries are read before its turn comes.
_BEHIND: Final = dt.timedelta(minutes=2)
# How far the clocks of the database and of an upstream may differ before each order is asked for.
_CLOCKS: Final = dt.timedelta(minutes=1)
# Ids may go back by a little at a failover, so the last ones are checked again.
_IDS_AGAIN: Final = 1000
_EVER: Final = dt.datetime.max.replace(tzinfo=dt.UTC)

E = TypeVar("E", PaymentEntry, StockEntry)
T = TypeVar("T", uuid.UUID, int)
_log = structlog.get_logger()


class ReconciliationReport(msgspec.Struct, rename="camel"):
    """The result of a run, and the violations that are open."""

    result: Literal["clean", "violations"] = "clean"
    payments: int = 0  # entries read
    reservations: int = 0
    orders: int = 0
    judged: int = 0
    left_over: int = 0  # suspects left to the next run
    too_young: int = 0  # orders that cannot be judged yet
    violations: list[Violation] = []
    statements: int = 0
    database_seconds: float = 0.0


class Reader(Generic[E]):
    """A ledger that is read forward in time on demand."""

    def __init__(self, pages: Iterator[list[E]], start_at: dt.datetime | None) -> None:
        self._pages: Iterator[list[E]] = pages
        self.reached = start_at
        self._rest: list[E] = []
        self._ended = False

    def next_at(self) -> dt.datetime | None:
        """Return when the next entry reached its status, or None at the end."""
        while not self._rest and not self._ended:
            page = next(self._pages, None)
            self._rest, self._ended = page or [], page is None
        return self._rest[0].at if self._rest else None

    def until(self, moment: dt.datetime) -> Iterator[list[E]]:
        """Yield the entries before a moment, page by page."""
        while (next_at := self.next_at()) is not None and next_at < moment:
            page = [entry for entry in self._rest if entry.at < moment]
            self._rest = self._rest[len(page) :]
            self.reached = page[-1].at
            yield page


class Memory(Generic[T]):
    """The latest entries, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: dict[T, None] = {}

    def note(self, entries: Iterable[T]) -> None:
        """Add entries, and drop the oldest beyond the limit."""
        for entry in entries:
            self._entries[entry] = None
        while len(self._entries) > self._limit:
            del self._entries[next(iter(self._entries))]

    def __contains__(self, entry: T) -> bool:
        return entry in self._entries


class Start(msgspec.Struct, frozen=True):
    """Where a run starts; None: at the very beginning."""

    payments_at: dt.datetime | None
    stock_at: dt.datetime | None
    order_id: int


BEGINNING: Final = Start(None, None, 0)


class Reconciliation:
    """One run of reconciliation: reads both ledgers, judges orders, reports."""

    def __init__(
        self,
        store: ReconciliationStore,
        evidence_sources: EvidenceSources,
        settings: ReconcileSettings,
    ) -> None:
        self._store, self._sources, self._settings = store, evidence_sources, settings
        self._captured: Memory[uuid.UUID] = Memory(REMEMBERED)
        self._committed: Memory[int] = Memory(REMEMBERED)
        self._report = ReconciliationReport()
        self._suspects: set[int] = set()
        self._judged: set[int] = set()
        self._left_over: set[int] = set()
        self._moves_watermark = True
        self._start = BEGINNING
        self._awaited: set[int] = set()  # were in progress when they were checked

    def run(self, start: Start | None = None) -> ReconciliationReport:
        """Compare from `start`, or from where the last run ended, to now.

        A run with a `start` does not change where the next one begins. Raises Transient if the
        database or a ledger cannot be read, Permanent if an upstream refuses; the next run
        continues from there.
        """
        now, run_start = self._store.begin(), start or self._resume_point()
        self._moves_watermark = start is None or start == BEGINNING
        self._start = run_start
        latest_at = now - _seconds(self._settings.settle_s)
        first_at = OrdersById(self._store, run_start.order_id, latest_at, 1).next_at()
        overlap = _IDS_AGAIN if start is None else 0
        orders = OrdersById(self._store, max(0, run_start.order_id - overlap), latest_at)
        payments = Reader(
            self._sources.payments.since(_read_start(run_start.payments_at, first_at)),
            run_start.payments_at,
        )
        stock = Reader(
            self._sources.stock.since(_read_start(run_start.stock_at, first_at)), run_start.stock_at
        )
        sources = Sources(payments, stock, orders)
        # First, and half of all questions at most: new suspects must not push out the old ones.
        self._suspects |= set(self._store.cases(max(1, self._settings.questions // 2)))
        self._judge_suspects()
        is_last = False
        while not is_last:
            end = sources.next_step()
            is_last = end >= now
            self._compare(sources, _EVER if is_last else end)
        self._recheck()
        self._move_watermark(sources, finished=True)
        self._report.too_young = self._store.count_too_young(orders.reached)
        return self._close_report()

    def _compare(self, sources: "Sources", end: dt.datetime) -> None:
        """Compare one step of time."""
        for captures in sources.payments.until(end):
            self._compare_payments(captures)
        for units in sources.stock.until(end):
            self._compare_stock(units)
        for page in sources.orders.until(end - _BEHIND):
            self._report.orders += len(page)
            self._check_orders(page)
        self._judge_suspects()
        self._move_watermark(sources, finished=False)

    def _resume_point(self) -> Start:
        """Return where the last run ended, less a margin."""
        mark, overlap = self._store.watermark(), _seconds(self._settings.overlap_s)
        return Start(
            mark.payments_at and mark.payments_at - overlap,
            mark.stock_at and mark.stock_at - overlap,
            mark.order_id,
        )

    def _compare_payments(self, page: list[PaymentEntry]) -> None:
        self._report.payments += len(page)
        capture_ids = (
            attempt_uuid(entry.attempt_id)
            for entry in page
            if entry.status is PaymentStatus.CAPTURED
        )
        self._captured.note(attempt for attempt in capture_ids if attempt is not None)
        if new_entries := _entries_since(self._start.payments_at, page):
            self._note(self._store.compare_payments(new_entries))

    def _compare_stock(self, page: list[StockEntry]) -> None:
        self._report.reservations += len(page)
        self._committed.note(
            entry.order_id for entry in page if entry.status is StockStatus.COMMITTED
        )
        if new_entries := _entries_since(self._start.stock_at, page):
            self._note(self._store.compare_stock(new_entries))

    def _note(self, differences: list[Difference]) -> None:
        self._suspects |= {difference.order_id for difference in differences if difference.suspect}
        self._store.note_under_way(
            difference.order_id for difference in differences if difference.under_way
        )

    def _check_orders(self, orders: list[int]) -> set[int]:
        """Check orders whose ledger entries have been read; return those under way."""
        balances = self._store.balances(orders, DEADLINES[Status.CHARGING].after_s)
        open_ids = {balance.order_id for balance in balances if balance.under_way}
        self._store.note_under_way(open_ids)
        self._store.note_unnotified(balance.order_id for balance in balances if balance.unnotified)
        self._suspects |= {balance.order_id for balance in balances if balance.suspect}
        self._suspects |= {balance.order_id for balance in balances if self._lacks_entries(balance)}
        return open_ids

    def _lacks_entries(self, order: OrderBalance) -> bool:
        """Return whether a completed order's entries are not among those read recently."""
        if order.order_id <= self._start.order_id and order.order_id not in self._awaited:
            return False  # it was checked before, and its entries are not read again
        return order.captured_by is not None and not (
            order.captured_by in self._captured and order.order_id in self._committed
        )

    def _recheck(self) -> None:
        """Check orders that were under way or without notification before."""
        last_id = 0
        while orders := self._store.under_way(last_id, PAGE):
            last_id = orders[-1]
            self._awaited = set(orders)
            ended_ids = set(orders) - self._check_orders(orders)
            self._suspects |= self._store.find_missing(ended_ids)
            self._judge_suspects()
            self._store.forget_under_way(ended_ids)
        self._store.refresh_unnotified(self._settings)

    def _judge_suspects(self) -> None:
        waiting = sorted(self._suspects - self._judged)
        self._suspects.clear()
        budget = self._settings.questions - self._report.judged
        for order_id in waiting[:budget]:
            self._judge(order_id)
        self._left_over |= set(waiting[budget:])
        self._store.note_suspects(waiting[budget:])

    def _judge(self, order_id: int) -> None:
        self._report.judged += 1
        self._judged.add(order_id)
        evidence = gather(self._sources, order_id)
        if evidence is None:
            self._store.note_suspects([order_id])
            return
        findings = judge(evidence)
        for finding in self._store.record(order_id, findings, self._settings.second_look_s):
            _log.info("integrity.doubted", orderId=order_id, kind=finding.kind, due=finding.due_at)

    def _move_watermark(self, sources: "Sources", *, finished: bool) -> None:
        if self._moves_watermark:
            self._store.move(sources.reached(), finished=finished)

    def _close_report(self) -> ReconciliationReport:
        report = self._report
        report.left_over = len(self._left_over - self._judged)
        report.violations = self._store.violations()
        report.result = "violations" if report.violations else "clean"
        report.statements = self._store.statements
        report.database_seconds = round(self._store.busy_s, 3)
        return report


class OrdersById:
    """The orders by id, which is nearly the order of time."""

    def __init__(
        self, store: ReconciliationStore, after_id: int, latest_at: dt.datetime, page: int = PAGE
    ) -> None:
        self._store, self.reached, self._latest_at = store, after_id, latest_at
        self._page = page
        self._read = after_id
        self._rest: list[tuple[int, dt.datetime]] = []
        self._ended = False

    def next_at(self) -> dt.datetime | None:
        """Return when the next order was accepted; None if it is too young or there is none."""
        if not self._rest and not self._ended:
            self._rest = self._store.next_orders(self._read, self._page)
            self._ended = len(self._rest) < self._page
            self._read = self._rest[-1][0] if self._rest else self._read
        if not self._rest or self._rest[0][1] > self._latest_at:
            return None
        return self._rest[0][1]

    def until(self, moment: dt.datetime) -> Iterator[list[int]]:
        """Yield the ids of the orders accepted before a moment, page by page."""
        limit = min(moment, self._latest_at)
        while (next_at := self.next_at()) is not None and next_at < limit:
            page: list[int] = []
            while self._rest and self._rest[0][1] < limit:
                page.append(self._rest.pop(0)[0])
            yield page
            self.reached = page[-1]


class Sources(msgspec.Struct, frozen=True):
    """The three sources that are read in step."""

    payments: Reader[PaymentEntry]
    stock: Reader[StockEntry]
    orders: OrdersById

    def next_step(self) -> dt.datetime:
        """Return the end of the next step; the end of time if nothing is left."""
        sources = (self.payments, self.stock, self.orders)
        times = [next_at for source in sources if (next_at := source.next_at()) is not None]
        return min(times) + STEP if times else _EVER

    def reached(self) -> Watermark:
        """Return how far each source has been read."""
        return Watermark(self.payments.reached, self.stock.reached, self.orders.reached)


def _read_start(
    resume_at: dt.datetime | None, first_order_at: dt.datetime | None
) -> dt.datetime | None:
    """Return where to start to read: where the last run ended, or the first order's entries.

    Orders are compared some time after they were accepted. Entries that were compared before are
    read again, but only to be remembered.
    """
    if resume_at is None or first_order_at is None:
        return resume_at
    return min(resume_at, first_order_at - _CLOCKS)


def _entries_since(moment: dt.datetime | None, page: list[E]) -> list[E]:
    """Return the entries of a page that have not been compared before."""
    return [entry for entry in page if moment is None or entry.at >= moment]


def _seconds(seconds: float) -> dt.timedelta:
    return dt.timedelta(seconds=seconds)


def first_since(store: ReconciliationStore, moment: dt.datetime) -> int:
    """Return the id before the first order accepted at `moment` or later, by bisection."""
    low, high = 0, _last_id(store)
    while low < high:
        middle = (low + high) // 2
        row = store.next_orders(middle, 1)
        if row and row[0][1] < moment:
            low = row[0][0]
        else:
            high = middle
    return low


def _last_id(store: ReconciliationStore) -> int:
    """Return an id higher than that of any order."""
    candidate = 1
    while store.next_orders(candidate, 1):
        candidate *= 2
    return candidate
