"""A server in the place of RabbitMQ's management API is reported as such, with any answer."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import msgspec
import pytest

from orders.errors import OrdersError
from orders.messaging.apply import apply
from orders.messaging.management import Management
from orderservice_topology import topology


class Foreign(HTTPServer):
    """Answer every request with the same bytes, as something that is not RabbitMQ might."""

    status, body, content_type = 200, b"[]", "application/json"


class Handler(BaseHTTPRequestHandler):
    server: Foreign

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.server.status)
        if self.server.content_type:
            self.send_header("Content-Type", self.server.content_type)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@pytest.fixture(scope="module")
def foreign() -> Iterator[Foreign]:
    server = Foreign(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def item(**changes: Any) -> dict[str, Any]:
    return {
        "name": "orders", "source": "orders", "destination": "order-processing", "priority": 1,
        "destination_type": "queue", "routing_key": "x", "properties_key": "x", "policy": "p",
        **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (200, b"", ""), (200, b"<html>", ""), (200, b"{}", "application/json"),
        (200, b"[1]", "application/json"), (200, b"[{}]", "application/json"),
        (200, b"[" * 100_000, "application/json"), (200, b"\xff", "application/json"),
        (200, msgspec.json.encode([item(name=[])]), "application/json"),
        (200, msgspec.json.encode([item(name=None)]), "application/json"),
        (200, msgspec.json.encode([item(source={})]), "application/json"),
        (200, msgspec.json.encode([item(routing_key=[1])]), "application/json"),
        (200, msgspec.json.encode([item(name="order-processing", policy=[])]), "application/json"),
        (400, b"[" * 100_000, "application/json"), (400, b"[]", "application/json"),
        (400, b"\xff", ""), (204, b"", ""), (302, b"", ""), (500, b"", ""), (200, b"NaN", ""),
    ],
)  # fmt: skip
def test_what_is_not_rabbitmq_is_said_to_be_none(
    foreign: Foreign, status: int, body: bytes, content_type: str
) -> None:
    foreign.status, foreign.body, foreign.content_type = status, body, content_type
    management = Management(f"http://127.0.0.1:{foreign.server_address[1]}", "/")
    with pytest.raises(OrdersError):
        apply(management, topology.desired("/"))
    management.close()
