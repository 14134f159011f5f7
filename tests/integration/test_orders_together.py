"""Orders that come while another waits for its commit share the next one, under meinheld."""

import os
import re
import signal
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from integration.api_process import Api, new_user, order
from integration.crowd import REFUSED, Crowd, crowded, install_triggers, one_process, stored
from integration.handles import Database
from integration.serving import eventually, read_all, read_answer, request

UNKNOWN = "urn:orders:problem:outcome-unknown"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, database: Database) -> Iterator[Api]:
    install_triggers(database)
    with one_process(tmp_path_factory.mktemp("together"), database) as running_api:
        yield running_api


@pytest.fixture
def crowd(api: Api, database: Database) -> Iterator[Crowd]:
    with crowded(api, database) as crowd:
        yield crowd


def test_who_waits_meanwhile_shares_one_commit_and_the_api_serves_on(crowd: Crowd) -> None:
    users = [new_user() for _ in range(20)]
    answers = [crowd.post(user) for user in users]
    crowd.arrive(*answers)
    assert crowd.waiting_sessions() == 1, "one statement runs; the others wait in the api"
    crowd.lock.rollback()
    assert crowd.first.result().status_code == 202
    assert [answer.result().status_code for answer in answers] == [202] * 20
    orders = stored(crowd.database, users)
    assert {answer.result().json()["orderId"] for answer in answers} == {row[2] for row in orders}
    for answer, user in zip(answers, users, strict=True):
        assert (user, answer.result().json()["orderId"]) in {(row[0], row[2]) for row in orders}
    assert len({transaction for _, transaction, _ in orders}) == 1


def test_one_key_twice_in_a_crowd_is_one_order(crowd: Crowd) -> None:
    user, key = new_user(), f"twice-{new_user()}"
    answers = [crowd.post(user, key), crowd.post(user, key), crowd.post(user, key, quantity=3)]
    others = [crowd.post(new_user(), key) for _ in range(3)]
    crowd.arrive(*answers, *others)
    crowd.lock.rollback()
    results = [answer.result() for answer in answers]
    answers_202 = [result for result in results if result.status_code == 202]
    assert len({result.json()["orderId"] for result in answers_202}) == 1
    assert sorted(result.status_code for result in results) in ([202, 202, 422], [202, 422, 422])
    assert len(stored(crowd.database, [user])) == 1
    assert [other.result().status_code for other in others] == [202] * 3, "keys of other principals"


def test_one_order_that_postgresql_refuses_holds_up_no_other(crowd: Crowd) -> None:
    users = [new_user() for _ in range(5)]
    answers = [crowd.post(user) for user in users]
    refused_user = new_user()
    refusal = crowd.post(refused_user, productId=REFUSED)
    keyed_user = new_user()
    keyed = [crowd.post(keyed_user, f"key-{number}") for number in range(2)]
    crowd.arrive(*answers, refusal, *keyed)
    crowd.lock.rollback()
    assert refusal.result().status_code == 503
    assert refusal.result().json()["type"] != UNKNOWN
    assert [answer.result().status_code for answer in answers + keyed] == [202] * 7
    orders = stored(crowd.database, [*users, refused_user, keyed_user])
    assert len(orders) == 7


def test_when_the_session_ends_all_of_the_set_are_told_that_nobody_knows(crowd: Crowd) -> None:
    users = [new_user() for _ in range(6)]
    answers = [crowd.post(user) for user in users]
    crowd.arrive(*answers)
    with psycopg.connect(crowd.database.url, autocommit=True) as second:
        # Before the next set can have the first one's lock: it waits for this one.
        second.execute(b"SET lock_timeout = 0")
        blocker = psycopg.connect(crowd.database.url)
        with ThreadPoolExecutor(1) as pool, blocker:
            queued = pool.submit(blocker.execute, b"LOCK TABLE orders IN EXCLUSIVE MODE")
            eventually(lambda: crowd.waiting_sessions() == 2)
            crowd.lock.rollback()
            queued.result()
            query = (
                b"SELECT array_agg(pid) FROM pg_locks"
                b" WHERE NOT granted AND relation = 'orders'::regclass"
            )
            sessions: list[int] = []

            def blocked() -> bool:
                sessions[:] = second.execute(query).fetchall()[0][0] or []
                return bool(sessions)

            eventually(blocked)
            second.execute(b"SELECT pg_terminate_backend(%s)", (sessions[0],))
            results = [answer.result() for answer in answers]
            blocker.rollback()
    assert {result.status_code for result in results} == {503}
    assert {result.json()["type"] for result in results} == {UNKNOWN}
    assert all("Retry-After" not in result.headers for result in results)
    assert stored(crowd.database, users) == []


def test_a_client_that_goes_away_disturbs_nobody(api: Api, crowd: Crowd) -> None:
    connections = [socket.create_connection(("127.0.0.1", api.port)) for _ in range(4)]
    users = [new_user() for _ in connections]
    for connection, user in zip(connections, users, strict=True):
        connection.sendall(posted(order(user)))
    stays = crowd.post(new_user())
    crowd.arrive(stays, *[stays] * len(connections))
    for connection in connections[:2]:  # a reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for connection in connections:
        connection.close()
    crowd.lock.rollback()
    assert stays.result().status_code == 202
    assert len(stored(crowd.database, users)) == 4, "they were being worked on"
    assert api.post(new_user()).status_code == 202


def test_a_client_that_ends_sending_while_it_waits_gets_its_answer(api: Api, crowd: Crowd) -> None:
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        connection.settimeout(60)
        connection.sendall(posted(order(new_user())))
        crowd.arrive(crowd.first, crowd.first)
        connection.shutdown(socket.SHUT_WR)
        crowd.arrive(crowd.first)
        crowd.lock.rollback()
        assert read_answer(connection)[0] == 202


def posted(body: dict[str, Any]) -> bytes:
    content = msgspec.json.encode(body)
    fields = ("Content-Type: application/json", f"Content-Length: {len(content)}")
    return request("POST", "/api/orders", *fields, body=content)


def test_requests_sent_ahead_are_answered_in_their_order(api: Api, crowd: Crowd) -> None:
    user = new_user()
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        connection.settimeout(60)
        pipelined_request = request("GET", "/openapi.json", "Connection: close")
        connection.sendall(posted(order(user)) + pipelined_request)
        crowd.arrive(crowd.first, crowd.first)
        crowd.lock.rollback()
        answers = read_all(connection)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answers) == [b"202", b"200"]
    assert answers.index(b'"orderId"') < answers.index(b'"openapi"')


def test_more_than_four_sets_are_refused_at_once(api: Api, crowd: Crowd) -> None:
    connections = [socket.create_connection(("127.0.0.1", api.port)) for _ in range(220)]
    for connection in connections:
        connection.settimeout(60)
        connection.sendall(posted(order(new_user())))
    crowd.arrive(*[crowd.first] * len(connections))
    refused_connections = [connection for connection in connections if readable(connection)]
    assert len(refused_connections) == 20
    for connection in refused_connections:
        status, headers, _ = read_answer(connection)
        assert (status, headers["retry-after"]) == (503, "1")
    crowd.lock.rollback()
    open_connections = [
        connection for connection in connections if connection not in refused_connections
    ]
    assert {read_answer(connection)[0] for connection in open_connections} == {202}
    for connection in connections:
        connection.close()


def readable(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(60)


def test_a_process_that_stops_answers_who_waits(tmp_path: Path, database: Database) -> None:
    with one_process(tmp_path, database) as server, crowded(server, database) as crowd:
        answers = [crowd.post(new_user()) for _ in range(5)]
        crowd.arrive(*answers)
        os.kill(server.pid, signal.SIGTERM)
        crowd.lock.rollback()
        assert [answer.result().status_code for answer in [crowd.first, *answers]] == [202] * 6


def test_a_set_stores_what_each_order_stores_by_itself(api: Api, database: Database) -> None:
    """One is stored by accept_order.sql, the two that come together by accept_orders.sql."""
    single_answer = api.post(new_user(), "same-0")
    with crowded(api, database) as crowd:
        together = [crowd.post(new_user(), f"same-{number}") for number in (1, 2)]
        crowd.arrive(*together)
        crowd.lock.rollback()
        answers = [single_answer, *(answer.result() for answer in together)]
    numbers = [answer.json()["orderId"] for answer in answers]
    query = b"""
        SELECT o.quantity, o.total, o.status, o.version, o.payment_method, o.product_id,
            length(o.correlation_id), length(o.traceparent), h.version, h.from_status, h.to_status,
            h.actor, length(h.trace_id), b.type, b.payload - 'orderId' - 'userId',
            (b.payload->>'orderId')::bigint = o.id, (b.payload->>'userId')::bigint = o.user_id,
            b.correlation_id = o.correlation_id, b.traceparent = o.traceparent,
            k.principal = format('user:%%s', o.user_id), k.route, length(k.fingerprint), k.status,
            replace(k.body, o.id::text, ''), k.body LIKE format('%%%%%%s%%%%', o.id),
            k.location = format('/api/orders/%%s', o.id), k.etag,
            k.expires_at - o.created_at
        FROM orders o
        JOIN order_history h ON h.order_id = o.id
        JOIN outbox b ON b.aggregateid = o.id::text
        JOIN idempotency_keys k ON k.location = format('/api/orders/%%s', o.id)
        WHERE o.id = ANY(%s)
    """
    with psycopg.connect(database.url) as connection:
        rows = connection.execute(query, (numbers,)).fetchall()
    assert len(rows) == 3
    assert all(row == rows[0] for row in rows), rows
    for answer, number in zip(answers, (0, 1, 2), strict=True):
        user = stored_user(database, answer.json()["orderId"])
        repetition = api.post(user, f"same-{number}")
        assert (repetition.status_code, repetition.content) == (202, answer.content)
        assert repetition.headers["Idempotency-Replayed"] == "true"


def stored_user(database: Database, number: int) -> int:
    with psycopg.connect(database.url) as connection:
        [(user,)] = connection.execute(b"SELECT user_id FROM orders WHERE id = %s", (number,))
    return int(user)
