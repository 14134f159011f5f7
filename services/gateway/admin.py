"""The gateway's admin port: `/livez` and `/readyz` for the kubelet, `/metrics` for Prometheus.

The probes are answered here and not by nginx: otherwise, clients that use all connections of the
public port would cause restarts of all gateways. Clients cannot reach this port.
"""

import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from enum import Enum
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Final

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway import metrics

LIVE: Final = "/gateway/livez"  # what nginx itself answers
# Below the two seconds that the kubelet waits.
PATIENCE_S: Final = 1.5
_REQUEST: Final = f"GET {LIVE} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n".encode()
_REQUEST_S: Final = 5.0
_TEXT: Final = "text/plain; charset=utf-8"


class Nginx(Enum):
    """What nginx does with a connection."""

    SERVES = "ok"
    CLOSED = "nginx takes no connections"
    SILENT = "nginx does not answer"


def _unverified() -> ssl.SSLContext:
    """Return a context that verifies nothing: for our own nginx, over the loopback."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


UNVERIFIED: Final = _unverified()


def nginx(port: int, patience_s: float = PATIENCE_S, *, tls: bool = False) -> Nginx:
    """Ask nginx over the loopback, for `patience_s` seconds at most.

    A connection that is reset is served: nginx runs and has none left. Only silence shows that it
    hangs, because the kernel accepts connections for a frozen process.
    """
    deadline_s = time.monotonic() + patience_s
    try:
        with socket.create_connection(("127.0.0.1", port), patience_s) as plain:
            plain.settimeout(max(0.01, deadline_s - time.monotonic()))
            with UNVERIFIED.wrap_socket(plain) if tls else plain as connection:
                connection.sendall(_REQUEST)
                connection.recv(1)
    except TimeoutError:
        return Nginx.SILENT
    except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
        return Nginx.SERVES
    except OSError:
        return Nginx.CLOSED
    return Nginx.SERVES


def live(port: int) -> bool:
    """Tell whether nginx runs; it counts as running when it is full or drains."""
    return nginx(port) is not Nginx.SILENT


def serve_beside(log: metrics.AnswerLog, port: int, nginx_port: int, *, tls: bool = False) -> None:
    """Serve from threads on all addresses; the gateway works without them, too."""
    try:
        server = _Server(_listen(port), partial(nginx, nginx_port, tls=tls))
    except OSError as error:
        sys.stderr.write(f"gateway: no admin port {port}: {error}\n")
        return
    for name, run in (("admin", server.serve_forever), ("metrics", lambda: metrics.follow(log))):
        threading.Thread(target=run, name=name, daemon=True).start()


def _listen(port: int) -> socket.socket:
    """Listen on IPv4, and on IPv6 where the kernel has it: the kubelet asks the pod's address."""
    if socket.has_dualstack_ipv6():
        address = ("::", port)
        return socket.create_server(
            address, family=socket.AF_INET6, backlog=128, dualstack_ipv6=True
        )
    return socket.create_server(("0.0.0.0", port), backlog=128)  # noqa: S104 - a pod's own address is not known beforehand


class _Server(ThreadingMixIn, TCPServer):
    """TCPServer and not HTTPServer: that one asks the DNS for its own name while it binds."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, ask: Callable[[], Nginx]) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.ask = ask

    def handle_error(self, _request: object, _client_address: object) -> None:
        """Do not answer: the client closed the connection, or sent nothing for too long."""


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # a version that it cannot compare
        return choose_encoder("")


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _REQUEST_S

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = _encoder(self.headers.get("Accept", ""))
            self._send(HTTPStatus.OK, content_type, encode(REGISTRY))
        elif path in {"/livez", "/readyz"}:
            self._probe(path)
        else:
            self._send(HTTPStatus.NOT_FOUND, _TEXT, b"Try /livez, /readyz, /metrics.\n")

    def _probe(self, path: str) -> None:
        condition = self.server.ask()
        failures = {Nginx.SILENT} if path == "/livez" else {Nginx.SILENT, Nginx.CLOSED}
        status = HTTPStatus.SERVICE_UNAVAILABLE if condition in failures else HTTPStatus.OK
        self._send(status, _TEXT, f"{condition.value}\n".encode())

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Write no line: probes and scrapes come all day."""
