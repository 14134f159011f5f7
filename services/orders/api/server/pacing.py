"""Send large bodies at the speed of the client.

meinheld built without greenlet cuts an answer off, silently, as soon as the socket's send buffer is
full. Measured with a client that waits before it reads: 3.9 MB on the loopback device, 203 KB with
1460-byte segments, 47 KB with a small receive window besides.
"""

import select
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any
from wsgiref.types import WSGIEnvironment

# What an empty send buffer takes in the worst case measured, with room for the headers.
WHOLE_BYTES = 32 * 1024
# poll() calls a socket writable when a third of its buffer is free.
SLICE_BYTES = 8 * 1024
# How long a client may make the whole process wait for it, all in all, before it is cut off.
PATIENCE_S = 3.0


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
