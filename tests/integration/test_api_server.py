"""gunicorn with meinheld and with gthread: what happens to requests when processes come and go."""

import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.serving import (
    Served,
    eventually,
    get,
    is_running,
    read_all,
    read_answer,
    request,
    serving,
    start,
)

BOTH = pytest.mark.parametrize("worker_class", ["meinheld", "gthread"])


EXITS = "http_server_worker_exits_total"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for log in tmp_path.glob("*.log"):  # shown by pytest when the test fails
        print(log.read_text())  # noqa: T201


def hold(server: Served, target: str) -> socket.socket:
    """Send a request and do not wait for the answer."""
    connection = server.connect()
    connection.sendall(request("GET", target))
    return connection


def test_a_hung_handler_is_killed_and_the_master_serves_on(folder: Path) -> None:
    with serving(folder, timeout_s=1) as server:
        hung = hold(server, "/sleep?s=60")
        assert read_all(hung) == b""
        eventually(lambda: server.get("/pid"))
        assert server.process.poll() is None
        assert "tiny_api.py" in server.log.read_text(), "the log says where it hung"


def test_a_worker_deaf_to_signals_is_killed(folder: Path) -> None:
    """The worker hangs, as in C code."""
    with serving(folder, timeout_s=1) as server:
        (stuck,) = server.workers
        os.kill(stuck, signal.SIGSTOP)
        eventually(lambda: not is_running(stuck))
        eventually(lambda: server.get("/pid"))


@BOTH
def test_a_killed_worker_is_replaced_while_others_serve(folder: Path, worker_class: str) -> None:
    with serving(folder, worker_class=worker_class, workers=2) as server:
        workers = server.workers
        os.kill(next(iter(workers)), signal.SIGKILL)
        for _ in range(20):
            assert server.get("/pid")
        eventually(lambda: len(server.workers) == 2 and server.workers != workers)
        assert server.process.poll() is None
        assert server.counted(EXITS) == 0, "a process that was killed did not end as it should"
        assert (
            'orders_build_info{revision="unknown",version="dev"} 1.0' in server.admin("/metrics")[1]
        )


@BOTH
def test_no_request_is_lost_while_workers_are_recycled(folder: Path, worker_class: str) -> None:
    """Busy connections are told to close; none is reset, and no request runs twice."""
    with serving(
        folder, worker_class=worker_class, workers=2, max_requests=60, max_requests_jitter=40
    ) as server:
        clients = [Client(server.port, requests=100) for _ in range(4)]
        for client in clients:
            client.join(30)
        pids = {pid for client in clients for pid in client.pids}
        assert [client.failures for client in clients] == [[]] * 4
        assert len(pids) >= 4
        assert server.counted() == 400
        eventually(lambda: server.counted(EXITS) >= 2)


class Client(threading.Thread):
    """Send requests one after the other, over one connection for as long as the server lets us."""

    def __init__(self, port: int, requests: int) -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._requests = requests
        self.pids: set[str] = set()
        self.failures: list[Exception] = []
        self.start()

    def run(self) -> None:
        for _ in range(self._requests):
            try:
                self._connection.request("GET", "/count")
                self.pids.add(self._connection.getresponse().read().decode())
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
        self._connection.close()


def test_a_worker_that_stops_keeps_no_new_connection_waiting(folder: Path) -> None:
    """The kernel wakes one worker for a connection: not one that accepts no more."""
    with serving(folder, workers=2, graceful_timeout_s=20) as server:
        eventually(lambda: len(server.workers) == 2)
        waiting = hold(server, "/pid")
        stopping = int(read_answer(waiting)[2])  # the one that the kernel wakes first
        idle = hold(server, "/pid")
        while int(read_answer(idle)[2]) != stopping:
            idle = hold(server, "/pid")
        waiting.sendall(request("POST", "/together", "Content-Length: 0"))  # its loop goes on
        os.kill(stopping, signal.SIGTERM)
        assert read_all(idle) == b""
        for _ in range(5):
            assert int(server.get("/pid")) != stopping
        assert is_running(stopping)


@BOTH
def test_sigterm_finishes_requests_in_flight(folder: Path, worker_class: str) -> None:
    with serving(folder, worker_class=worker_class, threads=4) as server:
        busy = hold(server, "/sleep?s=1")
        time.sleep(0.3)
        server.signal(signal.SIGTERM)
        assert read_answer(busy)[2] == b"slept"
        busy.close()
        assert server.process.wait(30) == 0


def test_sigterm_answers_kept_connections_with_close(folder: Path) -> None:
    """A client that sends just then gets its answer; an idle one a proper end, no reset."""
    with serving(folder) as server:
        active, idle = hold(server, "/pid"), hold(server, "/pid")
        assert read_answer(active)[0] == read_answer(idle)[0] == 200
        server.signal(signal.SIGTERM)
        time.sleep(1.2)
        active.sendall(request("GET", "/pid"))
        status, fields, _ = read_answer(active)
        assert (status, fields["connection"].lower()) == (200, "close")
        assert idle.recv(1) == b""
        assert server.process.wait(30) == 0


def test_sigterm_waits_for_a_slow_upload(folder: Path) -> None:
    with serving(folder) as server:
        upload = server.connect()
        upload.sendall(request("POST", "/body", "Content-Length: 4"))
        time.sleep(0.2)
        server.signal(signal.SIGTERM)
        for _ in range(4):
            time.sleep(0.6)
            upload.sendall(b"x")
        assert read_answer(upload)[2] == b"4"
        assert server.process.wait(30) == 0


def test_a_request_beyond_the_graceful_timeout_is_cut_off(folder: Path) -> None:
    with serving(folder, graceful_timeout_s=1) as server:
        busy = hold(server, "/sleep?s=30")
        time.sleep(0.3)
        server.signal(signal.SIGTERM)
        server.process.wait(30)
        assert read_all(busy) == b""


def test_readiness_goes_first_and_requests_are_served_through_the_drain_delay(folder: Path) -> None:
    with serving(folder, drain_delay_s=5) as server:
        assert server.admin("/readyz")[0] == 200
        server.signal(signal.SIGTERM)
        eventually(lambda: server.admin("/readyz")[0] == 503)
        assert server.get("/pid")
        assert server.admin("/livez")[0] == 200
        assert "shutting down" in server.admin("/readyz")[1]
        assert server.process.wait(30) == 0


@BOTH
def test_a_killed_master_leaves_nothing_behind(folder: Path, worker_class: str) -> None:
    with serving(folder, worker_class=worker_class, workers=2) as server:
        children = server.workers | server.children("orders-admin")
        assert len(children) == 3
        metrics = metrics_of(server)
        server.process.kill()
        eventually(lambda: not any(map(is_running, children)))
        assert not metrics.exists()


def metrics_of(server: Served) -> Path:
    environ = Path(f"/proc/{next(iter(server.workers))}/maps").read_text()
    line = next(line for line in environ.splitlines() if "orders-metrics-" in line)
    return Path(line.split()[-1]).parent


def test_sigint_ends_at_once(folder: Path) -> None:
    with serving(folder, graceful_timeout_s=60) as server:
        idle = hold(server, "/pid")
        assert read_answer(idle)[0] == 200
        began_at = time.monotonic()
        server.signal(signal.SIGINT)
        assert server.process.wait(30) == 0
        assert time.monotonic() - began_at < 30


def test_a_worker_serves_on_a_unix_socket(folder: Path) -> None:
    path = folder / "api.sock"
    with serving(folder, host=f"unix:{path}") as server:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        for _ in range(2):
            connection.sendall(request("GET", "/pid"))
            assert int(read_answer(connection)[2]) in server.workers
        connection.sendall(request("GET", "/peer"))
        assert read_answer(connection)[2] == b""
        server.signal(signal.SIGTERM)
        assert connection.recv(1) == b""
        assert server.process.wait(30) == 0


def test_a_worker_names_a_peer_with_an_ipv6_address(folder: Path) -> None:
    with serving(folder, host="::1") as server:
        connection = socket.create_connection(("::1", server.port), timeout=5)
        connection.sendall(request("GET", "/peer"))
        assert read_answer(connection)[2] == b"::1"
        connection.close()


def test_a_taken_admin_port_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        process = start({"port": port + 1}, {"host": "127.0.0.1", "port": port}, folder / "out.log")
        assert process.wait(60) != 0
    assert f"ORDERS_ADMIN_PORT: cannot listen on {port}" in (folder / "out.log").read_text()


def test_the_admin_process_is_replaced_when_it_dies(folder: Path) -> None:
    with serving(folder) as server:
        (admin,) = server.children("orders-admin")
        os.kill(admin, signal.SIGKILL)
        eventually(lambda: server.children("orders-admin") not in (set(), {admin}))
        assert get(server.admin_port, "/readyz")[0] == 200
