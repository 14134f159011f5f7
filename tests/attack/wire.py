"""Requests as bytes, and the answers to them."""

import re
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from fuzz import driver

HOST: Final = "127.0.0.1"
WITHIN_S: Final = 20.0
_FIRST_S, _NEXT_S = 5.0, 0.02  # for the first answer, and for one more
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


class NoAnswer(Exception):
    """The server closed, or stayed silent, instead of answering a request that was whole."""


class Answer(NamedTuple):
    """A response that is not of the 1xx class."""

    status: int
    head: bytes
    body: bytes


def request(method: str, target: str, fields: Iterable[str | bytes], body: bytes = b"") -> bytes:
    """Write a request down, with a length where it has a body; fields are whole lines."""
    lines = [f"{method} {target} HTTP/1.1".encode("latin-1", "replace"), b"Host: orders.example"]
    lines += [field if isinstance(field, bytes) else field.encode("latin-1") for field in fields]
    if body or method == "POST":
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Wire:
    """A kept connection, opened again once the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def ask(self, message: bytes) -> Answer:
        """Send a request that is whole and return its answer. Raises NoAnswer."""
        reused = self._socket is not None
        try:
            return self._exchange(message)
        except (OSError, NoAnswer) as error:
            self.close()
            if reused:  # a server may close a kept connection at any time
                return self.ask(message)
            raise NoAnswer(repr(error)) from None

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _exchange(self, message: bytes) -> Answer:
        if self._socket is None:
            self._socket = connect(self._port)
        with suppress(BrokenPipeError, ConnectionResetError):  # answered before the end of a body
            self._socket.sendall(message)
        answer = _read(self._socket, head_only=message.startswith(b"HEAD "))
        if b"\r\nconnection: close" in answer.head.lower():
            self.close()
        return answer


def connect(port: int, source: str = HOST) -> socket.socket:
    """Open a connection, optionally from another loopback address."""
    connection = socket.create_connection((HOST, port), WITHIN_S, source_address=(source, 0))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def statuses(port: int, pieces: Sequence[bytes]) -> list[int]:
    """Send bytes that may be anything, end sending, and return the statuses of all answers."""
    with connect(port) as connection:
        answer = driver.exchange(connection, pieces)
    return [int(status) for status in _STATUS.findall(answer)]


def answers(port: int, message: bytes) -> list[int]:
    """Send bytes, keep the connection open, and return the statuses of all answers.

    Who ends sending is taken for one that has gone, and gets fewer answers than requests.
    """
    received = b""
    with connect(port) as connection:
        connection.sendall(message)
        connection.settimeout(_FIRST_S)
        with suppress(TimeoutError, ConnectionResetError):
            while block := connection.recv(65_536):
                received += block
                connection.settimeout(_NEXT_S)
    return [int(status) for status in _STATUS.findall(received)]


def _read(connection: socket.socket, *, head_only: bool) -> Answer:
    received = b""
    while True:
        head, separator, rest = received.partition(b"\r\n\r\n")
        if separator and not head.startswith(b"HTTP/1.1 100"):
            break
        if separator:  # interim
            received = rest
            continue
        received += _more(connection)
    status = int(head[9:12])
    length = _LENGTH.search(head)
    if head_only or status in (204, 304) or length is None:
        return Answer(status, head, b"")
    while len(rest) < int(length[1]):
        rest += _more(connection)
    return Answer(status, head, rest)


def _more(connection: socket.socket) -> bytes:
    block = connection.recv(65_536)
    if not block:
        raise NoAnswer("closed")
    return block
