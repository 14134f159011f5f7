"""The relay against PostgreSQL and RabbitMQ, as a thread of the test."""

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal

import jsonschema
import msgspec
import psycopg
import pytest
import requests
from pika.exceptions import NackError
from prometheus_client import REGISTRY

from integration.broker import TRACEPARENT, Broker, prepare, settings_of
from integration.handles import Database, Vhost
from integration.serving import eventually
from integration.stores import orders_on
from machine_time import machine_time_s
from orders.database.pool import Pool
from orders.domain import events
from orders.domain.order import NewOrder
from orders.messaging import schemas
from orders.messaging.publisher import Publisher
from orders.relay.queues import QueueGauges
from orders.relay.relay import Relay
from orders.settings import DatabaseSettings, RelaySettings
from orders.telemetry import context

PROCESSING, NOTIFICATIONS = "order-processing", "order-notifications"
LONG_S = 60  # a poll that a test does not wait for


class Table:
    """The outbox table, from the writers' side."""

    def __init__(self, session: "psycopg.Connection[tuple[object, ...]]") -> None:
        self.session = session

    def add(self, order_id: object, version: int = 1, kind: str = events.CREATED) -> None:
        """Write a row without waking the relay."""
        self.session.execute(
            "INSERT INTO outbox (aggregateid, type, payload, correlation_id, traceparent)"
            " VALUES (%s, %s, jsonb_build_object('orderId', %s::text, 'version', %s::int),"
            " 'test', %s)",
            (str(order_id), kind, str(order_id), version, TRACEPARENT),
        )

    def announce(self, order_id: object) -> None:
        """Write a row as the service does: with a notification if the relay asks for one."""
        with self.session.transaction():
            self.add(order_id)
            self.session.execute("SELECT pg_notify('outbox', '') FROM relay_wakeup WHERE idle")

    def size(self) -> int:
        return self._value("SELECT count(*) FROM outbox")

    def idle(self) -> bool:
        return bool(self._value("SELECT idle::int FROM relay_wakeup"))

    def leaders(self) -> int:
        return self._value(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND granted AND application_name = 'orders-relay'"
            " AND datname = current_database()"
        )

    def end_relays(self) -> None:
        """Break the sessions of all relays, as a restart of the server does."""
        self.session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'orders-relay' AND datname = current_database()"
        )

    def _value(self, query: str) -> int:
        row = self.session.execute(query.encode()).fetchone()
        assert row is not None
        return int(str(row[0]))


@pytest.fixture
def table(database: Database) -> Iterator[Table]:
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute("TRUNCATE outbox")
        yield Table(session)


@pytest.fixture
def broker(vhost: Vhost, broker: Broker) -> Iterator[Broker]:
    """Lift after each test what it bounded."""
    yield broker
    lift(vhost)


@contextmanager
def relaying(
    database: Database,
    vhost: Vhost,
    *,
    batch: int = 100,
    poll_s: float = 0.2,
    workers: Callable[[], int] = lambda: 0,
) -> Iterator[Relay]:
    publisher = Publisher(settings_of(vhost), "test relay")
    settings = RelaySettings(batch=batch, poll_s=poll_s, under_way=20)
    relay = Relay(DatabaseSettings(url=database.url), publisher, settings, workers)
    thread = threading.Thread(target=relay.run)
    publisher.start()
    eventually(lambda: publisher.problem is None)
    thread.start()
    try:
        yield relay
    finally:
        relay.stop()
        thread.join(15)
        publisher.close()
        assert not thread.is_alive()


def published(outcome: str) -> float:
    return REGISTRY.get_sample_value("outbox_published_total", {"outcome": outcome}) or 0.0


def test_a_committed_order_becomes_a_message(
    database: Database, vhost: Vhost, table: Table, broker: Broker
) -> None:
    """The message of a committed order is valid by the published schema."""
    pool = Pool(database.url, DatabaseSettings(url=database.url), "test")
    pool.open()
    ids, _ = context.accept("abc", TRACEPARENT)
    new = NewOrder(7, 1, 2, Decimal("19.90"), "card")
    answer = orders_on(pool).accept(new, ids, "u:7", None)
    pool.close()
    with relaying(database, vhost):
        broker.wait_for(PROCESSING, 1)
        eventually(lambda: table.size() == 0)
    message = broker.take(PROCESSING)
    assert message is not None
    properties, body = message
    jsonschema.validate(msgspec.json.decode(body), schemas.schema(properties.type))
    event = msgspec.json.decode(body)
    assert (event["orderId"], event["userId"]) == (answer.order_id, 7)
    assert (properties.type, properties.correlation_id) == (events.CREATED, "abc")
    assert properties.headers["traceparent"] == ids.traceparent
    assert (properties.delivery_mode, properties.app_id) == (2, "orders")


def test_every_row_is_published_once_and_each_orders_rows_in_their_order(
    database: Database, vhost: Vhost, table: Table, broker: Broker
) -> None:
    for version in range(1, 11):
        for order_id in range(20):
            table.add(order_id, version, events.CREATED)
    with relaying(database, vhost, batch=7):
        eventually(lambda: table.size() == 0)
    versions: dict[str, list[int]] = {}
    for _, body in broker.take_all(PROCESSING):
        event = msgspec.json.decode(body)
        versions.setdefault(event["orderId"], []).append(event["version"])
    assert len(versions) == 20
    assert all(numbers == list(range(1, 11)) for numbers in versions.values())


def test_an_order_does_not_wait_behind_hundreds_of_another_customer(
    database: Database, vhost: Vhost, table: Table, broker: Broker
) -> None:
    customers = [1] * 300 + [2]
    for order_id, customer in enumerate(customers):
        table.session.execute(
            "INSERT INTO outbox (aggregateid, type, payload) VALUES (%s, %s, jsonb_build_object("
            "'orderId', %s::int, 'version', 1, 'status', 'Pending', 'userId', %s::int))",
            (str(order_id), events.CREATED, order_id, customer),
        )
    workers = 1
    with relaying(database, vhost, batch=1000, workers=lambda: workers):
        eventually(lambda: broker.count(PROCESSING) >= 21)
        workers = 0  # nobody to take turns for: all that wait are published
        eventually(lambda: table.size() == 0)
    order_ids = [msgspec.json.decode(body)["orderId"] for _, body in broker.take_all(PROCESSING)]
    assert order_ids == [*range(10), 300, *range(10, 300)]


def test_it_knows_how_many_workers_there_are(vhost: Vhost, broker: Broker) -> None:
    gauges = QueueGauges(settings_of(vhost), every_s=0.1)
    gauges.start()
    try:
        tag = broker.channel.basic_consume(PROCESSING, lambda *_: None)
        eventually(lambda: gauges.consumers(PROCESSING) == 1)
        broker.channel.basic_cancel(tag)
        eventually(lambda: gauges.consumers(PROCESSING) == 0)
    finally:
        gauges.close()


def test_a_notification_wakes_it_and_a_look_finds_what_nobody_announced(
    database: Database, vhost: Vhost, table: Table, broker: Broker
) -> None:
    with relaying(database, vhost, poll_s=LONG_S):
        eventually(table.idle)
        time.sleep(0.1)
        table.announce(1)
        broker.wait_for(PROCESSING, 1, within_s=LONG_S / 2)
        table.end_relays()  # stopping need not wait for the poll
    with relaying(database, vhost, poll_s=0.2):
        eventually(table.idle)
        time.sleep(0.1)
        table.add(2)
        broker.wait_for(PROCESSING, 2)


def test_writers_are_asked_for_notifications_only_while_it_sleeps(
    database: Database, vhost: Vhost, table: Table, broker: Broker
) -> None:
    with relaying(database, vhost):
        eventually(table.idle)
        numbers = itertools.count()

        def work_makes_it_busy() -> bool:
            with table.session.transaction():
                for _ in range(50):
                    table.announce(next(numbers))
            return not table.idle()

        eventually(work_makes_it_busy)
        eventually(table.idle)
    assert not table.idle(), "nobody listens any more"


def test_a_full_queue_holds_its_messages_back_and_no_others(
    database: Database, vhost: Vhost, table: Table, broker: Broker
) -> None:
    prepare(vhost, max_length=1)
    filled = fill(broker)
    nacked = published("nacked")
    for order_id in range(1, 8):
        table.add(order_id)
    with relaying(database, vhost):
        eventually(lambda: published("nacked") > nacked)
        table.add(9, kind=events.COMPLETED)
        broker.wait_for(NOTIFICATIONS, 1)
        eventually(lambda: table.size() == 7)  # its row goes once it is confirmed
        prepare(vhost)
        eventually(lambda: table.size() == 0)
    assert broker.count(PROCESSING) == filled + 7


def fill(broker: Broker) -> int:
    """Send until the queue refuses: its limit takes hold a few messages late."""
    for count in itertools.count():
        try:
            broker.send(PROCESSING, b"{}")
        except NackError:
            return count
    raise AssertionError


def test_what_no_queue_takes_is_kept_and_holds_nobody_up(
    database: Database, vhost: Vhost, table: Table, broker: Broker
) -> None:
    policy = f"{vhost.management_url}/api/policies/{vhost.name}/orders:exchange:orders"
    requests.delete(policy, timeout=30).raise_for_status()
    returned = published("returned")
    table.add(1, kind="order.unheard_of.v1")
    table.add(1, version=2)
    table.add(2)
    with relaying(database, vhost):
        eventually(lambda: published("returned") > returned)
        broker.wait_for(PROCESSING, 2)
        eventually(lambda: table.size() == 1)
        prepare(vhost)
        broker.wait_for("orders.unrouted", 1)
        eventually(lambda: table.size() == 0)
    assert broker.count(PROCESSING) == 2


def test_a_row_that_fits_no_message_is_kept_and_holds_only_its_order_up(
    database: Database, vhost: Vhost, table: Table, broker: Broker
) -> None:
    table.add(1)
    table.session.execute("UPDATE outbox SET correlation_id = repeat('x', 300)")
    table.add(1, version=2)
    table.add(2)
    table.add(1, kind=events.COMPLETED)
    with relaying(database, vhost) as relay:
        broker.wait_for(PROCESSING, 1)
        broker.wait_for(NOTIFICATIONS, 1)
        eventually(lambda: table.size() == 2)
        assert relay.problem is None


@pytest.mark.parametrize(
    "fault",
    [
        "aggregateid = repeat('9', 5000)",  # more digits than Python reads as a number
        "created_at = 'infinity'",
    ],
)
def test_a_row_that_cannot_be_encoded_is_put_aside_and_the_lane_goes_on(
    database: Database, vhost: Vhost, table: Table, broker: Broker, fault: str
) -> None:
    unencodable = published("unencodable")
    table.add(1)
    table.session.execute(f"UPDATE outbox SET {fault}".encode())
    table.add(2)
    table.add(3, kind=events.COMPLETED)
    with relaying(database, vhost) as relay:
        broker.wait_for(NOTIFICATIONS, 1)
        if "created_at" in fault:
            eventually(lambda: published("unencodable") >= unencodable + 2)
            assert table.size() == 1
            assert REGISTRY.get_sample_value("outbox_oldest_age_seconds") == math.inf
        else:
            eventually(lambda: table.size() == 0)
        table.add(4)
        eventually(lambda: table.size() == ("created_at" in fault))
        assert relay.problem is None
    assert broker.count(PROCESSING) == (2 if "created_at" in fault else 3)


def limit(vhost: Vhost, queue: str, max_length: int) -> None:
    """Let one queue refuse what goes beyond a length, as a policy of an operator's does."""
    api = f"{vhost.management_url}/api/policies/{vhost.name}/tight"
    policy = {
        "pattern": f"^{queue}$",
        "definition": {"max-length": max_length, "overflow": "reject-publish"},
        "priority": 99,
    }
    requests.put(api, json=policy, timeout=30).raise_for_status()


def lift(vhost: Vhost) -> None:
    api = f"{vhost.management_url}/api/policies/{vhost.name}/tight"
    requests.delete(api, timeout=30)  # 404: there is none


def test_any_number_of_refused_notifications_holds_no_new_order_back(
    database: Database, vhost: Vhost, table: Table, broker: Broker
) -> None:
    refused_count = 13_000
    limit(vhost, NOTIFICATIONS, 10)
    table.session.execute(
        "INSERT INTO outbox (aggregateid, type, payload) SELECT i::text, %s, '{}'"
        " FROM generate_series(1, %s) AS i",
        (events.COMPLETED, refused_count),
    )
    for order_id in range(1, 11):
        table.add(order_id, kind=events.REFUNDED)
    with relaying(database, vhost, batch=500) as relay:
        eventually(lambda: held(events.COMPLETED) == 1)
        for order_id in range(1, 51):
            table.add(order_id)
            table.add(order_id, kind=events.REFUND_DUE)
        broker.wait_for(PROCESSING, 100)
        assert held(events.CREATED) == 0
        assert table.size() > 10_000  # a queue's limit takes hold some hundred messages late
        assert len(relay._holds.active()) == 0
        started_s = machine_time_s()
        table.announce(99)
        broker.wait_for(PROCESSING, 101)
        assert machine_time_s() - started_s < 5
        lift(vhost)
        eventually(lambda: table.size() == 0, within_s=60)
        eventually(lambda: held(events.COMPLETED) == 0)
    types: dict[str, list[str]] = {}
    for properties, body in broker.take_all(NOTIFICATIONS):
        if event := msgspec.json.decode(body):
            types.setdefault(event["orderId"], []).append(properties.type)
    assert len(types) == 10
    broker.purge()


def test_an_orders_messages_for_a_queue_keep_their_order_while_it_refuses(
    database: Database, vhost: Vhost, table: Table, broker: Broker
) -> None:
    limit(vhost, NOTIFICATIONS, 5)
    for order_id in range(100):
        table.add(order_id, 1, events.COMPLETED)
        table.add(order_id, 2, events.REFUNDED)
    versions: dict[str, list[int]] = {}
    with relaying(database, vhost):

        def drained() -> bool:
            for _, body in iter(lambda: broker.take(NOTIFICATIONS), None):
                event = msgspec.json.decode(body)
                versions.setdefault(event["orderId"], []).append(event["version"])
            return sum(map(len, versions.values())) == 200

        eventually(drained, within_s=60)
    lift(vhost)
    assert all(numbers == [1, 2] for numbers in versions.values())


def held(kind: str) -> float:
    return REGISTRY.get_sample_value("outbox_held", {"type": kind}) or 0.0


def test_one_relay_publishes_and_another_takes_over(
    database: Database, vhost: Vhost, table: Table, broker: Broker
) -> None:
    with ExitStack() as second:
        with relaying(database, vhost):
            eventually(lambda: table.leaders() == 1)
            other = second.enter_context(relaying(database, vhost))
            eventually(lambda: other.problem is None)
            table.add(1)
            broker.wait_for(PROCESSING, 1)
            assert table.leaders() == 1
        eventually(lambda: table.leaders() == 1)
        table.add(2)
        broker.wait_for(PROCESSING, 2)


def test_a_lost_session_is_made_again(
    database: Database, vhost: Vhost, table: Table, broker: Broker
) -> None:
    with relaying(database, vhost) as relay:
        eventually(lambda: table.leaders() == 1)
        table.end_relays()
        table.add(1)
        broker.wait_for(PROCESSING, 1)
        eventually(lambda: relay.problem is None)


def test_it_waits_for_a_schema_that_is_not_there_yet(database: Database, vhost: Vhost) -> None:
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute("ALTER TABLE outbox RENAME TO outbox_later")
        with relaying(database, vhost) as relay:
            eventually(lambda: "PostgreSQL" in str(relay.problem))
            session.execute("ALTER TABLE outbox_later RENAME TO outbox")
            eventually(lambda: relay.problem is None)


def test_what_waits_is_counted_while_nothing_can_be_published(
    database: Database, vhost: Vhost, table: Table
) -> None:
    for order_id in range(5):
        table.add(order_id)
    nowhere = Vhost(vhost.name, vhost.url.replace("orders:", "orders:wrong-"), "")
    publisher = Publisher(settings_of(nowhere), "test relay")
    relay = Relay(DatabaseSettings(url=database.url), publisher, RelaySettings())
    thread = threading.Thread(target=relay.run)
    thread.start()
    eventually(lambda: REGISTRY.get_sample_value("outbox_pending") == 5)
    eventually(lambda: (REGISTRY.get_sample_value("outbox_oldest_age_seconds") or 0) > 1)
    relay.stop()
    thread.join(15)
    assert not thread.is_alive()
    assert table.size() == 5
