"""Requests that wait for each other's answers, without the database."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

import pytest

from integration.serving import Served, read_answer, request, serving
from orders.api.orders import ACCEPTED
from orders.database.orders import Orders
from orders.database.pool import Pool
from orders.database.routing import Reads
from orders.domain.order import NewOrder
from orders.settings import DatabaseSettings
from orders.telemetry import context


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("overlap"), worker_class="meinheld") as api_server:
        yield api_server


def ask(server: Served, connections: ExitStack, query: str = "") -> socket.socket:
    """Send a question, and return when the api has read it."""
    connection = connections.enter_context(server.connect())
    connection.settimeout(60)
    connection.sendall(request("POST", f"/together?{query}", "Content-Length: 0"))
    server.get("/pid")
    return connection


def test_a_request_that_cannot_go_on_keeps_no_other_from_it(server: Served) -> None:
    with ExitStack() as connections:
        first = ask(server, connections)
        ask(server, connections, "lost")
        others = [ask(server, connections) for _ in range(3)]
        server.get("/together/go")
        assert read_answer(first)[2] == b"1"
        assert [read_answer(other)[2] for other in others] == [b"4"] * 3
        repetition = ask(server, connections)
        server.get("/together/go")
        assert read_answer(repetition)[2] == b"1"


def test_a_request_that_blocked_the_process_does_not_wait_for_the_next_ones(
    server: Served,
) -> None:
    with ExitStack() as connections:
        ahead = connections.enter_context(server.connect())
        ahead.sendall(request("GET", "/sleep?s=0.5"))
        slow = [connections.enter_context(server.connect()) for _ in range(3)]
        for connection in slow:
            connection.settimeout(60)
            connection.sendall(request("POST", "/together?slow", "Content-Length: 0"))
        assert [read_answer(connection)[2] for connection in slow] == [b"at once"] * 3


def test_what_cannot_be_watched_is_waited_for_all_the_same(server: Served) -> None:
    with ExitStack() as connections:
        status, _, body = read_answer(ask(server, connections, "watched"))
    assert (status, body) == (200, b"1")


def test_an_order_that_cannot_be_encoded_joins_no_set() -> None:
    """It is refused on its own, before it waits with others."""
    payloads: list[object] = []

    def share(_single: Any, _several: Any, _subject: Any) -> Any:
        return payloads.append

    pool = Pool("postgresql://127.0.0.1:9/none", DatabaseSettings(url="postgresql://x"), "test")
    order = NewOrder(
        user_id=7, product_id=3, quantity=2, total=Decimal("19.90"), payment_method="\ud800"
    )
    with pytest.raises(UnicodeEncodeError):
        Orders(pool, Reads(pool, None, None, 1), ACCEPTED, share).accept(
            order, context.accept("test", None)[0], "u:7", None
        )
    assert payloads == []
