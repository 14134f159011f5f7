"""Find the client connections of this process in the kernel, because meinheld hides them."""

import os
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

# `tcpi_last_data_recv` in struct tcp_info of linux/tcp.h: milliseconds.
_LAST_DATA_RECV = struct.Struct("=52xI")


def open_connections(listeners: Sequence[Any]) -> Iterator[socket.socket]:
    """Yield a duplicate of every accepted connection; the receiver closes it."""
    endpoints = {_endpoint(listener.getsockname()) for listener in listeners}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 numbers, not paths
        with suppress(OSError):  # closed meanwhile, or not a socket
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            candidate = socket.socket(fileno=os.dup(int(name)))
            listens = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if _endpoint(candidate.getsockname()) in endpoints and not listens:
                yield candidate
            else:
                candidate.close()


def idle_for(connection: socket.socket, seconds: float) -> bool:
    """Return whether no data came for `seconds`; a Unix socket always counts as idle."""
    if connection.family == socket.AF_UNIX:
        return True
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECV.size)
    last_data_ms: int = _LAST_DATA_RECV.unpack(info)[0]
    return last_data_ms >= seconds * 1000


def shut_for_reading(connection: socket.socket) -> None:
    """Let the server see an end of input.

    It then closes an idle connection, and answers 503 to an incomplete request. Complete requests
    are still read and answered.
    """
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)


def _endpoint(address: Any) -> Any:
    return address[1] if isinstance(address, tuple) else address
