"""Crowds of orders while processes share keys, stop, or are replaced: none is lost or twice."""

import os
import random
import signal
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import pgbouncer
from integration.api_process import Api, new_user, order
from integration.crowd import crowded, one_process, stored
from integration.handles import Database, Postgres
from integration.serving import eventually

KEYS, USES = 40, 5


@pytest.fixture(params=["direct", "pooled"])
def url(
    request: pytest.FixtureRequest, postgres: Postgres, database: Database, state: Path
) -> Iterator[str]:
    """Give the URL of the database: its own, or that of a pooler in transaction mode."""
    if request.param == "direct":
        yield database.url
        return
    pooler = Program(pgbouncer.component(postgres.cluster, port := free_port()))
    pooler.start()
    try:
        yield postgres.cluster.url(database.name, port=port)
    finally:
        pooler.stop()


def test_processes_that_get_the_same_keys_store_each_once(
    tmp_path: Path, database: Database, url: str
) -> None:
    users = [new_user() for _ in range(KEYS)]
    uses = users * USES
    random.Random(1).shuffle(uses)
    with (
        one_process(
            tmp_path,
            database,
            API_WORKERS="2",
            DATABASE_URL=url,
            DATABASE_SESSION_URL=database.url,
            DATABASE_LOCK_TIMEOUT_S="1",
            DATABASE_STATEMENT_TIMEOUT_S="30",
        ) as api,
        ThreadPoolExecutor(32) as pool,
    ):
        answers = defaultdict(set)
        for user, answer in zip(uses, pool.map(lambda user: keyed(api, user), uses), strict=True):
            answers[user].add((answer.status_code, answer.content))
    assert [len(answers[user]) for user in users] == [1] * KEYS
    assert {status for answer in answers.values() for status, _ in answer} == {202}
    assert sorted(row[0] for row in stored(database, users)) == users


def keyed(api: Api, user: int) -> requests.Response:
    """Send the user's order until its key is free, as the 409 asks clients to."""
    while True:
        answer = requests.post(
            f"{api.url}/api/orders",
            json=order(user),
            headers={"Idempotency-Key": "the-same"},
            timeout=90,
        )
        if answer.status_code != 409:
            return answer


def test_a_process_at_its_last_request_answers_who_waits(
    tmp_path: Path, database: Database
) -> None:
    with (
        one_process(tmp_path, database, API_MAX_REQUESTS="4", API_MAX_REQUESTS_JITTER="0") as api,
        crowded(api, database) as crowd,
    ):
        users = [new_user() for _ in range(10)]
        answers = [crowd.post(user) for user in users]
        eventually(lambda: "making room for a new one" in api.log.read_text())
        crowd.lock.rollback()
        assert [answer.result().status_code for answer in [crowd.first, *answers]] == [202] * 11
    assert sorted(row[0] for row in stored(database, users)) == users


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_stop_under_load_keeps_every_order_that_was_answered(
    tmp_path: Path, database: Database, number: signal.Signals
) -> None:
    sent_ids: list[int] = []
    answered: dict[int, int] = {}
    refused_ids: set[int] = set()
    unknown: set[int] = set()
    stopped = threading.Event()

    def customer() -> None:
        while not stopped.is_set():
            user = new_user()
            sent_ids.append(user)
            try:
                answer = requests.post(f"{api.url}/api/orders", json=order(user), timeout=90)
            except requests.ConnectionError:
                stopped.wait(0.01)
                continue
            if answer.status_code == 503:  # a slow machine: it waited too long for its set
                (refused_ids if "Retry-After" in answer.headers else unknown).add(user)
                continue
            assert answer.status_code == 202
            answered[user] = answer.json()["orderId"]

    with one_process(tmp_path, database) as api, ThreadPoolExecutor(24) as pool:
        customers = [pool.submit(customer) for _ in range(24)]
        try:
            eventually(lambda: len(answered) > 200)
            os.kill(api.pid, number)
            eventually(lambda: refuses(api))
        finally:
            stopped.set()
    for each in customers:
        each.result()
    orders = {user: order_id for user, _, order_id in stored(database, sent_ids)}
    assert len(orders) == len(stored(database, sent_ids)), "none is stored twice"
    assert {user: orders.get(user) for user in answered} == answered
    assert orders.keys().isdisjoint(refused_ids)
    if number == signal.SIGTERM:
        assert orders.keys() - unknown == answered.keys(), "what was stored was answered"


def refuses(api: Api) -> bool:
    try:
        socket.create_connection(("127.0.0.1", api.port)).close()
    except ConnectionRefusedError:
        return True
    return False
