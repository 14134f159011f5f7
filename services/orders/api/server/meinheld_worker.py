"""A gunicorn worker class over meinheld's C server.

meinheld's own glue is broken with today's gunicorn: it replaces methods of gunicorn's `Logger` (the
master dies with a killed worker), sends a heartbeat gunicorn no longer reads (a hung handler is
never killed) and ignores `max_requests`. This class uses `meinheld.server` alone.

meinheld built without greenlet cuts an answer off, silently, as soon as the socket's send buffer is
full. Measured with a client that waits before it reads: 3.9 MB on the loopback device, 203 KB with
1460-byte segments, 47 KB with a small receive window besides. So large bodies are sent in slices,
at the speed of the client.

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

# Above this meinheld answers 413 itself, as HTML; below, the application does, as problem+json.
# Bodies stay in memory up to here: a spilled one would go through an unchecked tmpfile().
MAX_BODY_BYTES = 1024 * 1024
# meinheld keeps 24 bytes per possible descriptor, and stops serving when it runs out of them.
MAX_DESCRIPTORS = 65_536
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR
_hang_up = select.poll()
_abandoned = Counter(
    "http_server_abandoned_requests_total",
    "Requests that were not worked on because their client had gone.",
)
# A stopping worker keeps idle connections this long, for a request already on its way.
# gunicorn's own gthread waits as long.
LINGER_S = 2.0
# What an empty send buffer takes in the worst case measured, with room for the headers.
WHOLE_BYTES = 32 * 1024
# poll() calls a socket writable when a third of its buffer is free.
SLICE_BYTES = 8 * 1024
# How long a client may make the whole process wait for it, all in all, before it is cut off.
PATIENCE_S = 3.0


class MeinheldWorker(Worker):  # type: ignore[misc] # gunicorn ships no types
    """Serve requests from meinheld's event loop: one at a time, but for those that wait."""

    alive: bool

    def run(self) -> None:
        """Serve until told to stop, by a signal, by `max_requests` or by the master's death."""
        self._drain_from = 0.0
        _limit_descriptors()
        server.set_access_logger(None)
        server.set_error_logger(_ErrorLog(self.log))
        server.set_keepalive(self.cfg.keepalive)
        server.set_max_content_length(MAX_BODY_BYTES)
        server.set_client_body_buffer_size(MAX_BODY_BYTES)
        server.set_watchdog(self.beat)
        server.set_listen_socket([listener.fileno() for listener in self.sockets])
        # run() installs C signal handlers that stop without grace; ours go over them from inside.
        server.schedule_call(0, self.init_signals)
        server.run(self._application(), silent=True)
        for listener in self.sockets:
            listener.detach()  # closed by run(): its number may be another file's by now

    def _application(self) -> Any:
        wsgi = self.wsgi

        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            return paced(wsgi(environ, start_response), environ)

        def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if _is_gone(environ["meinheld.client"]):
                return []
            self.nr += 1
            if self.nr == self.max_requests:
                self.log.info(
                    "Worker %s served %d requests: making room for a new one.", self.pid, self.nr
                )
                self.drain()
            # Only what changes something waits for commits; the rest is not worth a greenlet.
            if environ["REQUEST_METHOD"] == "POST":
                return overlap.call(answer, environ, start_response)
            return answer(environ, start_response)

        return call

    def beat(self) -> None:
        """Tell the master that the loop turns; called once a second, between requests."""
        self.notify()
        if self.ppid != os.getppid():
            self.drain()
        if self._drain_from and time.monotonic() - self._drain_from >= LINGER_S:
            self._close_idle(LINGER_S)

    def drain(self) -> None:
        """Accept no more, answer what is under way with `Connection: close`, then end."""
        if not self.alive:
            return  # a second server.stop() would miscount the open connections
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

        An exception is no way out: raised in a handler it becomes a 500 and the loop goes on.
        """
        self.cfg.worker_int(self)
        if self.alive:
            self.alive = False
            server.stop(1)
            self._close_idle(0)

    def handle_abort(self, _sig: int, frame: FrameType | None) -> None:
        """SIGABRT, from the master after `timeout` without a beat: say where it hangs and die."""
        self.cfg.worker_abort(self)
        self.log.critical(
            "Worker %s hangs at:\n%s", self.pid, "".join(traceback.format_stack(frame))
        )
        logging.shutdown()
        os._exit(1)


def _is_gone(client: Any) -> bool:
    """Tell whether the client is gone, and then close without an answer.

    A request may have waited in the kernel behind others. The gateway closes its connection when
    its client does; one that only ends sending is not told apart, and no proxy does that.
    """
    descriptor = client.get_fd()
    _hang_up.register(descriptor, _GONE)
    hung_up = bool(_hang_up.poll(0))
    _hang_up.unregister(descriptor)
    if hung_up:
        client.set_closed(1)
        _abandoned.inc()
    return hung_up


class _ErrorLog:
    """What meinheld calls with an exception that left the application."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def error(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        self._log.error("The application raised.", exc_info=(kind, error, trace))


def _limit_descriptors() -> None:
    """Make the process's limit and meinheld's table agree: beyond the table is beyond memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    server.set_picoev_max_fd(allowed)


def paced(body: Iterable[bytes], environ: WSGIEnvironment) -> Iterable[bytes]:
    """Return the body, in slices that wait for room when it is large or of unknown size."""
    if type(body) is list and sum(map(len, body)) <= WHOLE_BYTES:
        return body
    return _Slices(body, environ["meinheld.client"].get_fd())


class _Slices:
    """Iterate over a body in slices; `close` closes the body, as WSGI asks."""

    def __init__(self, body: Iterable[bytes], descriptor: int) -> None:
        self._body = body
        self._descriptor = descriptor

    def __iter__(self) -> Iterator[bytes]:
        deadline = time.monotonic() + PATIENCE_S
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
        """Break the connection: meinheld would keep it and send the next answer into this body."""
        with suppress(OSError), socket.socket(fileno=self._descriptor) as connection:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            finally:
                connection.detach()
        raise TimeoutError(f"The client did not take its answer within {PATIENCE_S:g} s.")
