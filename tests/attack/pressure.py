"""Floods and slow clients at a gateway, and how long others wait meanwhile."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from attack.targets import Target
from attack.wire import NoAnswer, Wire, connect, request

PROBES: Final = 20
_ADDRESSES: Final = 10  # of attackers: each address has limits of its own
_EVERY_S: Final = 0.05  # a misbehaving client sends more, and a probe follows the last one
_HOST: Final = b"Host: orders.example\r\n"
# What a misbehaving client sends at once, and then again and again.
_MISBEHAVIOUR: Final = {
    "nobody": (b"", b""),
    "silent connections": (b"", b""),
    "headers byte by byte": (b"GET /health HTTP/1.1\r\n" + _HOST + b"X: ", b"x"),
    "bodies byte by byte": (
        b"POST /api/orders HTTP/1.1\r\n" + _HOST + b"Content-Length: 60000\r\n\r\n", b"x"
    ),
    "requests, answers never read": (b"GET /openapi.json HTTP/1.1\r\n" + _HOST + b"\r\n", b""),
}  # fmt: skip


class Wait(NamedTuple):
    """A well-behaved client's longest wait, and how often it was not served."""

    longest_ms: float
    refused: int


def waits(target: Target, clients: int) -> dict[str, Wait]:
    """Return how a client fared beside so many that misbehave, by what they do."""
    return {
        name: _waited(target, 0 if name == "nobody" else clients, opening, more)
        for name, (opening, more) in _MISBEHAVIOUR.items()
    }


def _waited(target: Target, clients: int, opening: bytes, more: bytes) -> Wait:
    longest_s, refused = 0.0, 0
    wire, message = Wire(target.gateway_port), request("GET", "/api/orders/1", target.fields())
    with _crowd(target.gateway_port, clients, opening, more):
        for _ in range(PROBES):
            began_s = time.monotonic()
            refused += not _served(wire, message)
            longest_s = max(longest_s, time.monotonic() - began_s)
            # For a second in all: many requests at once are shed with others, but not for long.
            time.sleep(_EVERY_S)
    wire.close()
    return Wait(longest_s * 1000, refused)


def _served(wire: Wire, message: bytes) -> bool:
    try:
        return wire.ask(message).status in (200, 404)
    except NoAnswer:
        return False


@contextmanager
def _crowd(port: int, clients: int, opening: bytes, more: bytes) -> Iterator[None]:
    connections = list(_connected(port, clients, opening))
    stop = threading.Event()
    thread = threading.Thread(target=_go_on, args=(connections, more, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for connection in connections:
            connection.close()


def _connected(port: int, clients: int, opening: bytes) -> Iterator[socket.socket]:
    for number in range(clients):
        with suppress(OSError):  # the gateway may have had enough of this address
            connection = connect(port, f"127.0.9.{1 + number % _ADDRESSES}")
            connection.setblocking(False)
            connection.send(opening)
            yield connection


def _go_on(connections: list[socket.socket], more: bytes, stop: threading.Event) -> None:
    while more and not stop.wait(_EVERY_S):
        for connection in connections:
            with suppress(OSError):
                connection.send(more)
