"""Outages of others cost orders time, and nothing else: the whole way from the queue to the end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal

import pytest
import requests
from prometheus_client import REGISTRY

from integration.broker import (
    SHORT_TIERS,
    Broker,
    body,
    new_properties,
    settings_of,
)
from integration.handles import Database, Postgres, Vhost
from integration.serving import eventually
from integration.stores import orders_on
from machine_time import machine_time_s
from orders.database.pool import Pool
from orders.database.progress import Progress, ProgressSets
from orders.domain import events
from orders.domain.order import NewOrder
from orders.errors import Transient
from orders.messaging.consumer import Consumer, Limits
from orders.settings import DatabaseSettings
from orders.telemetry import context
from orders.upstream.http import Upstream
from orders.upstream.inventory import Inventory
from orders.upstream.payment import Payment
from orders.upstream.policy import UpstreamPolicy
from orders.watch import Watch
from orders.worker.fulfilment import Fulfilment, WorkerPorts
from orders.worker.order_calls import Upstreams, set_fulfilment
from upstreams.process import Control

QUEUE, DEAD = "order-processing", "order-processing.dead"
# Longer than eight attempts through the tests' tiers take (1.5 s).
OUTAGE_S = 2.5
ORDERS = 10
POLICY = UpstreamPolicy(
    deadline_s=1, try_timeout_s=0.3, retries=0, breaker_failures=3, breaker_reset_s=0.5
)


@pytest.fixture(scope="module")
def pool(database: Database) -> Iterator[Pool]:
    settings = DatabaseSettings(
        url=database.url, pool_size=12, connect_timeout_s=1, statement_timeout_s=1
    )
    pool = Pool(database.url, settings, "test")
    pool.open()
    yield pool
    pool.close()


@contextmanager
def working(vhost: Vhost, pool: Pool, inventory: Control, payment: Control) -> Iterator[Consumer]:
    upstreams = (
        Upstream("inventory", inventory.url, POLICY), Upstream("payment", payment.url, POLICY),
    )  # fmt: skip
    ports = WorkerPorts(
        Progress(pool, "worker"), Inventory(upstreams[0]), Payment(upstreams[1]), lambda _: None
    )
    sets = set_fulfilment(
        ProgressSets(pool, "worker"), Upstreams(*upstreams, 16), lambda _: None, size=20,
        watch=Watch("test"),
    )  # fmt: skip
    limits = Limits(prefetch=4, max_tries=8, drain_s=5, tiers=SHORT_TIERS, set_size=20)
    consumer = Consumer(settings_of(vhost), QUEUE, Fulfilment(ports).handle, limits, sets)
    consumer.start()
    try:
        eventually(lambda: consumer.problem is None)
        yield consumer
    finally:
        consumer.stop()
        for upstream in upstreams:
            upstream.close()


def order(pool: Pool, broker: Broker, kind: str = events.CREATED) -> int:
    """Accept an order and send the message of it."""
    ids, _ = context.accept("test", None)
    new = NewOrder(7, 1, 1, Decimal("19.90"), "card")
    answer = orders_on(pool).accept(new, ids, "u:7", None)
    assert answer.order_id is not None
    broker.send(QUEUE, body(answer.order_id), new_properties(kind))
    return answer.order_id


def completed(pool: Pool, ids: list[int]) -> bool:
    with pool.connection() as connection:
        row = connection.execute(
            b"SELECT count(*) FROM orders WHERE id = ANY(%s) AND status = 'Completed'", (ids,)
        ).fetchone()
    return row == (len(ids),)


def paused(reason: str) -> float:
    labels = {"queue": QUEUE, "reason": reason}
    return REGISTRY.get_sample_value("messaging_consumer_paused", labels) or 0.0


def nothing_is_left(broker: Broker) -> bool:
    queues = (QUEUE, DEAD, *(f"{QUEUE}.retry.{tier.name}" for tier in SHORT_TIERS))
    return all(broker.count(queue) == 0 for queue in queues)


FAULTS: dict[str, dict[str, float]] = {
    "503": {"errorRatio": 1, "errorStatus": 503},
    "404 of a proxy": {"errorRatio": 1, "errorStatus": 404},
    "401": {"errorRatio": 1, "errorStatus": 401},
    "429": {"errorRatio": 1, "errorStatus": 429},
    "no answers": {"hangRatio": 1},
    "nine of ten fail": {"errorRatio": 0.9, "errorStatus": 500},
}


@pytest.mark.parametrize(
    ("upstream", "fault"),
    [
        *(("payment", fault) for fault in FAULTS),
        ("inventory", "503"),
        ("inventory", "404 of a proxy"),
    ],
)
def test_an_outage_of_an_upstream_ends_with_every_order_completed(
    vhost: Vhost, pool: Pool, broker: Broker, inventory: Control, payment: Control,
    upstream: str, fault: str,
) -> None:  # fmt: skip
    simulator = {"payment": payment, "inventory": inventory}[upstream]
    simulator.faults(**FAULTS[fault])
    try:
        with working(vhost, pool, inventory, payment) as consumer:
            ids = [order(pool, broker) for _ in range(ORDERS)]
            ids.append(order(pool, broker, events.STALLED))
            if fault != "nine of ten fail":
                eventually(lambda: paused(upstream) == 1)
                assert consumer.paused is not None
            time.sleep(OUTAGE_S)
            assert broker.count(DEAD) == 0
            assert consumer.problem is None, "the connection lives"
            simulator.faults()
            eventually(lambda: completed(pool, ids))
            eventually(lambda: nothing_is_left(broker))
            eventually(lambda: consumer.paused is None)
            assert paused(upstream) == 0
    finally:
        simulator.faults()


def closed(vhost: Vhost, name: str) -> bool:
    """Close the broker's connections of a name; false if it lists none yet."""
    api = f"{vhost.management_url}/api/connections"
    names = [
        connection["name"]
        for connection in requests.get(api, timeout=30).json()
        if connection["client_properties"].get("connection_name") == name
    ]
    answers = [requests.delete(f"{api}/{connection}", timeout=30) for connection in names]
    return any(answer.ok for answer in answers)


def _killed(postgres: Postgres) -> Callable[[], None]:
    postgres.kill()
    return postgres.start


def _frozen(postgres: Postgres) -> Callable[[], None]:
    postgres.pause()
    return postgres.resume


@pytest.mark.parametrize("stop", [_killed, _frozen], ids=["killed", "frozen"])
def test_an_outage_of_postgresql_ends_with_every_order_completed(
    vhost: Vhost, pool: Pool, broker: Broker, inventory: Control, payment: Control,
    postgres: Postgres, stop: Callable[[Postgres], Callable[[], None]],
) -> None:  # fmt: skip
    payment.faults(latencyMs=100)
    ids = [order(pool, broker) for _ in range(ORDERS)]
    go_on = stop(postgres)
    try:
        with working(vhost, pool, inventory, payment) as consumer:
            eventually(lambda: paused("postgres") == 1)
            time.sleep(OUTAGE_S)
            assert broker.count(DEAD) == 0
            go_on()
            go_on = _nothing
            eventually(lambda: _completed_soon(pool, ids))
            eventually(lambda: nothing_is_left(broker))
            eventually(lambda: consumer.paused is None)
    finally:
        go_on()
        payment.faults()


def _nothing() -> None:
    """Do nothing: the server runs again."""


def _completed_soon(pool: Pool, ids: list[int]) -> bool:
    try:
        return completed(pool, ids)
    except Transient:
        return False


def test_a_paused_consumer_stops_at_once_and_gives_back_what_it_held(
    vhost: Vhost, pool: Pool, broker: Broker, inventory: Control, payment: Control
) -> None:
    payment.faults(errorRatio=1, errorStatus=503)
    try:
        with working(vhost, pool, inventory, payment) as consumer:
            ids = [order(pool, broker) for _ in range(ORDERS)]
            eventually(lambda: paused("payment") == 1)
            started_s = machine_time_s()
            assert consumer.stop()
            assert machine_time_s() - started_s < 4, "not the time to drain in"
        payment.faults()
        with working(vhost, pool, inventory, payment):
            eventually(lambda: completed(pool, ids))
            eventually(lambda: nothing_is_left(broker))
    finally:
        payment.faults()


def test_a_connection_that_ends_under_a_pause_takes_what_was_held_with_it(
    vhost: Vhost, pool: Pool, broker: Broker, inventory: Control, payment: Control
) -> None:
    """Deliveries of a connection that is gone are let go of, and come again over the next."""
    payment.faults(errorRatio=1, errorStatus=503)
    try:
        with working(vhost, pool, inventory, payment) as consumer:
            ids = [order(pool, broker) for _ in range(ORDERS)]
            eventually(lambda: paused("payment") == 1)
            eventually(lambda: closed(vhost, f"{QUEUE} consumer"))  # listed some seconds late
            eventually(lambda: consumer.problem is None)
            payment.faults()
            eventually(lambda: completed(pool, ids))
            eventually(lambda: nothing_is_left(broker))
    finally:
        payment.faults()
