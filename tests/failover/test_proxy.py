"""The proxy does to a connection what the runs say it does."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from failover.proxy import HOST, Proxies, Proxy, proxies


@contextmanager
def speaking(word: bytes) -> Iterator[int]:
    """Run a server that gives every request the same answer; yield its port."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(64):
                self.request.sendall(word)

    with socketserver.ThreadingTCPServer((HOST, 0), Answer) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def group() -> Iterator[Proxies]:
    with proxies() as group:
        yield group


@pytest.fixture
def proxy(group: Proxies) -> Iterator[Proxy]:
    with speaking(b"old") as port:
        yield group.to(port)


def dial(proxy: Proxy, timeout_s: float = 5) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout=timeout_s)


def ask(connection: socket.socket) -> bytes:
    connection.sendall(b"?")
    return connection.recv(64)


def answer_of_new(proxy: Proxy) -> bytes:
    with dial(proxy) as connection:
        answer = ask(connection)
        assert answer, "closed without a reset"
        return answer


def silent(connection: socket.socket) -> bool:
    connection.settimeout(0.3)
    try:
        return ask(connection) == b"(nothing may come)"
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)


def test_bytes_pass_in_both_directions(proxy: Proxy) -> None:
    with dial(proxy) as connection:
        assert ask(connection) == b"old"


def test_a_cut_resets_what_is_open_and_refuses_what_is_new_until_it_is_healed(proxy: Proxy) -> None:
    with dial(proxy) as connection:
        assert ask(connection) == b"old"
        proxy.cut()
        with pytest.raises(ConnectionError):
            connection.recv(64)
    with pytest.raises(ConnectionError):
        answer_of_new(proxy)
    proxy.heal()
    with dial(proxy) as connection:
        assert ask(connection) == b"old"


def test_frozen_connections_say_nothing_and_get_their_bytes_once_healed(proxy: Proxy) -> None:
    with dial(proxy) as connection:
        assert ask(connection) == b"old"
        proxy.freeze()
        assert silent(connection)
        with dial(proxy) as another:
            assert silent(another)
        proxy.heal()
        assert connection.recv(64) == b"old"


def test_a_moved_address_leads_new_connections_elsewhere_and_frees_no_frozen_one(
    proxy: Proxy,
) -> None:
    with dial(proxy) as connection, speaking(b"new") as port:
        assert ask(connection) == b"old"
        proxy.freeze()
        proxy.point(port)
        assert silent(connection)
        with dial(proxy) as another:
            assert ask(another) == b"new"


def test_a_target_that_nobody_listens_on_is_a_reset(group: Proxies, proxy: Proxy) -> None:
    with speaking(b"gone") as port:
        pass
    proxy.point(port)
    with pytest.raises(ConnectionError):
        answer_of_new(proxy)


def test_several_targets_take_turns_and_none_refuses(proxy: Proxy) -> None:
    with speaking(b"one") as first, speaking(b"two") as second:
        proxy.point(first, second)
        assert {answer_of_new(proxy) for _ in range(2)} == {b"one", b"two"}
        proxy.point()
        with pytest.raises(ConnectionError):
            answer_of_new(proxy)


def test_bytes_are_delayed(proxy: Proxy) -> None:
    proxy.delay(0.5)
    with dial(proxy) as connection:
        assert silent(connection)
        assert connection.recv(64) == b"old"
