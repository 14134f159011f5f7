"""The address of a receiver: looked up once for each connection, and refused unless allowed."""

import ipaddress
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orders.errors import Transient
from orders.notifier.delivery import is_gone
from orders.upstream.addresses import AllowedAddresses
from orders.upstream.http import Upstream
from orders.upstream.policy import UpstreamPolicy
from orders.upstream.transport import HttpRequest

POLICY = UpstreamPolicy(retries=0, breaker_failures=1000).within(10)
LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
NAME = "receiver.test"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Listening"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.hosts.append(self.headers["Host"])
        self.send_response(self.server.status)
        self.send_header("Location", self.server.location)
        self.send_header("Content-Length", "0")
        if self.server.closing:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write no log line for a request."""


class Listening(ThreadingHTTPServer):
    """A receiver on 127.0.0.1 that counts what reaches it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.location, self.closing = 204, "", False
        self.connections = 0
        self.hosts: list[str] = []


@contextmanager
def listening(context: ssl.SSLContext | None = None) -> Iterator[Listening]:
    with Listening() as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[Listening]:
    with listening() as server:
        yield server


class Names:
    """A name server whose answers change: each look-up takes the next, the last for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    def __call__(
        self, host: str, port: int, *_: int, **__: int
    ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        self.asked.append(host)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]


@contextmanager
def calling(url: str, addresses: AllowedAddresses) -> Iterator[Upstream]:
    upstream = Upstream("webhook", url, POLICY, definite=is_gone, addresses=addresses)
    try:
        yield upstream
    finally:
        upstream.close()


def post(upstream: Upstream) -> int:
    return upstream.call(HttpRequest("POST", "/hook", "/", b"{}"), lambda reply: reply.status)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "2130706433", "127.1"],
)
def test_a_private_receiver_is_refused_before_a_connection(server: Listening, host: str) -> None:
    url = f"http://{host}:{server.server_port}"
    with (
        calling(url, AllowedAddresses()) as upstream,
        pytest.raises(Transient, match=r"address_refused: .*ORDERS_NOTIFICATION_ALLOW_PRIVATE"),
    ):
        post(upstream)
    assert server.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_private_receiver_that_is_allowed_is_reached(server: Listening, host: str) -> None:
    url = f"http://{host}:{server.server_port}"
    with calling(url, AllowedAddresses(private=True)) as upstream:
        assert post(upstream) == 204


def test_metadata_are_not_reached_where_private_addresses_are_allowed() -> None:
    with (
        calling("http://169.254.169.254", AllowedAddresses(private=True)) as upstream,
        pytest.raises(Transient, match="address_refused"),
    ):
        post(upstream)


def test_a_name_is_looked_up_once_for_a_connection_and_checked_for_each(server: Listening) -> None:
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    addresses = AllowedAddresses(networks=LOOPBACK, resolve=names)
    with calling(f"http://{NAME}:{server.server_port}", addresses) as upstream:
        for _ in range(3):
            post(upstream)
        assert (names.asked, server.connections) == ([NAME], 1)
        server.closing = True
        post(upstream)
        with pytest.raises(Transient, match=r"address_refused: the receiver's address 10\.0\.0\.1"):
            post(upstream)
    assert names.asked == [NAME, NAME]
    assert server.hosts == [f"{NAME}:{server.server_port}"] * 4


def test_one_refused_address_among_others_refuses_the_name(server: Listening) -> None:
    addresses = AllowedAddresses(networks=LOOPBACK, resolve=Names(["127.0.0.1", "169.254.169.254"]))
    with (
        calling(f"http://{NAME}:{server.server_port}", addresses) as upstream,
        pytest.raises(Transient, match=r"169\.254\.169\.254"),
    ):
        post(upstream)
    assert server.connections == 0


def test_the_next_address_is_tried_where_the_first_does_not_listen(server: Listening) -> None:
    names = Names(["127.0.0.2", "127.0.0.1"])
    addresses = AllowedAddresses(networks=LOOPBACK, resolve=names)
    with calling(f"http://{NAME}:{server.server_port}", addresses) as upstream:
        assert post(upstream) == 204
    assert names.asked == [NAME]


def test_a_name_that_nobody_knows_is_a_failure_of_the_connection() -> None:
    for host in ("no-such-name.invalid", f"{'a' * 64}.test"):
        with (
            calling(f"http://{host}", AllowedAddresses()) as upstream,
            pytest.raises(Transient, match="connection_error"),
        ):
            post(upstream)


def test_a_certificate_is_asked_for_and_verified_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (
        "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 1"
        f" -subj /CN={NAME} -addext subjectAltName=DNS:{NAME} -keyout key.pem -out ca.pem"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    addresses = AllowedAddresses(networks=LOOPBACK, resolve=Names(["127.0.0.1"]))
    with listening(context) as server:
        with calling(f"https://{NAME}:{server.server_port}", addresses) as upstream:
            assert post(upstream) == 204
        with (
            calling(f"https://other.test:{server.server_port}", addresses) as upstream,
            pytest.raises(Transient, match="connection_error"),
        ):
            post(upstream)
        assert len(server.hosts) == 1
    assert names == [NAME, "other.test"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failed_try_that_is_not_followed(server: Listening, status: int) -> None:
    with listening() as other:
        server.status, server.location = status, f"http://127.0.0.1:{other.server_port}/"
        url = f"http://127.0.0.1:{server.server_port}"
        with (
            calling(url, AllowedAddresses(private=True)) as upstream,
            pytest.raises(Transient, match=f"status {status}: redirects are not followed"),
        ):
            post(upstream)
        assert other.connections == 0
