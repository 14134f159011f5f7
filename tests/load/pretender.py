"""A service that answers like the real one and violates the guarantees that a test names."""

import itertools
import threading
import time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import msgspec

CREATED = "2026-11-22T12:00:00Z"


class Pretender:
    """Listen while the block runs; `loses` and `doubles` every so many-th POST, and is `late`.

    A `mad` one answers 200 to whoever asks for a list, and no list. `alters` is where it shows
    another total than the order's: in an order that is asked for, or in a list.
    """

    def __init__(
        self, *, loses: int = 0, doubles: int = 0, late_s: float = 0, mad: bool = False,
        alters: str = "",
    ) -> None:  # fmt: skip
        self.mad, self.alters = mad, alters
        self.loses, self.doubles, self.late_s = loses, doubles, late_s
        self.orders: dict[int, dict[str, Any]] = {}
        self.keys: dict[str, int] = {}
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def accept(self, key: str, body: dict[str, Any]) -> int:
        """Take an order, or only say so."""
        with self._lock:
            number = next(self._ids)
            twice = self.doubles and number % self.doubles == 0
            if key in self.keys and not twice:
                return self.keys[key]
            self.keys[key] = number
            if not (self.loses and number % self.loses == 0):
                self.orders[number] = body | {
                    "id": number, "status": "Completed", "createdAt": CREATED,
                    "updatedAt": CREATED,
                }  # fmt: skip
            return number

    def of_user(self, user: int) -> list[dict[str, Any]]:
        """Give a user's orders, newest first."""
        user_orders = [order for order in self.orders.values() if order["userId"] == user]
        return sorted(user_orders, key=lambda order: -order["id"])


def handler(service: Pretender) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            time.sleep(service.late_s)
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            body = msgspec.json.decode(raw, type=dict[str, Any])
            body["total"] = Decimal(str(body["total"]))
            self.answer(202, {"orderId": service.accept(self.headers["Idempotency-Key"], body)})

        def do_GET(self) -> None:
            path, _, last = self.path.partition("?")[0].rpartition("/")
            if path.endswith("user"):
                orders = service.of_user(int(last))
                self.answer(
                    200, {} if service.mad else [self.altered("list", order) for order in orders]
                )
            elif last.isdigit():
                order = service.orders.get(int(last))
                self.answer(200 if order else 404, self.altered("order", order) if order else {})
            else:
                self.answer(200, {"status": "Healthy"})

        def altered(self, where: str, order: dict[str, Any]) -> dict[str, Any]:
            return order | {"total": order["total"] + (service.alters == where)}

        def answer(self, status: int, body: object) -> None:
            raw = msgspec.json.Encoder(decimal_format="number").encode(body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            return

    return Handler
