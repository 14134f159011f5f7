"""Makes many calls at once on one thread; `Upstream.call` takes a thread for each try.

Each call has the tries, waits, deadlines, breaker, bulkhead, spans and metrics of `Upstream.call`.
One thread sends on kept connections and reads what has arrived, so no thread waits for a single
call. The upstream's threads open the connections, because a look-up or a handshake may take long.
"""

import collections
import contextlib
import functools
import heapq
import itertools
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, Generic, NamedTuple, TypeVar

import structlog

from orders.errors import Permanent
from orders.telemetry import tracing
from orders.upstream import answer
from orders.upstream.http import Upstream, breaks
from orders.upstream.transport import (
    Call,
    CallOutcome,
    HttpRequest,
    HttpResponse,
    TryFailed,
    UpstreamConnection,
    error_text,
    retry_after_s,
)

Token = TypeVar("Token")
Run = Callable[..., Any]  # runs a function in the context of the message that it works for

_READ_BYTES: Final = 65_536
_log = structlog.get_logger()


class CallResult(NamedTuple, Generic[Token]):
    """How a call ended: the result of `read`, or the error that `Upstream.call` would raise.

    Any other error says nothing about the call: repeat it with `Upstream.call`.
    """

    token: Token
    result: Any
    error: Exception | None


class _Pending(Generic[Token]):
    """A call without an answer so far."""

    __slots__ = (
        "admission", "again_s", "block", "call", "deadline_s", "due", "queue", "resent", "run",
        "sent_s", "span", "started_s", "token", "tries", "turn",
    )  # fmt: skip

    def __init__(self, token: Token, call: Call[Any], run: Run, queue: "_CallQueue[Token]") -> None:
        self.token, self.call, self.run, self.queue = token, call, run, queue
        self.tries = 0
        self.admission: object = None
        self.block: Any = None
        self.span: Any = None
        self.started_s = self.deadline_s = 0.0
        # When this try was sent, 0 while it waits for a connection; and when the next one is due.
        self.sent_s = 0.0
        self.again_s: float | None = None
        self.due = self.turn = 0
        self.resent = False


class _Connection(Generic[Token]):
    """A connection, and the call whose answer it waits for.

    `kept`: the connection was idle before this call, so the server may have closed it.
    """

    __slots__ = ("begin", "http", "kept", "pending", "queue", "received", "sock")

    def __init__(self, http: UpstreamConnection, queue: "_CallQueue[Token]") -> None:
        sock: socket.socket = http.connection.sock
        sock.setblocking(False)
        self.http, self.sock, self.queue = http, sock, queue
        self.pending: _Pending[Token] | None = None
        self.received = b""
        self.kept = False
        self.begin = "".join(f"{name}: {value}\r\n" for name, value in http.headers.items())

    def is_dead(self) -> bool:
        """Return whether the server closed an idle connection, or sent data without a request."""
        try:
            self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False  # TLS may have received a record without data
        except OSError:
            return True
        return True

    def request(self, request: HttpRequest, headers: dict[str, str]) -> bytes:
        """Return the bytes of a request."""
        body = request.body or b""
        length = f"Content-Length: {len(body)}\r\n" if request.body is not None else ""
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = f"{request.method} {self.http.base}{request.path} HTTP/1.1\r\n{self.begin}{fields}"
        if fields.count("\n") != len(headers):
            raise ValueError("a header field has a line break")
        return f"{head}Accept-Encoding: identity\r\n{length}\r\n".encode("latin-1") + body


class _CallQueue(Generic[Token]):
    """One upstream: its connections, and the calls that wait for one."""

    def __init__(self, upstream: Upstream, width: int) -> None:
        self.upstream, self.width = upstream, width
        self.waiting: collections.deque[_Pending[Token]] = collections.deque()
        self.idle: list[_Connection[Token]] = []
        self.open = self.connecting = 0


class ParallelCalls(Generic[Token]):
    """Calls under way. One thread uses it; any thread may `wake` it.

    At most `width` calls to one upstream are in flight; the others wait.
    """

    def __init__(self, width: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._width, self._clock = width, clock
        self._queues: dict[str, _CallQueue[Token]] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._selector.register(self._wake_receiver, selectors.EVENT_READ, None)
        self._futures: collections.deque[tuple[_CallQueue[Token], Future[UpstreamConnection]]] = (
            collections.deque()
        )
        self._due: list[tuple[float, int, _Pending[Token]]] = []
        self._number = itertools.count(1)
        self._ended: list[CallResult[Token]] = []
        self._connections: set[_Connection[Token]] = set()
        self._lock = threading.Lock()
        self._closed = self._rung = False
        self._turn = self.fresh = 0

    def begin(self, token: Token, upstream: Upstream, call: Call[Any], run: Run) -> None:
        """Begin a call; `wait` returns its result with `token`."""
        queue = self._queues.get(upstream.name)
        if queue is None:
            queue = self._queues[upstream.name] = _CallQueue(upstream, self._width)
        pending = _Pending(token, call, run, queue)
        pending.started_s = self._clock()
        pending.deadline_s = pending.started_s + upstream.policy.deadline_s
        pending.turn = self._turn
        self.fresh += 1
        self._queue(pending)

    def wait(self, timeout_s: float | None) -> list[CallResult[Token]]:
        """Wait for a call to end or a `wake`, at most `timeout_s`; return the calls that ended."""
        if self._ended:
            timeout_s = 0
        elif self._due:
            left_s = max(0.0, self._due[0][0] - self._clock())
            timeout_s = left_s if timeout_s is None else min(timeout_s, left_s)
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                self._read_wake_ups()
            elif key.data in self._connections:  # not dropped after it became readable
                self._read(key.data)
        while self._futures:
            self._add_connection(*self._futures.popleft())
        self._run_timers()
        answers, self._ended = self._ended, []
        return answers

    def wake(self) -> None:
        """Let `wait` return. Thread-safe."""
        if not self._rung:
            self._rung = True
            with contextlib.suppress(OSError):
                self._wake_sender.send(b"\0")

    def new_turn(self) -> None:
        """From now on `fresh` counts only calls that begin after this and have not ended."""
        self._turn += 1
        self.fresh = 0

    def close(self) -> None:
        """Close every connection, also those whose calls wait for an answer."""
        with self._lock:
            self._closed = True
        for connection in list(self._connections):
            pending = connection.pending
            self._drop(connection)
            if pending is not None:
                self._end_without_verdict(pending)
        while self._futures:
            self._add_connection(*self._futures.popleft())
        self._selector.close()
        self._wake_receiver.close()
        self._wake_sender.close()

    def _read_wake_ups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_receiver.recv(_READ_BYTES):
                pass
        # Reset only after the bytes are read: otherwise a byte read here could stop the next `wake`
        # from writing one. Work of an earlier `wake` is found after this wait.
        self._rung = False

    # -- connections ----------------------------------------------------------------------

    def _queue(self, pending: _Pending[Token]) -> None:
        queue, pending.tries = pending.queue, pending.tries + 1
        pending.sent_s, pending.again_s = 0.0, None
        self._expect(pending, self._clock() + queue.upstream.policy.try_timeout_s)
        queue.waiting.append(pending)
        self._serve(queue)

    def _serve(self, queue: _CallQueue[Token]) -> None:
        """Give connections to the calls that wait, and open more if there are too few."""
        while queue.waiting and queue.idle:
            connection = queue.idle.pop()
            if connection.kept and connection.is_dead():
                self._drop(connection)
            else:
                self._send(queue.waiting.popleft(), connection)
        room = queue.width - queue.open - queue.connecting
        for _ in range(min(room, len(queue.waiting) - queue.connecting)):
            queue.connecting += 1
            future = queue.upstream.connect()
            future.add_done_callback(functools.partial(self._note, queue))

    def _note(self, queue: _CallQueue[Token], future: "Future[UpstreamConnection]") -> None:
        with self._lock:
            if not self._closed:
                self._futures.append((queue, future))
                self.wake()
                return
        with contextlib.suppress(Exception):
            future.result().connection.close()

    def _add_connection(
        self, queue: _CallQueue[Token], future: "Future[UpstreamConnection]"
    ) -> None:
        queue.connecting -= 1
        try:
            connection = _Connection(future.result(), queue)
        except Exception as error:  # noqa: BLE001 any error means that there is no connection
            self._fail_connect(queue, error)
            return
        if self._closed:
            connection.http.connection.close()
            return
        queue.open += 1
        self._connections.add(connection)
        self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        queue.idle.append(connection)
        self._serve(queue)
        # Only now: else we would reconnect for ever to a server that closes each new connection.
        connection.kept = connection.pending is None

    def _fail_connect(self, queue: _CallQueue[Token], error: Exception) -> None:
        failure = error
        if not isinstance(failure, TryFailed):
            failure = TryFailed(CallOutcome.CONNECTION_ERROR, type(error).__name__)
        if queue.waiting:
            pending = queue.waiting.popleft()
            if self._admit(pending):
                queue.upstream.release()
                self._fail_try(pending, failure)
        self._serve(queue)

    def _keep(self, connection: _Connection[Token]) -> None:
        connection.kept = True
        connection.queue.idle.append(connection)

    def _drop(self, connection: _Connection[Token]) -> None:
        self._connections.discard(connection)
        connection.queue.open -= 1
        if connection.pending is None and connection in connection.queue.idle:
            connection.queue.idle.remove(connection)
        self._selector.unregister(connection.sock)
        connection.http.connection.close()

    # -- one try --------------------------------------------------------------------------

    def _admit(self, pending: _Pending[Token]) -> bool:
        try:
            pending.admission = pending.queue.upstream.admit()
        except TryFailed as error:
            pending.sent_s = self._clock()
            self._conclude(pending, error)
            return False
        pending.sent_s = self._clock()
        return True

    def _send(self, pending: _Pending[Token], connection: _Connection[Token]) -> None:
        queue, request = pending.queue, pending.call.request
        if not self._admit(pending):
            self._keep(connection)
            return
        connection.pending, connection.received = pending, b""
        upstream = queue.upstream
        self._expect(
            pending, min(pending.sent_s + upstream.policy.try_timeout_s, pending.deadline_s)
        )
        pending.block = pending.run(upstream.span, request, pending.tries)
        pending.span = pending.run(pending.block.__enter__)
        try:
            payload = connection.request(request, pending.run(upstream.fields, request))
            if connection.sock.send(payload) == len(payload):
                return
            failure = TryFailed(CallOutcome.CONNECTION_ERROR, "the request does not fit")
        except OSError as error:
            self._handle_close(connection, error_text(error))
            return
        except ValueError as error:
            failure = TryFailed(CallOutcome.CONNECTION_ERROR, type(error).__name__)
        self._fail_connection(connection, failure)

    def _read(self, connection: _Connection[Token]) -> None:
        try:
            data = connection.sock.recv(_READ_BYTES)
            while isinstance(connection.sock, ssl.SSLSocket) and connection.sock.pending():
                data += connection.sock.recv(_READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._handle_close(connection, error_text(error))
            return
        if not data or connection.pending is None:
            # The server closed the connection, or sent data without a request.
            self._handle_close(connection, "closed by the server")
            return
        connection.received += data
        self._take(connection, connection.pending)

    def _take(self, connection: _Connection[Token], pending: _Pending[Token]) -> None:
        limit_bytes = pending.queue.upstream.policy.response_limit_bytes
        try:
            complete = answer.answer(connection.received, limit_bytes)
        except answer.TooLong:
            failure = TryFailed(CallOutcome.INVALID_ANSWER, f"more than {limit_bytes} bytes")
            self._fail_connection(connection, failure)
            return
        except answer.NotUnderstood as error:
            # The caller asks again with `Upstream.call`, which reports to the breaker.
            self._drop(connection)
            self._end_without_verdict(pending)
            self._end(pending, None, error)
            self._serve(connection.queue)
            return
        if complete is None:
            return
        connection.pending = None
        if complete.kept:
            self._keep(connection)
        else:
            self._drop(connection)
        if pending.span is not None:
            pending.span.set_attribute("http.response.status_code", complete.status)
        self._understand(
            pending,
            HttpResponse(complete.status, complete.body, retry_after_s(complete.retry_after)),
        )
        self._serve(connection.queue)

    def _understand(self, pending: _Pending[Token], reply: HttpResponse) -> None:
        upstream = pending.queue.upstream
        try:
            result = upstream.understand(reply, pending.call)
        except TryFailed as error:
            self._leave(pending, failed=breaks(error))
            self._conclude(pending, error)
        except Permanent as error:
            self._leave(pending, failed=False)
            self._observe(pending, CallOutcome.REFUSED)
            self._end(pending, None, error)
        except Exception as error:  # noqa: BLE001 a bug must not end the thread or other calls
            _log.exception("upstream.answer_failed", upstream=upstream.name)
            self._leave(pending, failed=True)
            self._end(pending, None, error)
        else:
            self._leave(pending, failed=False)
            self._observe(pending, CallOutcome.SUCCESS)
            self._end(pending, result, None)

    def _fail_connection(self, connection: _Connection[Token], failure: TryFailed) -> None:
        """Close a connection that failed, and fail the call that waits for its answer."""
        pending = connection.pending
        self._drop(connection)
        if pending is not None:
            connection.pending = None
            pending.run(tracing.fail, pending.span, failure.outcome)
            self._leave(pending, failed=None)
            self._fail_try(pending, failure)
        self._serve(connection.queue)

    def _handle_close(self, connection: _Connection[Token], detail: str) -> None:
        """Close a connection that the server closed; send its call again on another one.

        Servers close idle connections at any time. If one does so while a request is on its way,
        that says nothing about the upstream. The call carries a key, so it may be sent twice.
        """
        pending = connection.pending
        if (
            pending is None
            or not connection.kept
            or connection.received
            or pending.resent
            or self._clock() >= pending.deadline_s
        ):
            self._fail_connection(connection, TryFailed(CallOutcome.CONNECTION_ERROR, detail))
            return
        queue, connection.pending = connection.queue, None
        self._drop(connection)
        # Idle for longer, so the server has closed them, too.
        for idle_connection in list(queue.idle):
            self._drop(idle_connection)
        pending.run(tracing.fail, pending.span, CallOutcome.CONNECTION_ERROR)
        self._end_without_verdict(pending)
        pending.resent, pending.sent_s = True, 0.0
        self._expect(pending, self._clock() + queue.upstream.policy.try_timeout_s)
        queue.waiting.appendleft(pending)
        self._serve(queue)

    def _end_without_verdict(self, pending: _Pending[Token]) -> None:
        """End a try that says nothing about the upstream."""
        self._leave(pending, failed=None)
        pending.queue.upstream.give_back(pending.admission)

    def _leave(self, pending: _Pending[Token], *, failed: bool | None) -> None:
        """End a try that was sent. With `failed` None, the caller reports to the breaker."""
        pending.queue.upstream.release()
        if pending.block is not None:
            pending.run(pending.block.__exit__, None, None, None)
            pending.block = pending.span = None
        if failed is not None:
            pending.queue.upstream.leave(pending.admission, failed=failed)

    def _fail_try(self, pending: _Pending[Token], failure: TryFailed) -> None:
        pending.queue.upstream.leave(pending.admission, failed=breaks(failure))
        self._conclude(pending, failure)

    # -- the end of a try -----------------------------------------------------------------

    def _conclude(self, pending: _Pending[Token], failure: TryFailed) -> None:
        """Try again later, or end the call."""
        upstream, request = pending.queue.upstream, pending.call.request
        wait_s = pending.run(
            upstream.again_in_s, request, failure, pending.tries, pending.deadline_s
        )
        if wait_s is None:
            self._observe(pending, failure.outcome)
            self._end(pending, None, upstream.final_error(request, pending.tries, failure))
            return
        self._uncount(pending)
        pending.again_s = self._clock() + wait_s
        self._expect(pending, pending.again_s)

    def _expect(self, pending: _Pending[Token], at_s: float) -> None:
        pending.due = next(self._number)  # cancels the earlier entry in `_due`
        heapq.heappush(self._due, (at_s, pending.due, pending))

    def _run_timers(self) -> None:
        now_s = self._clock()
        while self._due and self._due[0][0] <= now_s:
            _, number, pending = heapq.heappop(self._due)
            if pending.due != number:
                continue
            if pending.again_s is not None:
                self._queue(pending)
            elif not pending.sent_s:
                self._end_unsent(pending)
            else:
                self._time_out(pending)

    def _end_unsent(self, pending: _Pending[Token]) -> None:
        """End a call that found no connection in time, which says nothing about the upstream."""
        with contextlib.suppress(ValueError):
            pending.queue.waiting.remove(pending)
            error = TryFailed(CallOutcome.BULKHEAD_FULL, "no connection in time")
            self._observe(pending, error.outcome)
            self._end(
                pending,
                None,
                pending.queue.upstream.final_error(pending.call.request, pending.tries, error),
            )

    def _time_out(self, pending: _Pending[Token]) -> None:
        connection = next(
            (connection for connection in self._connections if connection.pending is pending), None
        )
        if connection is not None:
            timeout_s = pending.queue.upstream.policy.try_timeout_s
            self._fail_connection(
                connection, TryFailed(CallOutcome.TIMEOUT, f"no answer within {timeout_s:.3g} s")
            )

    def _observe(self, pending: _Pending[Token], outcome: CallOutcome) -> None:
        pending.run(pending.queue.upstream.observe, outcome, self._clock() - pending.started_s)

    def _end(self, pending: _Pending[Token], result: Any, error: Exception | None) -> None:
        self._uncount(pending)
        pending.due = 0  # cancels its entry in `_due`
        self._ended.append(CallResult(pending.token, result, error))

    def _uncount(self, pending: _Pending[Token]) -> None:
        if pending.turn == self._turn:
            self.fresh -= 1
        pending.turn = -1
