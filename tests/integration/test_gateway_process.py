"""The command `orders-gateway`, as a container runs it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from devstack import unprivileged
from devstack.ports import free_port

SERVICES = Path(__file__).resolve().parents[2] / "services"
WITHIN_S = 30.0


class Api(ThreadingHTTPServer):
    """Stand where the api stands; /slow answers once it is let go."""

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
    """One `orders-gateway` process."""

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
                requests.get(f"{self.url}/", timeout=5)
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
    made: list[Gateway] = []

    def run(**environ: str) -> Gateway:
        environ.setdefault("GATEWAY_PORT", str(free_port()))
        folder = unprivileged.folder(state, f"gateway-{environ['GATEWAY_PORT']}")
        made.append(Gateway(folder, **environ))
        return made[-1]

    yield run
    for gateway in made:
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


def test_it_asks_the_next_api_when_one_is_gone(api: Api, start: Start) -> None:
    addresses = f"127.0.0.1:{free_port()}, 127.0.0.1:{api.server_port}"
    gateway = start(GATEWAY_API_ADDRESS=addresses).wait_until_it_answers()
    assert [requests.get(gateway.url, timeout=10).status_code for _ in range(4)] == [200] * 4


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
    assert requests.get(gateway.url, headers=claim, timeout=10).text == client


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
