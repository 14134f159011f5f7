"""One HTTP exchange with an upstream, which always ends at its deadline.

urllib3's timeouts apply to each socket operation, so a server that sends a byte now and then can
keep a caller waiting for ever. Resolving a name has no timeout at all. Therefore the exchange runs
on a separate thread, and the caller waits for it until the deadline. Then the caller shuts the
socket down, which ends the thread, too.
"""

import contextlib
import datetime as dt
import email.utils
import enum
import os
import queue
import socket
import stat
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast
from urllib.parse import unquote

import certifi
import msgspec
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from orders import verified
from orders.upstream.addresses import AddressRefused, AllowedAddresses
from orders.upstream.credential import ClientCertificate

T_co = TypeVar("T_co", covariant=True)

RETRY_AFTER_LIMIT_S: Final = 3600.0  # beyond every deadline and retry tier


class CallOutcome(enum.StrEnum):
    """How a call ended: the label of its metric."""

    SUCCESS = "success"
    REFUSED = "refused"  # a definite refusal (4xx)
    DENIED = "denied"  # our access or route is wrong; the order waits until that is repaired
    TIMEOUT = "timeout"
    CONNECTION_ERROR = "connection_error"
    SERVER_ERROR = "server_error"
    THROTTLED = "throttled"
    INVALID_ANSWER = "invalid_answer"
    ADDRESS_REFUSED = "address_refused"  # a receiver of webhooks may not have this address
    CIRCUIT_OPEN = "circuit_open"
    BULKHEAD_FULL = "bulkhead_full"


class TryFailed(Exception):
    """Try again if the outcome allows it: no reliable answer came; `outcome` says why."""

    def __init__(
        self, outcome: CallOutcome, detail: str = "", *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{outcome}: {detail}" if detail else outcome)
        self.outcome, self.retry_after_s = outcome, retry_after_s


class HttpRequest(msgspec.Struct, frozen=True):
    """A request to send. `template` is the path without ids, for spans and log lines."""

    method: str
    path: str
    template: str
    body: bytes | None = None
    headers: Mapping[str, str] = {}  # beyond the ones every request has


class HttpResponse(msgspec.Struct, frozen=True):
    """An upstream's response, with its whole body in memory."""

    status: int
    body: bytes
    retry_after_s: float | None = None


class Call(NamedTuple, Generic[T_co]):
    """A request, and the function that reads its answer.

    `read` raises InvalidAnswer if it cannot understand it, and Permanent for a definite refusal.
    """

    request: HttpRequest
    read: Callable[[HttpResponse], T_co]


class UpstreamConnection(NamedTuple):
    """A connection for one caller, with the path prefix and header fields of every request."""

    connection: HTTPConnection
    base: str  # prefix of every path
    headers: Mapping[str, str]


class Transport:
    """A pool of connections to one upstream. Make it after fork; any thread may use it."""

    def __init__(
        self,
        url: str,
        concurrency: int,
        response_limit_bytes: int,
        addresses: AllowedAddresses | None = None,
        certificate: ClientCertificate | None = None,
    ) -> None:
        self._limit_bytes = response_limit_bytes
        base = urllib3.util.parse_url(url.rstrip("/"))
        self._base = base.request_uri.rstrip("/")
        self._headers = _authorization(base.auth)
        self._pool = _pool(base, concurrency)
        self._pool.conn_kw["addresses"] = addresses
        if certificate is not None:
            self._pool.conn_kw["certificate"] = certificate
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="upstream")

    def close(self) -> None:
        """Close idle connections and let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pool.close()

    def connect(self, timeout_s: float) -> "Future[UpstreamConnection]":
        """Begin to open a connection for one caller; the future raises TryFailed."""
        return self._threads.submit(self._open_connection, timeout_s)

    def _open_connection(self, timeout_s: float) -> UpstreamConnection:
        connection = cast("HTTPConnection", self._pool._new_conn())  # noqa: SLF001 it knows the TLS
        connection.timeout = timeout_s
        try:
            connection.connect()
        except AddressRefused as error:
            raise TryFailed(CallOutcome.ADDRESS_REFUSED, str(error)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            connection.close()
            raise TryFailed(CallOutcome.CONNECTION_ERROR, error_text(error)) from error
        host = connection.host if ":" not in connection.host else f"[{connection.host}]"
        is_default_port = connection.port == connection.default_port
        field = host if is_default_port else f"{host}:{connection.port}"
        return UpstreamConnection(connection, self._base, {"Host": field, **self._headers})

    def send(
        self,
        request: HttpRequest,
        headers: Mapping[str, str],
        timeout_s: float,
        on_end: Callable[[], None],
    ) -> HttpResponse:
        """Exchange once, within the time. Raises TryFailed.

        `on_end` is called when the exchange has really ended, perhaps after this has returned.
        """
        exchange = _Exchange()

        def run() -> HttpResponse:
            try:
                _thread.exchange = exchange
                return self._exchange(exchange, request, headers, timeout_s)
            finally:
                on_end()

        try:
            return self._threads.submit(run).result(timeout_s)
        except TimeoutError:
            exchange.abort()
            raise TryFailed(CallOutcome.TIMEOUT, f"no answer within {timeout_s:.3g} s") from None
        except KeyboardInterrupt:
            exchange.abort()  # the process cannot end before its threads
            raise

    def _exchange(
        self,
        exchange: "_Exchange",
        request: HttpRequest,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> HttpResponse:
        try:
            try:
                return self._read(self._send_request(request, headers, timeout_s))
            except _ClosedUnused:
                if exchange.aborted:
                    raise
            self._close_idle()  # idle for as long, so the server has closed them, too
            return self._read(self._send_request(request, headers, timeout_s))
        except AddressRefused as error:
            raise TryFailed(CallOutcome.ADDRESS_REFUSED, str(error)) from error
        except urllib3.exceptions.NewConnectionError as error:  # refused: a timeout to urllib3
            raise TryFailed(CallOutcome.CONNECTION_ERROR, error_text(error)) from error
        except urllib3.exceptions.TimeoutError as error:
            raise TryFailed(CallOutcome.TIMEOUT, error_text(error)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TryFailed(CallOutcome.CONNECTION_ERROR, error_text(error)) from error

    def _send_request(
        self, request: HttpRequest, headers: Mapping[str, str], timeout_s: float
    ) -> urllib3.BaseHTTPResponse:
        return self._pool.urlopen(
            request.method,
            self._base + request.path,
            request.body,
            {**self._headers, **headers},
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=timeout_s,
            preload_content=False,
            decode_content=False,
        )

    def _close_idle(self) -> None:
        idle = self._pool.pool
        with contextlib.suppress(queue.Empty):
            while idle is not None:
                if (connection := idle.get(block=False)) is not None:
                    connection.close()

    def _read(self, response: urllib3.BaseHTTPResponse) -> HttpResponse:
        try:
            body = self._body(response)
        except BaseException:
            response.close()  # else the rest of this answer would become the start of the next one
            raise
        finally:
            response.release_conn()
        return HttpResponse(
            response.status, body, retry_after_s(response.headers.get("Retry-After", ""))
        )

    def _body(self, response: urllib3.BaseHTTPResponse) -> bytes:
        body = bytearray()
        # Not `read(limit)`: it returns a body that was cut short as if it were complete.
        for chunk in response.stream(self._limit_bytes + 1, decode_content=False):
            body += chunk
            if len(body) > self._limit_bytes:
                raise TryFailed(CallOutcome.INVALID_ANSWER, f"more than {self._limit_bytes} bytes")
        return bytes(body)


def retry_after_s(field: str) -> float | None:
    """Read `Retry-After`: seconds, or a date. Anything else is ignored."""
    value = field.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), RETRY_AFTER_LIMIT_S)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError, IndexError):  # a year or a zone beyond all dates
        return None
    wait = date.replace(tzinfo=date.tzinfo or dt.UTC) - dt.datetime.now(dt.UTC)
    return min(max(wait.total_seconds(), 0.0), RETRY_AFTER_LIMIT_S)


def error_text(error: Exception) -> str:
    """Return an error's class, or advice if there is any. urllib3's texts contain addresses."""
    if (advice := verified.advice(error, verified.OF_REQUESTS)) is not None:
        return advice
    cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    return type(getattr(cause, "reason", None) or cause).__name__


class _ClosedUnused(urllib3.exceptions.ProtocolError):
    """Send it again: the server closed a kept connection while the request was on its way.

    That says nothing about the upstream, and each call is idempotent.
    """


class _Exchange:
    """The socket of an exchange, known once the thread waits for the answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.aborted = False
        self._socket: socket.socket | None = None

    def uses(self, sock: socket.socket) -> None:
        """Remember the socket; if the deadline has passed already, shut it down at once."""
        with self._lock:
            self._socket = sock
            if self.aborted:
                _shut_down(sock)

    def abort(self) -> None:
        """Make the thread's next read fail."""
        with self._lock:
            self.aborted = True
            if self._socket is not None:
                _shut_down(self._socket)


def _shut_down(sock: socket.socket) -> None:
    # The plain socket's method: SSLSocket's also drops TLS state that another thread is using.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Thread(threading.local):
    exchange: _Exchange | None = None


_thread: Final = _Thread()


class _HTTPConnection(HTTPConnection):
    _kept = False  # whether it has brought an answer before

    def __init__(
        self, *args: Any, addresses: AllowedAddresses | None = None, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._addresses = addresses

    def connect(self) -> None:
        self._kept = False
        super().connect()

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override] # as urllib3 itself
        if _thread.exchange is not None and self.sock is not None:
            _thread.exchange.uses(self.sock)
        try:
            response = super().getresponse()
        except ConnectionError as error:
            if self._kept:
                raise _ClosedUnused(error) from error
            raise
        self._kept = True
        return response

    def _new_conn(self) -> socket.socket:
        """Connect to an address that was checked: a second look-up could return another one.

        Host, SNI and the check of the certificate still use the name.
        """
        if self._addresses is None:
            return super()._new_conn()
        name = self._dns_host
        addresses = self._look_up(self._addresses)
        try:
            return self._first_to_connect(addresses)
        finally:
            self._dns_host = name

    def _look_up(self, allowed: AllowedAddresses) -> list[str]:
        try:
            return allowed.look_up(self._dns_host, self.port)
        except socket.gaierror as error:
            raise urllib3.exceptions.NameResolutionError(self.host, self, error) from error
        except UnicodeError as error:  # a label of more than 63 characters
            raise urllib3.exceptions.LocationParseError(self.host) from error

    def _first_to_connect(self, addresses: list[str]) -> socket.socket:
        for address in addresses[:-1]:
            self._dns_host = address
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                return super()._new_conn()
        self._dns_host = addresses[-1]
        return super()._new_conn()


class _HTTPSConnection(_HTTPConnection, HTTPSConnection):
    def __init__(
        self, *args: Any, certificate: ClientCertificate | None = None, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._certificate = certificate

    def connect(self) -> None:
        """Connect with the current certificate: urllib3 reconnects with the same object."""
        if self._certificate is not None:
            self.ssl_context = self._certificate.context()
        super().connect()


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def _pool(base: urllib3.util.Url, concurrency: int) -> urllib3.HTTPConnectionPool:
    """Return the pool of a server, whose connections report their socket to `_Exchange`.

    REQUESTS_CA_BUNDLE names the CAs, as for requests: a file or a folder. Raises OSError.
    """
    if base.scheme != "https":
        return _HTTPPool(base.host or "", base.port or 80, maxsize=concurrency)
    authorities = os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()
    folder = stat.S_ISDIR(Path(authorities).stat().st_mode)  # raises if there is none
    return _HTTPSPool(
        base.host or "",
        base.port or 443,
        maxsize=concurrency,
        cert_reqs="CERT_REQUIRED",
        ca_certs=None if folder else authorities,
        ca_cert_dir=authorities if folder else None,
    )


def _authorization(credentials: str | None) -> dict[str, str]:
    """Return the header field for `user:password` of a URL; none for a user alone."""
    if credentials is None or ":" not in credentials:
        return {}
    field = urllib3.util.make_headers(basic_auth=unquote(credentials))["authorization"]
    return {"Authorization": field}  # the name of a credential's, which replaces it
