"""The relay as a process: killed, stopped by a signal, without a broker."""

import math
import signal
from collections.abc import Iterator

import msgspec
import psycopg
import pytest
import requests

from integration.broker import connected, prepare
from integration.handles import Database, Postgres, RabbitMQ, Vhost
from integration.relay_process import relay
from integration.serving import eventually
from machine_time import machine_time_s

QUEUE = "order-processing"
ORDERS, ROWS = 400, 4000

Session = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute("TRUNCATE outbox")
        yield session


def fill(session: Session) -> None:
    """Write rows of many orders, each order's with growing versions."""
    session.execute(
        "INSERT INTO outbox (aggregateid, type, payload)"
        " SELECT (i % %s)::text, 'order.created.v1',"
        " jsonb_build_object('orderId', i %% %s + 1, 'version', i / %s + 1, 'status', 'Pending')"
        " FROM generate_series(0, %s - 1) AS i".replace("(i % %s)", "(i %% %s)"),
        (ORDERS, ORDERS, ORDERS, ROWS),
    )


def remaining(session: Session) -> int:
    row = session.execute("SELECT count(*) FROM outbox").fetchone()
    assert row is not None
    return int(str(row[0]))


def test_a_killed_relay_loses_nothing_and_keeps_each_orders_order(
    database: Database, vhost: Vhost, session: Session
) -> None:
    """Rows that it published but did not delete are published again, under the same ids."""
    prepare(vhost)
    fill(session)
    with relay(database, vhost) as first:
        eventually(lambda: remaining(session) < ROWS - 300, within_s=120)
        first.kill()
    assert remaining(session) > 0, "it was killed in the middle"
    with relay(database, vhost) as second:
        eventually(lambda: remaining(session) == 0, within_s=120)
        assert second.terminate() == 0
    messages: dict[str, tuple[int, int]] = {}
    with connected(vhost) as broker:
        for properties, body in broker.take_all(QUEUE):
            event = msgspec.json.decode(body)
            messages.setdefault(properties.message_id, (event["orderId"], event["version"]))
    assert len(messages) == ROWS
    orders: dict[int, list[int]] = {}
    for order_id, version in messages.values():
        orders.setdefault(order_id, []).append(version)
    assert all(versions == sorted(versions) for versions in orders.values())


def test_a_standby_is_ready_and_takes_over_when_the_leader_is_killed(
    database: Database, vhost: Vhost, session: Session
) -> None:
    prepare(vhost)
    with relay(database, vhost) as leader, relay(database, vhost) as standby:
        leader.wait_until_ready()
        standby.wait_until_ready()
        leader.kill()
        session.execute(
            "INSERT INTO outbox (aggregateid, type, payload) VALUES ('1', 'order.created.v1', '{}')"
        )
        eventually(lambda: remaining(session) == 0, within_s=120)
        assert standby.terminate() == 0


def test_a_frozen_leader_is_followed_by_a_standby_and_does_no_harm_when_it_thaws(
    database: Database, vhost: Vhost, session: Session
) -> None:
    """Rows that it had read before may be published twice, under the same ids; none is lost."""
    prepare(vhost)
    with relay(database, vhost) as leader:
        leader.wait_until_ready()
        eventually(lambda: leader.metric("relay_leading") == 1)
        with relay(database, vhost) as standby:
            standby.wait_until_ready()
            leader.running.send_signal(signal.SIGSTOP)
            frozen_s = machine_time_s()
            fill(session)
            filled = {str(row[0]) for row in session.execute("SELECT id FROM outbox")}
            eventually(lambda: remaining(session) < ROWS)
            assert machine_time_s() - frozen_s < 20
            leader.running.send_signal(signal.SIGCONT)
            eventually(lambda: remaining(session) == 0, within_s=60)
            eventually(lambda: leader.metric("relay_leading") == 0)
            eventually(lambda: leader.ready().status_code == 200)  # it stands by
            assert standby.metric("relay_leading") == 1
            assert standby.terminate() == 0
            eventually(lambda: leader.metric("relay_leading") == 1)
    with connected(vhost) as broker:
        ids = [properties.message_id for properties, _ in broker.take_all(QUEUE)]
    published = [message_id for message_id in ids if message_id in filled]
    assert set(published) == filled
    assert len(published) <= ROWS + 200, "at most one batch twice"


def test_a_relay_outlives_a_frozen_server_and_says_what_it_does_not_know(
    postgres: Postgres, database: Database, vhost: Vhost, session: Session
) -> None:
    prepare(vhost)
    with relay(database, vhost) as process:
        process.wait_until_ready()
        eventually(lambda: process.metric("outbox_pending") == 0)
        postgres.pause()
        try:
            eventually(lambda: process.ready().status_code == 503)
            eventually(lambda: process.metric("relay_leading") == 0)
            assert math.isnan(process.metric("outbox_pending"))
            assert math.isnan(process.metric("outbox_oldest_age_seconds"))
            assert process.live().status_code == 200, "a restart would not help"
        finally:
            postgres.resume()
        eventually(lambda: process.ready().status_code == 200)
        eventually(lambda: process.metric("outbox_pending") == 0)


def test_without_a_broker_it_waits_and_says_so(
    rabbitmq: RabbitMQ, database: Database, vhost: Vhost, session: Session
) -> None:
    prepare(vhost)
    with relay(database, vhost) as process:
        process.wait_until_ready()
        rabbitmq.kill()
        fill(session)
        eventually(lambda: process.ready().status_code == 503)
        assert "[-]rabbitmq failed" in process.ready().text
        assert "[+]postgres ok" in process.ready().text
        assert remaining(session) == ROWS
        rabbitmq.start()
        eventually(lambda: remaining(session) == 0, within_s=120)
        eventually(lambda: process.ready().status_code == 200)
        text = requests.get(f"{process.admin}/metrics", timeout=30).text
        assert f'outbox_published_total{{outcome="confirmed"}} {float(ROWS)}' in text
        assert process.terminate() == 0
