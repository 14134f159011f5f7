"""Every path of an order × everything that may happen × every instant at which it may happen.

An instant is just before or just after a call to Inventory, Payment or the cache, or a commit. The
upstreams are the simulators' own books, called without HTTP; PostgreSQL is real. Whatever happened,
the messages and the sweeper then bring the order to its end, and the books must agree.
"""

import contextlib
import functools
import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import product
from typing import Any, Final

import pytest

from integration.handles import Database
from integration.stores import cancellations_on, orders_on, refund_requests_on
from integration.together import DirectOrderCalls, handle_by_itself, work_on
from integration.upstream_books import InventoryBooks, PaymentBooks
from orders import settings
from orders.database.cancellations import CancellationCommand, NotCancellable
from orders.database.pool import Pool
from orders.database.progress import Progress, ProgressSets
from orders.database.refund_requests import NotRefundable, RefundCommand
from orders.domain import events
from orders.domain.deadlines import deadlines
from orders.domain.lifecycle import Status
from orders.domain.order import NewOrder
from orders.messaging.envelope import Message
from orders.telemetry import context
from orders.worker.fulfilment import Fulfilment, WorkerPorts
from orders.worker.sweep import Sweeper
from upstreams.inventory import Stock
from upstreams.payment import PaymentStore

TOTAL, PART = Decimal("19.90"), Decimal("5.00")
UNITS, QUANTITY, PRODUCT, USER = 10, 2, 5, 7
SET: Final = "as a set"
WAYS: Final = ("one by one", SET)
PATHS: Final = ("paid", "declined", "out of stock", "refund declined")
IN_SETS: Final = PATHS[:3]  # refunds are made one by one in any case
NOTIFIED: Final = {
    Status.CANCELLED: {"order.cancelled.v1"},
    Status.FAILED: {"order.failed.v1"},
    Status.COMPLETED: {"order.completed.v1"},
}


class Died(BaseException):
    """The worker's process ends here."""


class Instants:
    """Counts the instants of a run, and lets things happen at some of them."""

    def __init__(self, happenings: Mapping[int, Callable[[], None]]) -> None:
        self.happenings, self.names = happenings, list[str]()

    def reach(self, name: str) -> None:
        self.names.append(name)
        happening = self.happenings.get(len(self.names))
        if happening is not None:
            happening()

    def watch(self, port: object) -> Any:
        return Watched(port, self)


class Watched:
    """A port whose calls are instants."""

    def __init__(self, port: Any, instants: Instants) -> None:
        self._port, self._instants = port, instants

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._instants.reach(f"before {name}")
            answer = method(*arguments, **named)
            self._instants.reach(f"after {name}")
            return answer

        return call


class Case:
    """One order, its upstreams, and what happens to it."""

    def __init__(self, pool: Pool, path: str, mode: str) -> None:
        self.way = mode
        self.pool, self.stock, self.till = pool, Stock(), PaymentStore()
        self.stock.set_available(PRODUCT, 0 if path == "out of stock" else UNITS)
        self.inventory = InventoryBooks(self.stock)
        self.payment = PaymentBooks(self.till, refuses_refunds=path == "refund declined")
        self.progress = Progress(pool, "worker")
        self.cancelled = self.failed_over = False
        self.path = path
        new = NewOrder(USER, PRODUCT, QUANTITY, TOTAL, "decline" if path == "declined" else "card")
        ids = context.accept("test", None)[0]
        ledger = orders_on(pool)
        self.id = ledger.accept(new, ids, "user:7", None).order_id or 0

    # -- what may happen ------------------------------------------------------------------

    def cancel(self) -> None:
        ids = context.accept("test", None)[0]
        with contextlib.suppress(NotCancellable):
            request = CancellationCommand(self.id, str(USER), everyones=False, principal="user:7")
            assert cancellations_on(self.pool).cancel(request, ids) is not None
            self.cancelled = True

    def cancel_twice(self) -> None:
        self.cancel()
        self.cancel()

    def refund_a_part(self) -> None:
        ids = context.accept("test", None)[0]
        with contextlib.suppress(NotRefundable):
            refund_requests_on(self.pool).add(RefundCommand(self.id, PART, "user:1"), ids)

    def another_worker(self) -> None:
        self.handle()

    def cancel_and_another_worker(self) -> None:
        self.cancel()
        self.handle()

    def die(self) -> None:
        raise Died

    def cancel_and_die(self) -> None:
        self.cancel()
        raise Died

    def fail_over_and_cancel(self) -> None:
        """Lose all that came after the acceptance, as a standby far behind does; then cancel."""
        for statement in (
            "DELETE FROM payment_attempts WHERE order_id = %s",
            "DELETE FROM notifications WHERE order_id = %s",
            "DELETE FROM order_history WHERE version > 1 AND order_id = %s",
            "DELETE FROM outbox WHERE type <> 'order.created.v1' AND aggregateid = %s::text",
            """UPDATE orders SET status = 'Pending', version = 1, reservation = 'none',
                reservation_key = NULL, completed_at = NULL, cancel_requested = false,
                status_reason = NULL, refunded = 0, refund_requested = 0 WHERE id = %s""",
        ):
            self.rows(f"WITH done AS ({statement} RETURNING 1) SELECT count(*) FROM done", self.id)
        self.failed_over = True
        self.cancel()
        raise Died

    # -- the run --------------------------------------------------------------------------

    def handle(self, instants: Instants | None = None) -> None:
        """Handle the order's message as a worker does."""
        watch: Callable[[Any], Any] = instants.watch if instants else lambda port: port
        cache = watch(Cache())
        inventory, payment = watch(self.inventory), watch(self.payment)
        ports = WorkerPorts(watch(self.progress), inventory, payment, cache.changed)
        ids = context.accept("test", None)[0]
        body = events.OrderEvent(self.id, 1, "Pending")
        message = Message(str(uuid.uuid4()), events.CREATED, body, ids, "order-processing", 1)
        handle = Fulfilment(ports).handle
        if instants and self.way == SET:
            order_calls = DirectOrderCalls(inventory, payment)
            progress = watch(ProgressSets(self.pool, "worker"))
            worked = work_on([message], progress, order_calls.calls, order_calls, cache.changed)
            handle_by_itself(worked.refused, handle)
        else:
            with context.using(ids):
                handle(message)

    def settle(self) -> None:
        """Handle the order's messages, then those that the sweeper still emits."""
        self.handle()
        for _ in range(3):
            emitted = self.rows("SELECT count(*) FROM outbox WHERE type = 'order.stalled.v1'")
            Sweeper(self.pool, deadlines(0.000001), lambda: False).sweep()
            if emitted == self.rows("SELECT count(*) FROM outbox WHERE type = 'order.stalled.v1'"):
                return
            self.handle()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.pool.connection() as connection:
            return connection.execute(query.encode(), values).fetchall()

    # -- what must be true ----------------------------------------------------------------

    def check(self) -> None:
        [(status, reason, version, refunded, requested, reservation)] = self.rows(
            "SELECT status, status_reason, version, refunded, refund_requested, reservation"
            " FROM orders WHERE id = %s",
            self.id,
        )
        if self.failed_over and PART in [row.amount for row in self.till.ledger()]:
            # Payment knows a refund that the failover lost, so it refuses one of all the money.
            assert (status, reason) == (Status.REFUNDING, "RefundDeclined"), "a person is needed"
            return
        self._check_status(Status(status), reason)
        self._check_money(Status(status), refunded, requested)
        self._check_stock(Status(status), reservation)
        self._check_history(Status(status), version)

    def _check_status(self, status: Status, reason: str | None) -> None:
        declined = self.path == "refund declined"
        if self.cancelled:
            stuck = {Status.REFUNDING} if declined else set()
            assert status in {Status.CANCELLED, Status.REFUNDED} | stuck
            assert status is not Status.REFUNDING or reason == "RefundDeclined"
        else:
            assert status in {Status.COMPLETED, Status.FAILED}

    def _check_money(self, status: Status, refunded: Decimal, requested: Decimal) -> None:
        captures = [row for row in self.till.ledger() if row.status == "captured"]
        back = [row.amount for row in self.till.ledger() if row.status == "refunded"]
        assert len({row.attempt_id for row in captures}) == len(captures) <= 1
        assert sum(back) == refunded == requested
        balance = sum(row.amount for row in captures) - sum(back)
        if status in {Status.COMPLETED, Status.REFUNDING}:
            assert balance == TOTAL - refunded
        else:
            assert balance == 0
        outcomes = self.rows(
            "SELECT kind, outcome FROM payment_attempts WHERE order_id = %s", self.id
        )
        assert ("capture", "unknown") not in outcomes
        assert ("refund", "unknown") not in outcomes
        assert outcomes.count(("capture", "approved")) == len(captures)
        assert outcomes.count(("refund", "approved")) == len(back)

    def _check_stock(self, status: Status, reservation: str) -> None:
        # A cancelled order's stock went back before a capture that a failover lost was found.
        back = self.failed_over and status is Status.REFUNDING
        sold = QUANTITY if status in {Status.COMPLETED, Status.REFUNDING} and not back else 0
        units = 0 if self.path == "out of stock" else UNITS
        assert self.stock.available(PRODUCT) == units - sold
        [entry] = self.stock.ledger()
        if back:
            assert (reservation, entry.status in {"released", "returned"}) == ("held", True)
        elif status is Status.REFUNDING:  # settled when the refund is
            assert reservation in {"held", "committed"}
            assert entry.status in {"reserved", "committed"}
        else:
            assert reservation == entry.status

    def _check_history(self, status: Status, version: int) -> None:
        history = self.rows(
            "SELECT version, from_status, to_status FROM order_history"
            " WHERE order_id = %s ORDER BY version",
            self.id,
        )
        assert [row[0] for row in history] == list(range(1, version + 1))
        for (_, _, status_before), (_, start, _) in itertools.pairwise(history):
            assert start == status_before, history
        assert history[-1][2] == status
        types = {
            row[0]
            for row in self.rows("SELECT type FROM outbox WHERE aggregateid = %s", str(self.id))
        }
        notices = types & {
            "order.completed.v1",
            "order.failed.v1",
            "order.cancelled.v1",
            "order.refunded.v1",
        }
        if status is Status.REFUNDED:
            cancelled = {"order.cancelled.v1"} if self.failed_over else set()
            assert notices - {"order.completed.v1"} - cancelled == {"order.refunded.v1"}
        elif status is not Status.REFUNDING:
            assert notices == NOTIFIED[status]


class Cache:
    """A cache that ignores every version."""

    def changed(self, _orders: object) -> None: ...


@pytest.fixture(scope="module")
def pool(database: Database) -> Iterator[Pool]:
    environ = {"ORDERS_DATABASE_URL": database.url, "ORDERS_DATABASE_POOL_SIZE": "4"}
    pool = Pool(database.url, settings.load(settings.DatabaseSettings, environ), "test")
    pool.open()
    yield pool
    pool.close()


EVENTS: Final = {
    "cancel": Case.cancel,
    "cancel twice": Case.cancel_twice,
    "refund a part": Case.refund_a_part,
    "another worker": Case.another_worker,
    "cancel and another worker": Case.cancel_and_another_worker,
    "death": Case.die,
    "cancel and death": Case.cancel_and_die,
    "failover and cancel": Case.fail_over_and_cancel,
}


# Of all pairs, so that they end in a time that somebody waits for. It shares no factor with the
# number of events: every pair of events comes at some instants, and every two instants with some.
EVERY: Final = 29


def instants_of(pool: Pool, path: str, mode: str) -> int:
    """Count the instants of an undisturbed run."""
    case, instants = Case(pool, path, mode), Instants({})
    case.handle(instants)
    case.settle()
    case.check()
    return len(instants.names)


def run(pool: Pool, path: str, happenings: dict[int, str], mode: str) -> None:
    """Run events at instants of one run, then compare the books."""
    case = Case(pool, path, mode)
    moments = {at: functools.partial(EVENTS[name], case) for at, name in happenings.items()}
    with contextlib.suppress(Died):
        case.handle(Instants(moments))
    case.settle()
    try:
        case.check()
    except AssertionError as error:
        raise AssertionError(f"{path}, {mode}: {happenings}: order {case.id}") from error
    case.cancel()
    case.settle()
    case.check()
    case.rows("SELECT 1 FROM orders WHERE id = %s", case.id)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize(("path", "mode"), [*product(PATHS, WAYS[:1]), *product(IN_SETS, WAYS[1:])])
def test_whatever_happens_at_any_instant_money_and_stock_balance(
    pool: Pool, path: str, event: str, mode: str
) -> None:
    for at in range(1, instants_of(pool, path, mode) + 1):
        run(pool, path, {at: event}, mode)


@pytest.mark.parametrize("mode", WAYS)
@pytest.mark.parametrize("path", PATHS)
def test_two_things_at_two_instants_leave_the_books_in_balance(
    pool: Pool, path: str, mode: str
) -> None:
    last = instants_of(pool, path, mode)
    pairs = [
        (first, event, second, other)
        for first, second in itertools.combinations(range(1, last + 1), 2)
        for event, other in product(("cancel", "refund a part", "another worker"), EVENTS)
    ]
    for first, event, second, other in pairs[:: max(1, len(pairs) // 20)]:
        run(pool, path, {first: event, second: other}, mode)


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", WAYS)
@pytest.mark.parametrize("path", PATHS)
def test_any_two_things_at_any_two_instants_leave_the_books_in_balance(
    pool: Pool, path: str, mode: str, figure: Callable[[str, float | str], None]
) -> None:
    last, began_s = instants_of(pool, path, mode), time.monotonic()
    moments = itertools.combinations(range(1, last + 1), 2)
    pairs = list(product(moments, EVENTS, EVENTS))[::EVERY]
    for (first, second), event, other in pairs:
        run(pool, path, {first: event, second: other}, mode)
    figure(f"{path}, {mode}: pairs", f"{len(pairs)} in {time.monotonic() - began_s:.0f} s")
