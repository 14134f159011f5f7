"""Neither api nor gateway answers a POST with unknown outcome with "retry"."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import requests

from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import nginx
from failover.proxy import Proxy, proxies
from integration.api_process import Api, api_running, new_user, order
from integration.handles import Database
from integration.serving import eventually

TYPE = "urn:orders:problem:outcome-unknown"


@pytest.fixture(scope="module")
def proxy(database: Database) -> Iterator[Proxy]:
    with proxies() as group:
        yield group.to(urlsplit(database.url).port or 0)


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, database: Database, proxy: Proxy
) -> Iterator[Api]:
    parts = urlsplit(database.url)
    host = f"{parts.username}:{parts.password}@127.0.0.1:{proxy.port}"
    with api_running(
        tmp_path_factory.mktemp("unknown"),
        DATABASE_URL=parts._replace(netloc=host).geturl(),
        DATABASE_LOCK_TIMEOUT_S="25",
        DATABASE_STATEMENT_TIMEOUT_S="25",
        ORDER_STOCK_CHECK="off",
    ) as server:
        yield server


@contextlib.contextmanager
def locked(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """Make every statement about orders wait, until the block ends."""
    with psycopg.connect(database.url) as connection:
        connection.execute(b"LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        yield connection


def cut_under_a_statement(
    api: Api, database: Database, proxy: Proxy, user: int, key: str | None
) -> requests.Response:
    """Send an order, and cut the connection while PostgreSQL works on it."""
    return cut_under(lambda: api.post(user, key), database, proxy)


def cut_under(
    ask: Callable[[], requests.Response], database: Database, proxy: Proxy
) -> requests.Response:
    """Send a request, and cut its connection to PostgreSQL while that works on it."""
    with ThreadPoolExecutor(1) as pool, locked(database) as connection:
        answer = pool.submit(ask)
        query = b"SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'orders'::regclass"
        eventually(lambda: connection.execute(query).fetchone() != (0,))
        proxy.reset()
        connection.rollback()
        return answer.result()


def test_without_a_key_the_client_is_told_to_look_first(
    api: Api, database: Database, proxy: Proxy
) -> None:
    user = new_user()
    answer = cut_under_a_statement(api, database, proxy, user, None)
    assert answer.status_code == 503
    assert answer.json()["type"] == TYPE
    assert "Idempotency-Key" in answer.json()["detail"]
    assert "Retry-After" not in answer.headers
    # The way to find out, which the answer names:
    eventually(lambda: api.get(f"/api/orders/user/{user}").status_code == 200)


def test_with_a_key_the_client_may_repeat(api: Api, database: Database, proxy: Proxy) -> None:
    user = new_user()
    answer = cut_under_a_statement(api, database, proxy, user, "k1")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    eventually(lambda: api.post(user, "k1").status_code == 202)
    assert len(api.get(f"/api/orders/user/{user}").json()) == 1


@pytest.mark.parametrize("path", ["/api/orders/{id}", "/api/orders/user/{user}?pageSize=1"])
def test_a_read_is_answered_though_its_connection_was_cut(
    api: Api, database: Database, proxy: Proxy, path: str
) -> None:
    user = new_user()
    placed = api.post(user)
    address = path.format(id=placed.headers["Location"].rpartition("/")[2], user=user)
    answer = cut_under(lambda: api.get(address), database, proxy)
    assert answer.status_code == 200, answer.text


def test_what_was_not_sent_may_be_repeated(api: Api, proxy: Proxy) -> None:
    proxy.cut()
    try:
        eventually(lambda: api.post(new_user()).json()["type"] != TYPE)
        answer = api.post(new_user())
    finally:
        proxy.heal()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json()["type"] == "about:blank"
    eventually(lambda: api.post(new_user()).status_code == 202)


# -- the gateway ---------------------------------------------------------------------------


class Dying(threading.Thread):
    """An api that reads a request and resets the connection, or never answers."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.requests: list[bytes] = []
        self.answer_first = False
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            if self.answer_first:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            self.requests.append(connection.recv(65_536))


@pytest.fixture(scope="module")
def dying() -> Iterator[list[Dying]]:
    servers = [Dying(), Dying()]
    yield servers
    for server in servers:
        server.listener.close()


@pytest.fixture(scope="module")
def gateway(state: Path, dying: list[Dying]) -> Iterator[str]:
    """Run the gateway before two apis that die."""
    with gateway_before(state, "two-dying", *(server.port for server in dying)) as url:
        yield url


@contextlib.contextmanager
def gateway_before(state: Path, name: str, *ports: int) -> Iterator[str]:
    listen = f"127.0.0.1:{free_port()}"
    api = ",".join(f"127.0.0.1:{port}" for port in ports)
    site = nginx.Site(state=state, listen=listen, api=api, name=name)
    program = Program(nginx.component(site))
    program.start()
    try:
        yield f"http://{listen}"
    finally:
        program.stop()


def place(url: str, **headers: str) -> requests.Response:
    return requests.request(
        "POST", f"{url}/api/orders", json=order(new_user()), headers=headers, timeout=20
    )


@pytest.mark.parametrize("answer_first", [False, True], ids=["new", "kept"])
def test_the_gateway_sends_a_post_to_one_api_and_says_that_its_end_is_unknown(
    gateway: str, dying: list[Dying], *, answer_first: bool
) -> None:
    for server in dying:
        server.requests.clear()
        server.answer_first = answer_first
    if answer_first:  # leave connections that are kept, then die in the next request
        requests.request("GET", f"{gateway}/health", timeout=20)
        requests.request("GET", f"{gateway}/health", timeout=20)
        for server in dying:
            server.answer_first = False
    answer = place(gateway)
    assert answer.status_code == 502
    assert answer.json()["type"] == TYPE
    assert "Retry-After" not in answer.headers
    posts = [request for server in dying for request in server.requests if b"POST" in request]
    assert len(posts) == 1


def test_the_gateway_lets_a_post_with_a_key_be_repeated(gateway: str) -> None:
    answer = place(gateway, **{"Idempotency-Key": "k"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (502, "1")
    assert answer.json()["type"] == "about:blank"


def test_what_the_gateway_could_not_send_may_be_repeated(state: Path) -> None:
    with gateway_before(state, "nobody", free_port()) as url:
        answer = place(url)
    assert (answer.status_code, answer.headers["Retry-After"]) == (502, "1")
    assert answer.json()["type"] == "about:blank"


def test_the_gateway_adds_no_retry_after_to_the_apis_own_answer(
    state: Path, api: Api, database: Database, proxy: Proxy
) -> None:
    with gateway_before(state, "before-the-api", api.port) as url:
        through = Api(int(url.rpartition(":")[2]), 0, api.log)
        answer = cut_under_a_statement(through, database, proxy, new_user(), None)
    assert (answer.status_code, answer.json()["type"]) == (503, TYPE)
    assert "Retry-After" not in answer.headers
