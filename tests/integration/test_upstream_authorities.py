"""Upstreams behind a private CA are trusted if REQUESTS_CA_BUNDLE names it, and only then."""

import contextlib
import contextvars
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import pytest

from orders.errors import Unavailable
from orders.upstream.http import Upstream
from orders.upstream.parallel import ParallelCalls
from orders.upstream.policy import UpstreamPolicy
from orders.upstream.transport import Call, HttpRequest


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"true")

    def log_message(self, *_: object) -> None:
        """Write no log line for a request."""


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """Make a certificate for localhost that is its own authority, and its key."""
    command = (
        "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 1"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out ca.pem"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "ca.pem"


@pytest.fixture
def url(authority: Path) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Answer)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority, authority.with_name("key.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _asked(url: str) -> bytes:
    upstream = Upstream("private", url, UpstreamPolicy(retries=0))
    try:
        return upstream.call(HttpRequest("GET", "/", "/"), lambda reply: reply.body)
    finally:
        upstream.close()


def test_the_bundle_of_the_environment_is_trusted(
    url: str, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    assert _asked(url) == b"true"


def test_an_unknown_authority_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    with pytest.raises(Unavailable):
        _asked(url)


class _Long(_Answer):
    """Answers with several records of TLS, and keeps the connection."""

    protocol_version = "HTTP/1.1"
    body = bytes(range(250)) * 160
    connections: list[socket.socket]

    def setup(self) -> None:
        self.connections.append(self.request)
        super().setup()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(self.body)


def test_calls_of_sets_keep_their_tls_connections(
    authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Session tickets on an idle connection are no end of it; a close is one."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    connections = _Long.connections = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority, authority.with_name("key.pem"))
    with ThreadingHTTPServer(("127.0.0.1", 0), _Long) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"https://localhost:{server.server_port}"
        upstream = Upstream("private", url, UpstreamPolicy(retries=0, breaker_failures=1))
        calls: ParallelCalls[int] = ParallelCalls(2)
        try:
            assert _together(calls, upstream, 20) == [_Long.body] * 20
            assert len(connections) == 2
            for sock in connections:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            assert _together(calls, upstream, 20) == [_Long.body] * 20
            assert len(connections) == 4
        finally:
            calls.close()
            upstream.close()
            server.shutdown()
            thread.join()


def _together(calls: "ParallelCalls[int]", upstream: Upstream, number: int) -> list[object]:
    for token in range(number):
        call = Call(HttpRequest("GET", "/", "/"), lambda reply: reply.body)
        calls.begin(token, upstream, call, contextvars.copy_context().run)
    results: list[object] = []
    until_s = time.monotonic() + 20
    while len(results) < number and time.monotonic() < until_s:
        results += [error or result for _, result, error in calls.wait(1)]
    return results
