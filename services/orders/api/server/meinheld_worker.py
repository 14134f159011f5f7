"""A gunicorn worker class over meinheld's C server.

meinheld has its own worker class, which does not work with today's gunicorn:

- It replaces methods of gunicorn's `Logger`, so the master dies with a killed worker.
- It sends a heartbeat that gunicorn no longer reads, so a hung handler is never killed.
- It ignores `max_requests`.

Therefore this class uses only `meinheld.server`.

Without greenlet, meinheld silently cuts an answer off when the socket's send buffer is full. We
measured that with a client that waits before it reads. The limit was 3.9 MB on the loopback device,
203 KB with 1460-byte segments, and 47 KB with a small receive window as well. So large bodies are
sent in slices, at the speed of the client.

Source: meinheld 1.0.2 `meinheld/server/*.c`, gunicorn 27 `workers/base.py`, `arbiter.py`.
"""

import logging
import os
import resource
import select
import socket
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from gunicorn.workers.base import Worker
from meinheld import server
from prometheus_client import Counter

from orders.api.server import overlap
from orders.api.server.connections import idle_for, open_connections, shut_for_reading

# Above this size meinheld answers 413 as HTML. Below it, the application answers as problem+json.
# Smaller bodies stay in memory. meinheld would write larger ones to a tmpfile() without checks.
MAX_BODY_BYTES = 1024 * 1024
# meinheld reserves 24 bytes for each possible descriptor, and stops serving without a free one.
MAX_DESCRIPTORS = 65_536
_abandoned = Counter(
    "http_server_abandoned_requests_total",
    "Requests that were not worked on because their client had gone.",
)
# A stopping worker keeps idle connections this long, for a request already on its way.
# gunicorn's own gthread waits as long.
LINGER_S = 2.0
# An empty send buffer took this much in the worst case measured, with room for the headers.
WHOLE_BYTES = 32 * 1024
# poll() calls a socket writable when a third of its buffer is free.
SLICE_BYTES = 8 * 1024
# Longest time in total that a slow client may make the process wait before it is cut off.
SEND_TIMEOUT_S = 3.0


class MeinheldWorker(Worker):  # type: ignore[misc] # gunicorn ships no types
    """Serve requests from meinheld's event loop, one at a time; only POSTs may overlap."""

    alive: bool

    def run(self) -> None:
        """Serve until a signal, `max_requests` or the master's death ends it."""
        self._drain_from = 0.0
        _limit_descriptors()
        server.set_access_logger(None)
        server.set_error_logger(_ErrorLog(self.log))
        server.set_keepalive(self.cfg.keepalive)
        server.set_max_content_length(MAX_BODY_BYTES)
        server.set_client_body_buffer_size(MAX_BODY_BYTES)
        server.set_watchdog(self.beat)
        server.set_listen_socket([listener.fileno() for listener in self.sockets])
        # run() installs C signal handlers that stop at once. The loop then installs ours.
        server.schedule_call(0, self.init_signals)
        server.run(self._application(), silent=True)
        for listener in self.sockets:
            listener.detach()  # run() has closed it, and another file may have its number

    def _application(self) -> Any:
        wsgi = self.wsgi

        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            return paced(wsgi(environ, start_response), environ)

        def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            client = environ["meinheld.client"]
            if client.has_gone():
                _abandon(client)
                return []
            self.nr += 1
            if self.nr == self.max_requests:
                self.log.info(
                    "Worker %s served %d requests: making room for a new one.", self.pid, self.nr
                )
                self.drain()
            # Only POSTs wait for commits, so only they need a greenlet.
            if environ["REQUEST_METHOD"] == "POST":
                return overlap.call(answer, environ, start_response)
            return answer(environ, start_response)

        return call

    def beat(self) -> None:
        """Tell the master that the loop is alive; called once a second, between requests."""
        self.notify()
        if self.ppid != os.getppid():
            self.drain()
        if self._drain_from and time.monotonic() - self._drain_from >= LINGER_S:
            self._close_idle(LINGER_S)

    def drain(self) -> None:
        """Accept no more connections, answer the open requests with `Connection: close`, end."""
        if not self.alive:
            return  # a second server.stop() would count the open connections wrongly
        self.alive = False
        self._drain_from = time.monotonic()
        server.set_keepalive(0)
        server.stop(max(1, int(self.cfg.graceful_timeout)))

    def _close_idle(self, idle_s: float) -> None:
        for connection in open_connections(self.sockets):
            with connection:
                if idle_for(connection, idle_s):
                    shut_for_reading(connection)

    def handle_exit(self, _sig: int, _frame: FrameType | None) -> None:
        """SIGTERM: finish the requests under way."""
        self.drain()

    def handle_quit(self, _sig: int, _frame: FrameType | None) -> None:
        """SIGINT, SIGQUIT: finish at most the request being handled.

        Raising an exception would not end the process: in a handler it becomes a 500.
        """
        self.cfg.worker_int(self)
        if self.alive:
            self.alive = False
            server.stop(1)
            self._close_idle(0)

    def handle_abort(self, _sig: int, frame: FrameType | None) -> None:
        """SIGABRT, from the master after `timeout` without a beat: log where it hangs, and exit."""
        self.cfg.worker_abort(self)
        self.log.critical(
            "Worker %s hangs at:\n%s", self.pid, "".join(traceback.format_stack(frame))
        )
        logging.shutdown()
        os._exit(1)


def _abandon(client: Any) -> None:
    """Close the connection of a client that has gone, without an answer.

    A request may have waited in the kernel behind others. The gateway closes its connection when
    its client does. A client that only shuts its sending side counts as gone, too; no proxy does
    that.
    """
    client.set_closed(1)
    _abandoned.inc()


class _ErrorLog:
    """Logs exceptions that left the application; meinheld calls it."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def error(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        self._log.error("The application raised.", exc_info=(kind, error, trace))


def _limit_descriptors() -> None:
    """Give the process's limit and meinheld's table one size: it writes beyond a smaller table."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    server.set_picoev_max_fd(limit)


def paced(body: Iterable[bytes], environ: WSGIEnvironment) -> Iterable[bytes]:
    """Return the body; a large one, or one of unknown size, in slices that wait for the client."""
    if type(body) is list and sum(map(len, body)) <= WHOLE_BYTES:
        return body
    return _Slices(body, environ["meinheld.client"].get_fd())


class _Slices:
    """Iterate over a body in slices; `close` closes the body, as WSGI asks."""

    def __init__(self, body: Iterable[bytes], descriptor: int) -> None:
        self._body = body
        self._descriptor = descriptor

    def __iter__(self) -> Iterator[bytes]:
        deadline = time.monotonic() + SEND_TIMEOUT_S
        for block in self._body:
            view = memoryview(block)
            for start in range(0, len(view), SLICE_BYTES):
                self._wait_for_room(deadline)
                yield bytes(view[start : start + SLICE_BYTES])

    def close(self) -> None:
        close: Any = getattr(self._body, "close", None)
        if close is not None:
            close()

    def _wait_for_room(self, deadline: float) -> None:
        room = select.poll()
        room.register(self._descriptor, select.POLLOUT)
        if not room.poll(max(0.0, deadline - time.monotonic()) * 1000):
            self._cut_off()

    def _cut_off(self) -> None:
        """Shut the connection down: meinheld would send the next answer into this body."""
        with suppress(OSError), socket.socket(fileno=self._descriptor) as connection:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            finally:
                connection.detach()
        raise TimeoutError(f"The client did not take its answer within {SEND_TIMEOUT_S:g} s.")
