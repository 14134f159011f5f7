"""The admin port of every process: probes for Kubernetes, metrics for Prometheus, `/health`."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import BaseRequestHandler, TCPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from orders import probes
from orders.probes import Checks, ProbeReport, State

# A request and its answer are small; a client that takes longer is disconnected.
REQUEST_S: Final = 5.0
# Probes and scrapers need a few. One more replaces the oldest, which is the stuck one.
CONNECTIONS: Final = 32
_TEXT: Final = "text/plain; charset=utf-8"


class AdminResponse(msgspec.Struct, frozen=True):
    """Status, media type and body of an HTTP answer."""

    status: int
    content_type: str
    body: bytes


class Admin:
    """The answers of the admin port, independent of HTTP."""

    def __init__(self, checks: Checks, state: State, metrics: Collector = REGISTRY) -> None:
        self._checks, self._state, self._metrics = checks, state, metrics
        self._pages: dict[str, Callable[[dict[str, list[str]], str], AdminResponse]] = {
            "/livez": lambda query, _: _probe(probes.livez(state), query),
            "/readyz": lambda query, _: _probe(probes.readyz(state, checks), query),
            "/startupz": lambda query, _: _probe(probes.startupz(state), query),
            "/health": lambda _query, _: self._health(),
            "/metrics": lambda _query, accept: self._scrape(accept),
        }

    def answer(self, target: str, accept: str = "") -> AdminResponse:
        """Answer a GET of `target` (path and query)."""
        try:
            target_parts = urlsplit(target)
        except ValueError:  # a target that starts with // is read as a host
            return AdminResponse(404, _TEXT, b"There is no such page.\n")
        page = self._pages.get(target_parts.path)
        if page is None:
            return AdminResponse(404, _TEXT, f"Try {', '.join(self._pages)}.\n".encode())
        return page(parse_qs(target_parts.query, keep_blank_values=True), accept)

    def _health(self) -> AdminResponse:
        status, body = probes.health(self._checks)
        return AdminResponse(status, "application/json", msgspec.json.encode(body))

    def _scrape(self, accept: str) -> AdminResponse:
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that it cannot compare
            encode, content_type = choose_encoder("")
        return AdminResponse(200, content_type, encode(self._metrics))


def _probe(report: ProbeReport, query: dict[str, list[str]]) -> AdminResponse:
    """Answer like Kubernetes' own probes: `ok`, or every line on `?verbose` and on failure."""
    verbose = "verbose" in query or report.status != HTTPStatus.OK
    text = "\n".join(report.lines) if verbose else "ok"
    return AdminResponse(report.status, _TEXT, f"{text}\n".encode())


def listen(host: str, port: int) -> socket.socket:
    """Bind the admin port; port 0 takes a free one. Raises OSError when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)


class AdminServer:
    """Serve an Admin over HTTP/1.0, a thread for each connection, from a daemon thread."""

    def __init__(
        self, listener: socket.socket, admin: Admin, *, request_s: float = REQUEST_S
    ) -> None:
        """Take the socket to accept from, and how long a request may take."""
        self._server = _Server(listener, admin, request_s)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.5},
            daemon=True,
            name="admin",
        )

    @property
    def port(self) -> int:
        """The port listened on."""
        port: int = self._server.socket.getsockname()[1]
        return port

    def start(self) -> None:
        """Answer requests from now on, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(REQUEST_S)


class _Server(TCPServer):
    """TCPServer and not HTTPServer: that one asks the DNS for its own name while it binds."""

    def __init__(self, listener: socket.socket, admin: Admin, request_s: float) -> None:
        handler = _handler(admin, request_s)
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._request_s = request_s
        self._open: dict[socket.socket, float] = {}
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._open) >= CONNECTIONS:
                _cut_off(min(self._open, key=self._open.__getitem__))
            self._open[request] = time.monotonic()
        threading.Thread(
            target=self._serve, args=(request, client_address), daemon=True, name="admin-request"
        ).start()

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # the client disconnected, or was disconnected
        finally:
            with self._lock:
                self._open.pop(request, None)
            self.shutdown_request(request)

    def service_actions(self) -> None:
        """Disconnect slow clients; called twice a second by serve_forever."""
        oldest_s = time.monotonic() - self._request_s
        with self._lock:
            for connection, began_at in self._open.items():
                if began_at < oldest_s:
                    _cut_off(connection)


def _cut_off(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _handler(admin: Admin, request_s: float) -> type[BaseRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = request_s

        def do_GET(self) -> None:
            answer = admin.answer(self.path, self.headers.get("Accept", ""))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_HEAD = do_GET  # noqa: N815 http.server looks for this name

        def version_string(self) -> str:
            return "orders"

        def log_message(self, *_: object) -> None:
            """Probes come every few seconds: no line for each."""

    return Handler
