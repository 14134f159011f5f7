"""The worker on sets of orders: a broker, PostgreSQL, Inventory, and a Payment that can be slow."""

import collections
import contextlib
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest
from prometheus_client import REGISTRY
from psycopg.rows import TupleRow

from integration.broker import (
    SHORT_TIERS,
    Broker,
    body,
    new_properties,
    settings_of,
)
from integration.handles import Vhost
from integration.serving import eventually
from integration.stores import orders_on
from integration.together import DirectOrderCalls, Messages, work_on
from integration.world import EVERYTHING, message_of
from orders.database.pool import Pool
from orders.database.progress import Advance, Progress, ProgressSets
from orders.domain import events
from orders.domain.order import AttemptKind, NewOrder, Order, attempt_id
from orders.errors import Permanent, Unavailable
from orders.messaging.consumer import PRIORITY, Consumer, Limits
from orders.messaging.sets import Member
from orders.telemetry import context
from orders.upstream.http import Upstream
from orders.upstream.inventory import Inventory
from orders.upstream.parallel import ParallelCalls
from orders.upstream.payment import Payment
from orders.upstream.policy import UpstreamPolicy
from orders.watch import Watch
from orders.worker.fulfilment import Fulfilment, WorkerPorts
from orders.worker.order_calls import UpstreamOrderCalls, Upstreams, set_fulfilment
from orders.worker.sets import SetFulfilment, SetPorts, Task
from upstreams.process import Control

QUEUE, DEAD = "order-processing", "order-processing.dead"
POLICY = UpstreamPolicy(retries=0, breaker_failures=1000, concurrency=40)
# No order leaves its set because a busy machine answers late.
PATIENT = msgspec.structs.replace(POLICY, deadline_s=120, try_timeout_s=120)
WIDTH = 20


class SlowPayment:
    """A Payment that captures everything, and holds its answer about some orders back."""

    def __init__(self) -> None:
        self.held: set[int] = set()
        self.go_on = threading.Event()
        self.captures: collections.Counter[str] = collections.Counter()
        self.answers: dict[str, bytes] = {}
        payment = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                attempt = self.path.rsplit("/", 1)[1]
                answer = payment.answers.get(attempt)
                self._answer(*((200, answer) if answer else (404, b'{"error": "unknown_attempt"}')))

            def do_PUT(self) -> None:
                payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if payload["orderId"] in payment.held:
                    payment.go_on.wait(30)
                attempt = self.path.rsplit("/", 1)[1]
                payment.captures[attempt] += 1
                capture = {
                    "attemptId": attempt,
                    "orderId": payload["orderId"],
                    "status": "captured",
                }
                amount = {"amount": msgspec.Raw(str(payload["amount"]).encode())}
                payment.answers[attempt] = msgspec.json.encode(capture | amount)
                self._answer(200, payment.answers[attempt])

            def _answer(self, status: int, contents: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(contents)))
                self.end_headers()
                with contextlib.suppress(OSError):  # nobody waits any more
                    self.wfile.write(contents)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()


class Watched(ProgressSets):
    """Notes how many orders each statement is about."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool, "worker")
        self.advances: list[int] = []

    def advance(self, advances: Sequence[Advance]) -> dict[int, Order]:
        self.advances.append(len(advances))
        return super().advance(advances)


class Shop:
    """The worker's parts, and the orders it works on."""

    def __init__(
        self, pool: Pool, inventory: Control, payment: SlowPayment, policy: UpstreamPolicy = POLICY
    ) -> None:
        self.pool, self.inventory, self.payment = pool, inventory, payment
        self.progress = Watched(pool)
        self.upstreams = (
            Upstream("inventory", inventory.url, policy),
            Upstream("payment", payment.url, policy),
        )
        self.ledger = orders_on(pool)

    def handle(self) -> Fulfilment:
        stock, money = self.upstreams
        ports = WorkerPorts(
            Progress(self.pool, "worker"), Inventory(stock), Payment(money), lambda _: None
        )
        return Fulfilment(ports)

    @contextmanager
    def working(self, vhost: Vhost, *, size: int = 50, drain_s: float = 10) -> Iterator[Consumer]:
        set_handlers = [
            set_fulfilment(
                self.progress, Upstreams(*self.upstreams, width), lambda _: None, size=maximum,
                watch=Watch("test"),
            )
            for maximum, width in ((size, WIDTH), (PRIORITY, PRIORITY))
        ]  # fmt: skip
        limits = Limits(prefetch=4, max_tries=8, drain_s=drain_s, tiers=SHORT_TIERS, set_size=size)
        consumer = Consumer(settings_of(vhost), QUEUE, self.handle().handle, limits, *set_handlers)
        consumer.start()
        try:
            eventually(lambda: consumer.problem is None)
            yield consumer
        finally:
            consumer.stop()

    def together(self, orders: Sequence[int]) -> Messages:
        """Work on orders as a set on this thread."""
        calls: ParallelCalls[Task] = ParallelCalls(WIDTH)
        order_calls = UpstreamOrderCalls(calls, *self.upstreams)
        messages = [message_of(order_id) for order_id in orders]
        return work_on(messages, self.progress, calls, order_calls, lambda _: None)

    def order(self) -> int:
        new = NewOrder(7, 1, 1, Decimal("19.90"), "card")
        answer = self.ledger.accept(new, context.accept("test", None)[0], "u:7", None)
        assert answer.order_id is not None
        return answer.order_id

    def orders(self, number: int) -> list[int]:
        return [self.order() for _ in range(number)]

    def rows(self, query: str, *values: object) -> list[TupleRow]:
        with self.pool.connection() as connection:
            return connection.execute(query.encode(), values).fetchall()

    def settled(self, orders: Sequence[int]) -> int:
        query = (
            "SELECT count(*) FROM orders WHERE id = ANY(%s)"
            " AND status = 'Completed' AND version = 4 AND reservation = 'committed'"
        )
        return int(self.rows(query, list(orders))[0][0])


@pytest.fixture
def shop(pool: Pool, inventory: Control) -> Iterator[Shop]:
    inventory.reset()
    with pool.connection() as connection:
        connection.execute(f"TRUNCATE {', '.join(EVERYTHING)} CASCADE".encode())
    with contextlib.closing(SlowPayment()) as payment:
        shop = Shop(pool, inventory, payment)
        yield shop
        for upstream in shop.upstreams:
            upstream.close()


def announce(broker: Broker, orders: Sequence[int], customer: int | None = None) -> None:
    """Publish messages about orders; without a customer as the previous release did."""
    for order_id in orders:
        properties = new_properties(events.CREATED, correlation_id=f"order-{order_id}")
        contents = msgspec.json.decode(body(order_id)) | {"userId": customer}
        broker.send(QUEUE, msgspec.json.encode(contents), properties)


def test_orders_share_statements_and_keep_their_own_ids(
    vhost: Vhost, broker: Broker, shop: Shop
) -> None:
    shop = Shop(shop.pool, shop.inventory, shop.payment, PATIENT)
    orders = shop.orders(60)
    announce(broker, orders)
    with shop.working(vhost):
        eventually(lambda: shop.settled(orders) == 60)
        broker.wait_for(QUEUE, 0)
    assert sum(shop.progress.advances) == 3 * 60
    assert len(shop.progress.advances) < 3 * 60
    messages = shop.rows(
        "SELECT aggregateid::bigint, correlation_id FROM outbox WHERE type = 'order.completed.v1'"
    )
    assert sorted(messages) == [(order_id, f"order-{order_id}") for order_id in orders]
    assert shop.rows("SELECT count(*) FROM processed_messages") == [(60,)]
    assert set(shop.payment.captures.values()) == {1}
    assert len(shop.payment.captures) == 60
    assert broker.count(QUEUE) == broker.count(DEAD) == 0


def test_an_order_that_comes_alone_does_not_wait_for_others(
    vhost: Vhost, broker: Broker, shop: Shop
) -> None:
    with shop.working(vhost):
        for _ in range(5):
            orders = shop.orders(1)
            announce(broker, orders)
            eventually(lambda orders=orders: shop.settled(orders) == 1)  # type: ignore[misc]
    assert shop.progress.advances == [1] * 15


def test_an_order_whose_payment_hangs_does_not_hold_up_its_set(
    vhost: Vhost, broker: Broker, shop: Shop
) -> None:
    orders = shop.orders(50)
    slow, others = orders[7], [*orders[:7], *orders[8:]]
    shop.payment.held.add(slow)
    announce(broker, orders)
    with shop.working(vhost):
        eventually(lambda: shop.settled(others) == 49)
        assert not shop.payment.go_on.is_set()
        assert shop.settled([slow]) == 0
        eventually(lambda: broker.count(QUEUE) == 0)
        order_ids = shop.orders(20)
        announce(broker, order_ids)
        eventually(lambda: shop.settled(order_ids) == 20)
        shop.payment.go_on.set()
        eventually(lambda: shop.settled([slow]) == 1)


def test_a_customer_with_few_orders_does_not_wait_for_one_with_many(
    vhost: Vhost, broker: Broker, shop: Shop
) -> None:
    many_orders, few_orders = shop.orders(50), shop.orders(3)
    shop.payment.held.update(many_orders)  # they have every connection of the sets
    with Shop(shop.pool, shop.inventory, shop.payment, PATIENT).working(vhost):
        announce(broker, many_orders, customer=1)
        eventually(lambda: _charging(shop, many_orders) == 50)
        announce(broker, few_orders, customer=2)
        eventually(lambda: shop.settled(few_orders) == 3)
        assert shop.settled(many_orders) == 0
        shop.payment.go_on.set()
        eventually(lambda: shop.settled(many_orders) == 50)
        broker.wait_for(QUEUE, 0)


def _charging(shop: Shop, orders: Sequence[int]) -> int:
    query = "SELECT count(*) FROM orders WHERE id = ANY(%s) AND status = 'Charging'"
    return int(shop.rows(query, list(orders))[0][0])


def test_what_stands_behind_the_hanging_order_is_acknowledged(
    vhost: Vhost, broker: Broker, shop: Shop
) -> None:
    orders = shop.orders(12)
    shop.payment.held.add(orders[0])
    announce(broker, orders)
    with shop.working(vhost, drain_s=0.1) as consumer:
        eventually(lambda: shop.settled(orders) == 11)
        eventually(lambda: consumer._under_way == 1)
        assert not consumer.stop()
        broker.wait_for(QUEUE, 1)  # only the hanging one is given back
    shop.payment.go_on.set()
    with shop.working(vhost):
        eventually(lambda: shop.settled(orders) == 12)


def test_an_order_that_cannot_be_mended_does_not_hold_up_its_set(
    vhost: Vhost, broker: Broker, shop: Shop
) -> None:
    """Its statement fails for all of the set: each is then handled by itself."""
    orders = shop.orders(20)
    bad, others = orders[3], [*orders[:3], *orders[4:]]
    [(nonce,)] = shop.rows("SELECT nonce FROM orders WHERE id = %s", bad)
    with shop.pool.connection() as connection:  # the id of its attempt is taken
        connection.execute(
            b"INSERT INTO payment_attempts (id, order_id, kind, amount, outcome)"
            b" VALUES (%s, %s, 'capture', 1, 'declined')",
            (attempt_id(nonce, AttemptKind.CAPTURE, 1), bad),
        )
    unknown = 2**40
    announce(broker, [*orders, unknown])
    with shop.working(vhost):
        eventually(lambda: shop.settled(others) == 19)
        broker.wait_for(DEAD, 2)
    letters = [letter for _ in range(2) if (letter := broker.take(DEAD)) is not None]
    assert {letter[0].headers["x-reason"] for letter in letters} == {"database", "unknown_order"}
    assert set(shop.payment.captures.values()) == {1}


def test_two_messages_of_one_order_are_worked_on_one_after_the_other(shop: Shop) -> None:
    order_id = shop.order()
    worked = shop.together([order_id, order_id, order_id])
    assert shop.settled([order_id]) == 1
    assert shop.payment.captures.total() == 1
    # The order needs nothing more: to note that is left to the messages themselves.
    assert (len(worked.done_with), len(worked.refused)) == (1, 2)


def test_two_workers_with_the_same_orders_complete_each_once(shop: Shop) -> None:
    orders = shop.orders(60)
    halves = [orders[:40], list(reversed(orders[20:])), orders]
    gate = threading.Barrier(3)

    def worker(numbers: Sequence[int]) -> Messages:
        gate.wait()
        return shop.together(numbers)

    with ThreadPoolExecutor(3) as threads:
        works = list(threads.map(worker, halves))
    refusals = [message for worked in works for message, _ in worked.refused]
    handle = shop.handle().handle
    for message in refusals:
        with context.using(message.context):
            handle(message)
    assert shop.settled(orders) == 60
    assert len(shop.payment.captures) == 60
    history = shop.rows("SELECT order_id, count(*) FROM order_history GROUP BY 1 ORDER BY 1")
    assert history == [(order_id, 4) for order_id in orders]
    assert shop.rows("SELECT count(*) FROM payment_attempts") == [(60,)]


@pytest.mark.parametrize("step", ["advance", "settle"])
def test_a_row_that_others_lock_holds_up_only_its_order(shop: Shop, step: str) -> None:
    orders = shop.orders(5)
    locked, others = orders[2], [*orders[:2], *orders[3:]]
    if step == "settle":
        assert len(shop.together(orders).done_with) == 5
        with shop.pool.connection() as connection:
            connection.execute(b"UPDATE orders SET reservation = 'held'")
    with shop.pool.connection() as holder, holder.transaction():
        holder.execute(b"SELECT 1 FROM orders WHERE id = %s FOR UPDATE", (locked,))
        worked = shop.together(orders)
        assert shop.settled(others) == 4
    [(message, error)] = worked.refused
    assert (message.body.order_id, error) == (locked, None)
    with context.using(message.context):
        shop.handle().handle(message)
    assert shop.settled(orders) == 5


def test_the_end_of_a_set_leaves_nothing_lost(vhost: Vhost, broker: Broker, shop: Shop) -> None:
    orders = shop.orders(100)
    announce(broker, orders)
    for _ in range(3):
        count_before = shop.settled(orders)
        with shop.working(vhost, size=10) as consumer:
            eventually(lambda count_before=count_before: shop.settled(orders) > count_before)  # type: ignore[misc]
            assert consumer.stop()
        under_way = shop.rows(
            "SELECT count(*) FROM orders WHERE status IN ('Reserved', 'Charging')"
        )
        assert under_way == [(0,)], "what was begun was ended"
    with shop.working(vhost):
        eventually(lambda: shop.settled(orders) == 100)
        broker.wait_for(QUEUE, 0)
    assert set(shop.payment.captures.values()) == {1}


def test_an_outage_is_told_with_its_own_error_and_not_asked_for_twice(shop: Shop) -> None:
    orders = shop.orders(3)
    shop.payment.close()
    [*refusals] = shop.together(orders).refused
    assert len(refusals) == 3
    for _, error in refusals:
        assert isinstance(error, Unavailable)
        assert not error.pause
    states = shop.rows("SELECT status, count(*) FROM orders GROUP BY 1")
    assert states == [("Charging", 3)]


def test_a_stalled_order_that_cannot_be_mended_is_done_with(shop: Shop) -> None:
    order_id = shop.order()
    key = shop.rows("SELECT nonce::text FROM orders WHERE id = %s", order_id)[0][0]
    task = {"orderId": order_id, "productId": 1, "quantity": 3}
    shop.inventory.send("PUT", f"/reservations/{key}", task)  # something else under its key
    calls: ParallelCalls[Task] = ParallelCalls(WIDTH)
    order_calls = UpstreamOrderCalls(calls, *shop.upstreams)
    messages = [message_of(order_id, events.STALLED)]
    worked = work_on(messages, shop.progress, calls, order_calls, lambda _: None)
    assert worked.done_with == messages
    calls = ParallelCalls(WIDTH)
    order_calls = UpstreamOrderCalls(calls, *shop.upstreams)
    worked = work_on([message_of(order_id)], shop.progress, calls, order_calls, lambda _: None)
    assert isinstance(worked.refused[0][1], Permanent)


def test_a_stalled_order_that_found_no_connection_is_not_done_with(shop: Shop) -> None:
    policy = UpstreamPolicy(retries=0, try_timeout_s=0.5)
    money = Upstream("payment", shop.payment.url, policy)
    hanging, stalled = shop.orders(2)
    shop.payment.held.add(hanging)
    with shop.pool.connection() as connection:  # one statement, so that both ask at once
        connection.execute(b"UPDATE orders SET status = 'Reserved', reservation = 'held'")
    calls: ParallelCalls[Task] = ParallelCalls(1)
    order_calls = UpstreamOrderCalls(calls, shop.upstreams[0], money)
    messages = [message_of(hanging), message_of(stalled, events.STALLED)]
    with contextlib.closing(money):
        worked = work_on(messages, shop.progress, calls, order_calls, lambda _: None)
    assert not worked.done_with
    assert dict(worked.refused[:1]) == {messages[1]: None}


class Counted(Messages):
    """Notes the most messages that were in hand at once."""

    most = 0

    def take(self, limit: int) -> list[Member]:
        members = super().take(limit)
        self.most = max(self.most, self._open - len(self._left))
        return members


def test_two_sets_are_in_hand_and_each_statement_is_about_one(shop: Shop) -> None:
    """While the calls of one are under way, the statements of the other run."""
    orders = shop.orders(18)
    calls: ParallelCalls[Task] = ParallelCalls(WIDTH)
    ports = SetPorts(
        shop.progress, calls, UpstreamOrderCalls(calls, *shop.upstreams), lambda _: None
    )
    source = Counted([message_of(order_id) for order_id in orders])
    SetFulfilment(ports, 5, Watch("test")).work(source)
    assert 5 < source.most <= 10
    assert max(shop.progress.advances) == 5
    assert shop.settled(orders) == 18


class Silent(DirectOrderCalls):
    """An Inventory that never answers; `asked` are the orders it was asked for."""

    def __init__(self) -> None:
        super().__init__(None, None)
        self.asked: list[int] = []

    def reserve(self, task: Task) -> None:
        self.asked.append(task.order_id)
        self.calls.wake()


class Offered(Messages):
    """Ends when it was asked for messages often enough; notes for how many there was room."""

    rooms: tuple[int, ...] = ()

    @property
    def closed(self) -> bool:
        return len(self.rooms) > 5

    def take(self, limit: int) -> list[Member]:
        self.rooms = (*self.rooms, limit)
        return super().take(limit)


def test_the_second_set_waits_while_nobody_answers_the_first(shop: Shop) -> None:
    """Its calls would find no connection in time."""
    silent = Silent()
    orders = shop.orders(9)
    source = Offered([message_of(order_id) for order_id in orders])
    ports = SetPorts(shop.progress, silent.calls, silent, lambda _: None)
    thread = threading.Thread(target=SetFulfilment(ports, 3, Watch("test")).work, args=(source,))
    thread.start()
    while thread.is_alive():
        silent.calls.wake()
        thread.join(0.01)
    assert sorted(silent.asked) == orders[:3]


def test_a_set_in_hand_is_seen_by_liveness(shop: Shop) -> None:
    watch = Watch("sets")
    order_id = shop.order()
    shop.payment.held.add(order_id)
    sets = set_fulfilment(
        shop.progress, Upstreams(*shop.upstreams, WIDTH), lambda _: None, size=5, watch=watch
    )
    source = Messages([message_of(order_id)])
    thread = threading.Thread(target=sets.work, args=(source,))
    thread.start()
    eventually(lambda: watch.silent_s() > 0.3)
    shop.payment.go_on.set()
    thread.join()
    assert watch.silent_s() == 0


def test_metrics_count_each_message_and_each_transition(
    vhost: Vhost, broker: Broker, shop: Shop
) -> None:
    def counted() -> dict[str, float]:
        names: dict[str, dict[str, str]] = {
            "order_processing_duration_seconds_count": {},
            "messaging_process_duration_seconds_count": {"queue": QUEUE, "outcome": "processed"},
            "order_transitions_total": {"status": "Charging"},
            "order_completion_seconds_count": {"outcome": "Completed"},
        }
        read: Callable[..., float | None] = REGISTRY.get_sample_value
        return {name: read(name, labels) or 0 for name, labels in names.items()}

    count_before = counted()
    orders = shop.orders(5)
    announce(broker, orders)
    with shop.working(vhost):
        eventually(lambda: shop.settled(orders) == 5)
        broker.wait_for(QUEUE, 0)
        eventually(lambda: all(counted()[name] == count_before[name] + 5 for name in count_before))


def test_a_set_advances_as_single_orders_do(shop: Shop, pool: Pool) -> None:
    """Both statements leave the same rows."""
    alone, together, beside = shop.orders(3)
    handle = shop.handle().handle
    message = message_of(alone)
    with context.using(message.context):
        handle(message)
    shop.together([together, beside])

    def rows_of(order_id: int) -> list[list[TupleRow]]:
        orders = (
            "SELECT status, status_reason, reservation, reservation_key = nonce::text,"
            " completed_at IS NOT NULL, version, refunded, refund_requested, cancel_requested"
            " FROM orders WHERE id = %s"
        )
        history = (
            "SELECT version, from_status, to_status, reason, actor, trace_id IS NOT NULL"
            " FROM order_history WHERE order_id = %s ORDER BY version"
        )
        attempts = (
            "SELECT kind, amount, outcome, reason, number, actor FROM payment_attempts"
            " WHERE order_id = %s"
        )
        outbox = (
            "SELECT type, payload - 'orderId', correlation_id = 'order-' || aggregateid"
            " FROM outbox WHERE aggregateid = %s::text AND type <> 'order.created.v1'"
        )
        return [shop.rows(query, order_id) for query in (orders, history, attempts, outbox)]

    assert rows_of(alone) == rows_of(together)
    assert uuid.UUID(str(shop.rows("SELECT message_id FROM processed_messages")[0][0]))
