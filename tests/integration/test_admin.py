"""The admin server on a real port: other clients cannot keep it from answering probes."""

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from integration.serving import get, read_all
from orders import admin
from orders.admin import Admin, AdminServer, listen
from orders.probes import Check, Checks, ProcessState


@contextmanager
def serving(request_s: float = admin.REQUEST_S) -> Iterator[AdminServer]:
    state = ProcessState(stalled_after_s=60)
    state.start()
    pages = Admin(Checks([Check("nothing", lambda: None)]), state)
    running = AdminServer(listen("127.0.0.1", 0), pages, request_s=request_s)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def server() -> Iterator[AdminServer]:
    with serving() as running:
        yield running


def connect(server: AdminServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def test_every_page_is_served(server: AdminServer) -> None:
    pages = ("/livez", "/readyz", "/startupz", "/health", "/metrics", "/")
    assert [get(server.port, page)[0] for page in pages] == [200, 200, 200, 200, 200, 404]


def test_head_has_the_fields_and_no_body(server: AdminServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("HEAD", "/readyz")
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Content-Length"), answer.read()) == (200, "3", b"")
    connection.close()


def test_other_methods_are_refused(server: AdminServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("POST", "/readyz")
    assert connection.getresponse().status == 501
    connection.close()


def test_clients_that_say_nothing_keep_no_probe_from_its_answer() -> None:
    with serving(request_s=300) as server:  # longer than `get` waits
        silent = [connect(server) for _ in range(admin.CONNECTIONS * 3)]
        for _ in range(5):
            assert get(server.port, "/livez") == (200, "ok\n")
        for connection in silent:
            connection.close()


def test_who_drips_is_cut_off() -> None:
    with (
        serving(request_s=0.5) as server,
        connect(server) as connection,
        pytest.raises(ConnectionError),
    ):
        drip(connection, for_s=60)


def drip(connection: socket.socket, for_s: float) -> None:
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        connection.sendall(b"x")
        time.sleep(0.1)


def test_garbage_is_refused(server: AdminServer) -> None:
    with connect(server) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00 \r\n\r\n")
        assert b" 400 " in read_all(connection).split(b"\r\n")[0]
    assert get(server.port, "/livez")[0] == 200


def test_the_port_is_free_after_a_stop(server: AdminServer) -> None:
    port = server.port
    other = AdminServer(listen("127.0.0.1", 0), Admin(Checks([]), ProcessState(1)))
    other.start()
    old_port = other.port
    other.stop()
    listen("127.0.0.1", old_port).close()
    assert get(port, "/livez")[0] == 200
