"""The middleware of every request: ids, metrics, one log line. Plain ASGI is the fastest way."""

import datetime as dt
import os
import re
import time
from typing import Any, Final

import msgspec
from prometheus_client import Counter, Histogram

from orders.telemetry.buckets import HTTP_BUCKETS

_REQUESTS: Final = Counter("order_requests", "Requests.", ["route", "status"])
_DURATION: Final = Histogram(
    "http_server_request_duration_seconds", "Duration.", ["method", "route", "status"],
    buckets=HTTP_BUCKETS,
)  # fmt: skip
_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_encode: Final = msgspec.json.Encoder().encode
_children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}


class Ids(msgspec.Struct):
    """The ids of a request."""

    correlation_id: str
    trace_id: str
    span_id: str

    @property
    def traceparent(self) -> str:
        """Return the `traceparent` header of W3C Trace Context."""
        return f"00-{self.trace_id}-{self.span_id}-00"


class TelemetryMiddleware:
    """Wrap an ASGI application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, and record it in log and metrics."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        ids = scope.setdefault("state", {})["ids"] = _ids(dict(scope["headers"]))
        status = 500

        async def send_response(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] += (
                    (b"x-content-type-options", b"nosniff"),
                    (b"x-correlation-id", ids.correlation_id.encode()),
                    (b"traceparent", ids.traceparent.encode()),
                )
            await send(message)

        await self._app(scope, receive, send_response)
        _record(scope, ids, status, time.perf_counter() - started_s)


def _ids(headers: dict[bytes, bytes]) -> Ids:
    digits = os.urandom(40).hex()
    header = headers.get(b"x-correlation-id", b"").decode("latin-1")
    correlation_id = header if _CORRELATION_ID.match(header) else digits[:32]
    return Ids(correlation_id, digits[32:64], digits[64:])


def _record(scope: Any, ids: Ids, status: int, took_s: float) -> None:
    method, route = scope["method"], getattr(scope.get("route"), "path", "unmatched")
    key = (method, route, status)
    if key not in _children:
        counter = _REQUESTS.labels(route, str(status))
        _children[key] = counter, _DURATION.labels(method, route, str(status))
    counter, histogram = _children[key]
    counter.inc()
    histogram.observe(took_s)
    line = {
        "event": "request.completed",
        "level": "info",
        "timestamp": dt.datetime.now(dt.UTC),
        "method": method,
        "route": route,
        "status": status,
        "duration_ms": round(took_s * 1000, 2),
        "correlationId": ids.correlation_id,
        "traceId": ids.trace_id,
    }
    os.write(1, _encode(line) + b"\n")
