"""Light versions of Inventory and Payment: they answer as their contracts say, from a dictionary.

The simulators need more CPU for a call than the worker that makes it, so a benchmark would measure
them. These have no faults and no logs.

    python -m loadtest.bench.light PORT

LIGHT_LATENCY_MS delays each answer; the default is 0.
"""

import asyncio
import os
import re
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import uvloop

HOST: Final = "127.0.0.1"
_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ENDINGS: Final = {"commit": "committed", "release": "released", "return": "returned"}
_PLENTY: Final = 1_000_000


class Request(NamedTuple):
    """A request, with its path split into parts."""

    method: str
    parts: list[str]
    body: dict[str, Any]


Answer = tuple[int, object]


class Ledgers:
    """Inventory's reservations and Payment's captures."""

    def __init__(self) -> None:
        self._reservations: dict[str, dict[str, Any]] = {}
        self._attempts: dict[str, dict[str, Any]] = {}

    def answer(self, request: Request) -> Answer:
        """Return status and contents."""
        ways: dict[str, Callable[[Request], Answer]] = {
            "availability": self._availability,
            "reservations": self._reservation,
            "payments": self._payment,
            "livez": lambda _: (200, {"status": "ok"}),
        }
        way = ways.get(request.parts[0])
        return (404, {"error": "not_found"}) if way is None else way(request)

    def _availability(self, request: Request) -> Answer:
        product = int(request.parts[1])
        return 200, {"productId": product, "available": _PLENTY, "sufficient": True}

    def _reservation(self, request: Request) -> Answer:
        key, *verb = request.parts[1:]
        if not verb:
            # In the first contract, which an older checkout speaks, the key is the order's id.
            order = {"orderId": int(key)} if key.isdecimal() else {}
            record = {**order, **request.body, "status": "reserved"}
            return 200, self._reservations.setdefault(key, record)
        reservation = self._reservations.get(key)
        if reservation is None:
            return 404, {"error": "unknown_reservation"}
        reservation["status"] = _ENDINGS[verb[0]]
        return 200, reservation

    def _payment(self, request: Request) -> Answer:
        attempt = request.parts[1]
        if request.method == "PUT":
            captured = {**request.body, "attemptId": attempt, "status": "captured"}
            return 200, self._attempts.setdefault(attempt, captured)
        payment = self._attempts.get(attempt)
        return (404, {"error": "unknown_attempt"}) if payment is None else (200, payment)


class Connection(asyncio.Protocol):
    """A caller's connection; the caller waits for each answer before the next request."""

    def __init__(self, ledgers: Ledgers, latency_s: float) -> None:
        self._ledgers, self._latency_s = ledgers, latency_s
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for the answers."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer once the request is complete."""
        self._received += data
        head, end, content = self._received.partition(_END)
        length = _LENGTH.search(head)
        if not end or (length and len(content) < int(length[1])):
            return
        self._received = b""
        method, target, _ = head.split(b" ", 2)
        segments = target.decode().partition("?")[0].strip("/").split("/")
        body = msgspec.json.decode(content) if content else {}
        self._write(*self._ledgers.answer(Request(method.decode(), segments, body)))

    def _write(self, status: int, contents: object) -> None:
        body = msgspec.json.encode(contents)
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\n"
        lines = f"{head}Content-Length: {len(body)}\r\n\r\n".encode()
        write = self._transport.write  # type: ignore[attr-defined] # a Transport
        if self._latency_s:
            asyncio.get_running_loop().call_later(self._latency_s, write, lines + body)
        else:
            write(lines + body)


async def serve(port: int, latency_s: float) -> None:
    """Answer on a port until the process ends."""
    ledgers = Ledgers()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(ledgers, latency_s), HOST, port)
    await server.serve_forever()


if __name__ == "__main__":
    latency_ms = float(os.environ.get("LIGHT_LATENCY_MS", "0"))
    uvloop.run(serve(int(sys.argv[1]), latency_ms / 1000))
