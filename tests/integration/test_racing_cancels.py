"""Ten thousand orders, several clients that cancel each, workers that die at any instant.

The upstreams are the simulators' books without HTTP; PostgreSQL is real. ORDERS_RACED changes the
number of orders.
"""

import collections
import contextlib
import os
import queue
import random
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, Final

import pytest

from integration.handles import Database
from integration.stores import cancellations_on, orders_on
from integration.together import DirectOrderCalls, handle_by_itself, work_on
from integration.upstream_books import InventoryBooks, PaymentBooks
from integration.world import message_of
from orders import settings
from orders.database.cancellations import CancellationCommand, NotCancellable
from orders.database.pool import Pool
from orders.database.progress import Progress, ProgressSets
from orders.domain.deadlines import deadlines
from orders.domain.order import NewOrder
from orders.errors import OrdersError, Transient
from orders.messaging.envelope import Message
from orders.telemetry import context
from orders.worker.fulfilment import Fulfilment, WorkerPorts
from orders.worker.sweep import Sweeper
from upstreams.inventory import Stock
from upstreams.payment import PaymentStore

pytestmark = pytest.mark.failover

ORDERS: Final = int(os.environ.get("ORDERS_RACED", "10000"))
WORKERS, CLIENTS = 4, 3
SET: Final = 10  # orders that a worker takes at once, now and then
FAULTS: Final = 0.01  # share of the calls and commits at which something breaks
SCARCE, UNITS = 3, 1_000_000
TOTAL = Decimal("19.90")
TOLD: Final = {
    "Completed": "order.completed.v1",
    "Failed": "order.failed.v1",
    "Cancelled": "order.cancelled.v1",
    "Refunded": "order.refunded.v1",
}


class Died(BaseException):
    """The worker's process ends here."""


class Faulty:
    """A port at which a call now and then is lost, or done without an answer, or is the last."""

    def __init__(self, port: Any, faults: collections.Counter[str]) -> None:
        self._port, self._faults = port, faults

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._break(f"before {name}")
            answer = method(*arguments, **named)
            self._break(f"after {name}")
            return answer

        return call

    def _break(self, instant: str) -> None:
        if random.random() < FAULTS:
            self._faults[instant] += 1
            raise random.choice([Died(), Transient("an answer is lost")])


class Race:
    """The orders, the workers that bring them to their end, the clients that cancel them."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.stock, self.till = pool, Stock(), PaymentStore()
        self.stock.set_available(SCARCE, ORDERS // 20)
        self.faults: collections.Counter[str] = collections.Counter()
        self.answers: collections.Counter[str] = collections.Counter()
        self.cancelled: set[int] = set()
        self.work: queue.Queue[int] = queue.Queue()
        self.cancellations = cancellations_on(pool)
        self.ledger = orders_on(pool)
        self.done = threading.Event()

    def place(self, number: int) -> None:
        """Place an order, and let the clients cancel two of five of them about the payment."""
        method = "decline" if number % 7 == 0 else "card"
        product = SCARCE if number % 10 == 0 else 1
        ids = context.accept("race", None)[0]
        answer = self.ledger.accept(NewOrder(7, product, 1, TOTAL, method), ids, "user:7", None)
        order_id = answer.order_id or 0
        self.work.put(order_id)
        if number % 5 < 2:
            clients = [
                threading.Timer(random.uniform(0, 0.2), self.cancel, [order_id])
                for _ in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            for client in clients:
                client.join()

    def cancel(self, order_id: int) -> None:
        request = CancellationCommand(order_id, "7", everyones=False, principal="user:7")
        try:
            cancelled = self.cancellations.cancel(request, context.accept("race", None)[0])
            assert cancelled is not None
            self.answers[str(cancelled.answer.status)] += 1
            self.cancelled.add(order_id)
        except NotCancellable as error:
            self.answers[error.reason] += 1
        except Transient:
            self.answers["503"] += 1

    def serve(self) -> None:
        """Work until all is done; any thread repeats a message that failed."""
        while not (self.done.is_set() and self.work.empty()):
            try:
                orders = [self.work.get(timeout=0.1)]
            except queue.Empty:
                continue
            with contextlib.suppress(queue.Empty):
                while len(orders) < random.choice((1, SET)):
                    orders.append(self.work.get_nowait())
            try:
                self.handle(orders)
            except (Died, Transient):
                for order_id in orders:  # those that are done with are so again
                    self.work.put(order_id)

    def handle(self, orders: list[int]) -> None:
        """Handle an order by itself, and several as a set."""

        def faulty(port: Any) -> Any:
            return Faulty(port, self.faults)

        inventory = faulty(InventoryBooks(self.stock))
        payment = faulty(PaymentBooks(self.till, refuses_refunds=False))
        ports = WorkerPorts(
            faulty(Progress(self.pool, "worker")), inventory, payment, lambda _: None
        )
        refusals: Sequence[tuple[Message, OrdersError | None]]
        refusals = [(message_of(order_id), None) for order_id in orders]
        if len(orders) > 1:
            order_calls = DirectOrderCalls(inventory, payment)
            progress = faulty(ProgressSets(self.pool, "worker"))
            messages = [message for message, _ in refusals]
            refusals = work_on(
                messages, progress, order_calls.calls, order_calls, lambda _: None
            ).refused
        handle_by_itself(refusals, Fulfilment(ports).handle)

    def sweep(self) -> None:
        """Emit stalled orders again, and handle them."""
        Sweeper(self.pool, deadlines(0.000001), lambda: False).sweep()
        query = (
            "DELETE FROM outbox WHERE type IN"
            " ('order.stalled.v1', 'order.cancelled.v1', 'order.refund_due.v1')"
            " RETURNING aggregateid::bigint"
        )
        for (order_id,) in self.rows(query):
            self.work.put(order_id)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.pool.connection() as connection:
            return list(connection.execute(query.encode()).fetchall())


@pytest.fixture
def pool(database: Database) -> Iterator[Pool]:
    environ = {"ORDERS_DATABASE_URL": database.url, "ORDERS_DATABASE_POOL_SIZE": "20"}
    pool = Pool(database.url, settings.load(settings.DatabaseSettings, environ), "race")
    pool.open()
    yield pool
    pool.close()


def test_money_and_stock_balance_after_thousands_of_racing_cancels(
    pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    race = Race(pool)
    with ThreadPoolExecutor(WORKERS + 4) as threads:
        workers = [threads.submit(race.serve) for _ in range(WORKERS)]
        with ThreadPoolExecutor(4) as shops:
            list(shops.map(race.place, range(ORDERS)))
        race.done.set()
        for worker in workers:
            worker.result()
        while owing(race):
            race.sweep()
            race.serve()
    check_orders(race)
    check_totals(race)
    with capsys.disabled():
        states = dict(race.rows("SELECT status, count(*) FROM orders GROUP BY 1 ORDER BY 1"))
        sys.stdout.write(
            f"\n{ORDERS} orders: {states}; cancellations answered {dict(race.answers)}; "
            f"{race.faults.total()} faults at {len(race.faults)} kinds of instants\n"
        )


def owing(race: Race) -> bool:
    return bool(
        race.rows(
            "SELECT 1 FROM orders WHERE status IN ('Pending', 'Reserved', 'Charging', 'Refunding')"
            " OR reservation = 'held' OR refunded < refund_requested"
            " OR (reservation = 'committed' AND status = 'Refunded') LIMIT 1"
        )
    )


def check_orders(race: Race) -> None:
    orders = dict(race.rows("SELECT id, status FROM orders"))
    templates: dict[int, set[str]] = collections.defaultdict(set)
    for order_id, template in race.rows("SELECT order_id, template FROM notifications"):
        templates[order_id].add(template)
    for order_id, status in orders.items():
        assert (order_id in race.cancelled) == (status in {"Cancelled", "Refunded"}), order_id
        further_types = {"order.completed.v1"} if status == "Refunded" else set()
        assert {TOLD[status]} <= templates[order_id] <= {TOLD[status]} | further_types, order_id


def check_totals(race: Race) -> None:
    attempts = race.till.ledger()
    captures = [row for row in attempts if row.status == "captured"]
    back = [row for row in attempts if row.status == "refunded"]
    [(sales,)] = race.rows("SELECT coalesce(sum(total), 0) FROM orders WHERE status = 'Completed'")
    assert len({row.order_id for row in captures}) == len(captures), "charged twice"
    assert len({row.order_id for row in back}) == len(back), "refunded twice"
    assert sum(row.amount for row in captures) - sum(row.amount for row in back) == sales
    stock = collections.Counter(str(row.status) for row in race.stock.ledger())
    [(completed,)] = race.rows("SELECT count(*) FROM orders WHERE status = 'Completed'")
    assert stock["reserved"] == 0
    assert stock["committed"] == completed
    sold = sum(row.quantity for row in race.stock.ledger() if row.status == "committed")
    withdrawn = UNITS - race.stock.available(1) + ORDERS // 20 - race.stock.available(SCARCE)
    assert sold == withdrawn
    assert race.faults.total() >= min(50, ORDERS // 20)
