"""The command `orders-gateway`, as a container runs it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from devstack import unprivileged
from devstack.ports import free_port
from devstack.program import freeze
from gateway import admin
from gateway.capacity import capacity
from gateway.metrics import AnswerLog
from integration.serving import eventually

SERVICES = Path(__file__).resolve().parents[2] / "services"
WITHIN_S = 30.0


class Api(ThreadingHTTPServer):
    """A server in the api's place; /slow answers once it is released."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", free_port()), Handler)
        self.arrived, self.let_go = threading.Event(), threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.server.arrived.set()
            self.server.let_go.wait(WITHIN_S)
        body = self.headers["X-Forwarded-For"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.let_go.set()
    server.shutdown()
    server.server_close()


class Gateway:
    """A process of the gateway, with its log."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.url = f"http://127.0.0.1:{environ['GATEWAY_PORT']}"
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway"],
                env={**os.environ, "PYTHONPATH": str(SERVICES), "TMPDIR": str(folder), **environ},
                stdout=log,
                stderr=log,
            )

    def wait_until_it_answers(self) -> "Gateway":
        end = time.monotonic() + WITHIN_S
        while True:
            try:
                requests.get(f"{self.url}/", timeout=30)
            except requests.ConnectionError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < end
                time.sleep(0.05)
            else:
                return self


Start = Callable[..., Gateway]


@pytest.fixture
def start(state: Path) -> Iterator[Start]:
    """Start gateways; what still runs is ended with the test."""
    gateways: list[Gateway] = []

    def run(**environ: str) -> Gateway:
        for name in ("GATEWAY_PORT", "GATEWAY_ADMIN_PORT"):
            environ.setdefault(name, str(free_port()))
        folder = unprivileged.folder(state, f"gateway-{environ['GATEWAY_PORT']}")
        gateways.append(Gateway(folder, **environ))
        return gateways[-1]

    yield run
    for gateway in gateways:
        gateway.process.terminate()  # killed, it would leave its nginx behind
        gateway.process.wait(WITHIN_S)


def test_sigterm_finishes_what_is_under_way_and_ends_with_0(api: Api, start: Start) -> None:
    gateway = start(GATEWAY_API_ADDRESS=f"127.0.0.1:{api.server_port}").wait_until_it_answers()
    answers: list[int] = []
    caller = threading.Thread(
        target=lambda: answers.append(requests.get(f"{gateway.url}/slow", timeout=60).status_code)
    )
    caller.start()
    assert api.arrived.wait(WITHIN_S)
    gateway.process.send_signal(signal.SIGTERM)
    api.let_go.set()
    caller.join(WITHIN_S)
    assert answers == [200]
    assert gateway.process.wait(WITHIN_S) == 0


def probe(port: str, path: str) -> tuple[int, str]:
    answer = requests.get(f"http://127.0.0.1:{port}{path}", timeout=30)
    return answer.status_code, answer.text


def test_a_frozen_nginx_fails_its_probes_and_is_not_waited_for(api: Api, start: Start) -> None:
    port = str(free_port())
    gateway = start(GATEWAY_API_ADDRESS=f"127.0.0.1:{api.server_port}", GATEWAY_ADMIN_PORT=port)
    gateway.wait_until_it_answers()
    assert probe(port, "/livez") == probe(port, "/readyz") == (200, "ok\n")
    (nginx,) = psutil.Process(gateway.process.pid).children()
    freeze(nginx)
    try:
        assert probe(port, "/livez") == (503, "nginx does not answer\n")
        assert probe(port, "/readyz")[0] == 503
    finally:
        for process in (nginx, *nginx.children()):
            process.resume()
    assert probe(port, "/livez") == (200, "ok\n")
    assert probe(port, "/other")[0] == 404


def test_nginx_that_takes_no_connections_lives_and_is_not_ready() -> None:
    port = free_port()
    assert admin.nginx(port) is admin.Nginx.CLOSED
    assert admin.live(port)


def test_clients_that_take_every_connection_do_not_have_the_gateway_started_again(
    api: Api, start: Start
) -> None:
    port = str(free_port())
    gateway = start(
        GATEWAY_API_ADDRESS=f"127.0.0.1:{api.server_port}",
        GATEWAY_ADMIN_PORT=port,
        GATEWAY_MEMORY_MIB="64",
        GATEWAY_API_IN_FLIGHT="1",
    ).wait_until_it_answers()
    address = ("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    with ExitStack() as slow:
        while not _is_full(address):
            for _ in range(100):
                client = slow.enter_context(socket.create_connection(address, timeout=30))
                client.sendall(b"GET / HTTP/1.1\r\n")
        for path in ("/livez", "/readyz", "/livez", "/readyz"):
            assert probe(port, path) == (200, "ok\n")


def _is_full(address: tuple[str, int]) -> bool:
    """Return whether some of eight new connections are not served."""
    return not all(_is_served(address) for _ in range(8))


def _is_served(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=30) as client:
            client.sendall(b"GET /gateway/livez HTTP/1.1\r\nHost: a\r\n\r\n")
            return client.recv(12) == b"HTTP/1.1 200"
    except ConnectionError:
        return False


def metrics(port: str) -> dict[tuple[str, str, str], float]:
    """Return the gateway's count of answers by method, status and scope."""
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    (family,) = (
        each for each in text_string_to_metric_families(text) if each.name == "gateway_requests"
    )
    return {
        (
            sample.labels["http_request_method"],
            sample.labels["http_response_status_code"],
            sample.labels["scope"],
        ): sample.value
        for sample in family.samples
        if sample.name == "gateway_requests_total"
    }


def test_answers_are_counted_also_where_no_api_answers(api: Api, start: Start) -> None:
    port = str(free_port())
    gateway = start(GATEWAY_API_ADDRESS=f"127.0.0.1:{free_port()}", GATEWAY_ADMIN_PORT=port)
    gateway.wait_until_it_answers()
    for path in ("/api/orders/1", "/api/orders/2", "/api/orders/%00", "/health"):
        requests.get(f"{gateway.url}{path}", timeout=30)
    requests.request("BREW", f"{gateway.url}/api/orders", timeout=30)
    expected = {("GET", "502", "api"): 2, ("GET", "400", "other"): 1, ("_OTHER", "405", "api"): 1}
    end = time.monotonic() + WITHIN_S
    while not expected.items() <= metrics(port).items():
        assert time.monotonic() < end, metrics(port)
        time.sleep(0.1)
    counts = metrics(port)
    assert counts["GET", "200", "api"] == 0
    for method, status in (("GET", "500"), ("GET", "504"), ("POST", "502"), ("POST", "503")):
        assert counts[method, status, "api"] == 0  # else the first ones would be no increase


def test_a_long_log_of_answers_begins_anew_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    path = tmp_path / "answers.log"
    log = AnswerLog(path)
    assert log.read() == {}
    line = b"GET 200 api\n"
    path.write_bytes(line * 1_100_000 + b"GET 5")
    assert log.read() == {b"GET 200 api": 1_100_000}
    assert path.stat().st_size == 0
    with path.open("ab") as file:
        file.write(b"02 api\nPOST 202 api\n")
    assert log.read() == {b"GET 502 api": 1, b"POST 202 api": 1}
    path.write_bytes(line)  # another nginx began it anew
    assert log.read() == {b"GET 200 api": 1}


def test_it_asks_the_next_api_when_one_is_gone(api: Api, start: Start) -> None:
    addresses = f"127.0.0.1:{free_port()}, 127.0.0.1:{api.server_port}"
    gateway = start(GATEWAY_API_ADDRESS=addresses).wait_until_it_answers()
    assert [requests.get(gateway.url, timeout=30).status_code for _ in range(4)] == [200] * 4


@pytest.mark.parametrize(
    ("trusted", "client"), [("127.0.0.0/8, ::1/128", "192.0.2.7"), ("10.0.0.0/8", "127.0.0.1")]
)
def test_only_a_trusted_proxy_says_who_the_client_is(
    api: Api, start: Start, trusted: str, client: str
) -> None:
    gateway = start(
        GATEWAY_API_ADDRESS=f"127.0.0.1:{api.server_port}", GATEWAY_TRUSTED_PROXIES=trusted
    ).wait_until_it_answers()
    claim = {"X-Forwarded-For": "198.51.100.1, 192.0.2.7"}
    assert requests.get(gateway.url, headers=claim, timeout=30).text == client


def test_nginx_s_own_failure_is_the_exit_code(api: Api, start: Start) -> None:
    gateway = start(GATEWAY_PORT=str(api.server_port), GATEWAY_API_ADDRESS="127.0.0.1:1")
    assert gateway.process.wait(WITHIN_S) == 1
    assert "could not bind" in gateway.log.read_text()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GATEWAY_PORT", "0"),
        ("GATEWAY_DRAIN_S", "soon"),
        ("GATEWAY_API_ADDRESS", "127.0.0.1:8000; include /etc/passwd"),
        ("GATEWAY_TRUSTED_PROXIES", "10.0.0.1/8"),
    ],
)
def test_a_wrong_setting_is_named(start: Start, variable: str, value: str) -> None:
    gateway = start(**{"GATEWAY_PORT": str(free_port()), variable: value})
    assert gateway.process.wait(WITHIN_S) == 2
    assert f"{variable} is wrong" in gateway.log.read_text()


def test_clients_of_one_ipv6_network_share_the_limit_of_an_address(api: Api, start: Start) -> None:
    memory_mib = 64
    gateway = start(
        GATEWAY_API_ADDRESS=f"127.0.0.1:{api.server_port}",
        GATEWAY_TRUSTED_PROXIES="127.0.0.0/8",
        GATEWAY_MEMORY_MIB=str(memory_mib),
    ).wait_until_it_answers()
    port = int(gateway.url.rpartition(":")[2])

    def status(address: str) -> int:
        headers = {"X-Forwarded-For": address}
        return requests.get(f"{gateway.url}/", headers=headers, timeout=30).status_code

    with ExitStack() as slow:

        def is_refused() -> bool:
            slow.close()  # nginx lets them go after 10 s, which a busy machine may need to ask it
            for number in range(capacity(memory_mib).requests_per_address):
                client = socket.create_connection(("127.0.0.1", port), timeout=30)
                slow.enter_context(client).sendall(
                    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"
                    b"X-Forwarded-For: 2001:db8:1:2:%x::1\r\n\r\n" % number
                )
            return any(status("2001:db8:1:2:ffff::1") == 429 for _ in range(20))

        eventually(is_refused)
        assert status("2001:db8:1:3::1") == 200
        assert status("203.0.113.1") == 200
