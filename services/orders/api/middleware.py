"""What happens to every request, whatever becomes of it: ids, trace, metrics, one log line.

The outermost layer, around Falcon itself: a 404, a 429 and a crash are counted like any answer.
"""

import threading
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from opentelemetry.trace import Span

from orders.api import problems
from orders.api.metrics import ORDER_CREATE_DURATION, http_duration, note_trace, order_requests
from orders.api.problems import SHED, Refusal
from orders.api.resource import UNMATCHED, HttpExchange
from orders.telemetry import context as ids
from orders.telemetry import logs, tracing
from orders.telemetry.context import CORRELATION_HEADER

Headers = list[tuple[str, str]]

# What order_requests_total says about a status; other 4xx are validation errors, 5xx errors.
_OUTCOMES: Final = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    429: "rate_limited",
}
_PROBES: Final = frozenset({"/health", "/openapi.json"})  # asked all day: not worth a line each
_LIMITED: Final = "/api/"  # as the rate limit has it
_PASSED_ON: Final = "HTTP_X_REQUEST_START"
_NO_SNIFFING: Final = ("X-Content-Type-Options", "nosniff")


class TelemetryMiddleware:
    """Wrap a WSGI application; shed requests beyond `max_in_flight` (0: never).

    A request below /api/ that waited for longer than `max_wait_s` since the gateway passed it on is
    shed, too (0: never). With a limit on their number alone, requests would wait the longer, the
    longer each takes.
    """

    def __init__(
        self, application: WSGIApplication, max_in_flight: int = 0, max_wait_s: float = 0
    ) -> None:
        self._application, self._max_wait_s = application, max_wait_s
        self._room = threading.BoundedSemaphore(max_in_flight) if max_in_flight else None

    def __call__(self, env: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, and record its span, its metrics and its log line."""
        started_s = time.perf_counter()
        correlation_id, traceparent = env.get("HTTP_X_CORRELATION_ID"), env.get("HTTP_TRACEPARENT")
        context, remote = ids.accept(correlation_id, traceparent)
        if remote:
            context = tracing.decide(context)
        method = env["REQUEST_METHOD"]
        with tracing.root(context, method, tracing.SERVER, remote=remote) as span:
            exchange = HttpExchange(ids.current() or context, method, env["PATH_INFO"], span)
            exchange.attach(env)
            reply = _Reply()
            body = self._within_room(env, exchange, reply)
            reply.headers += exchange.limit_headers
            reply.headers.append(_NO_SNIFFING)
            reply.headers.append((CORRELATION_HEADER, exchange.context.correlation_id))
            reply.headers.append(("traceparent", exchange.context.traceparent))
            start_response(reply.status, reply.headers)
            _record(exchange, int(reply.status[:3]), time.perf_counter() - started_s)
            return body

    def _within_room(
        self, env: WSGIEnvironment, exchange: HttpExchange, reply: "_Reply"
    ) -> Iterable[bytes]:
        if self._waited_too_long(env):
            return reply.refuse(_shed(), exchange)
        if self._room is None:
            return self._answer(env, exchange, reply)
        if not self._room.acquire(blocking=False):
            return reply.refuse(_shed(), exchange)
        try:
            return self._answer(env, exchange, reply)
        finally:
            self._room.release()

    def _waited_too_long(self, env: WSGIEnvironment) -> bool:
        # Probes and documents are asked by those who would take a 503 for an outage.
        return (
            self._max_wait_s > 0
            and env["PATH_INFO"].startswith(_LIMITED)
            and _waited_s(env.get(_PASSED_ON)) > self._max_wait_s
        )

    def _answer(
        self, env: WSGIEnvironment, exchange: HttpExchange, reply: "_Reply"
    ) -> Iterable[bytes]:
        try:
            return self._application(env, reply)
        except Exception as error:  # noqa: BLE001 what Falcon's own handlers let through
            return reply.refuse(problems.refusal(error), exchange)


class _Reply:
    """Takes status and headers from the application until they are complete."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: Headers = []

    def __call__(self, status: str, headers: Headers, _exc_info: Any = None) -> Any:
        self.status, self.headers = status, headers

    def refuse(self, refused: Refusal, exchange: HttpExchange) -> list[bytes]:
        body = problems.render(refused, exchange.path, exchange.context)
        self.status = problems.status_line(refused.kind.status)
        self.headers = [*problems.headers(refused), ("Content-Length", str(len(body)))]
        return [] if exchange.method == "HEAD" else [body]


def _waited_s(passed_on: str | None) -> float:
    """Return the time since the gateway passed a request on (`t=` and Unix time); 0 without it.

    The gateway runs beside the api: it is one clock.
    """
    try:
        return time.time() - float(passed_on.removeprefix("t=")) if passed_on else 0.0
    except ValueError:
        return 0.0


def _shed() -> Refusal:
    return Refusal(
        SHED, "The service is at its limit. Please retry later.", headers=[("Retry-After", "1")]
    )


def _record(exchange: HttpExchange, status: int, took_s: float) -> None:
    http_duration(exchange.method, exchange.route, status).observe(took_s)
    if exchange.action is not None:
        order_requests(exchange.action, _outcome(exchange, status)).inc()
        if _makes_order(exchange, status):
            ORDER_CREATE_DURATION.observe(took_s)
    if exchange.span is not None:
        _describe(exchange.span, exchange, status)
        request, trace_id = (exchange.method, exchange.route, status), exchange.context.trace_id
        note_trace(request, took_s, trace_id, creates=_makes_order(exchange, status))
    _write_line(exchange, status, took_s)


def _makes_order(exchange: HttpExchange, status: int) -> bool:
    return exchange.action == "create" and status == HTTPStatus.ACCEPTED and not exchange.replayed


def _outcome(exchange: HttpExchange, status: int) -> str:
    if status < 400:
        return "replayed" if exchange.replayed else "success"
    return "error" if status >= 500 else _OUTCOMES.get(status, "validation_error")


def _describe(span: Span, exchange: HttpExchange, status: int) -> None:
    """Name the span after OpenTelemetry's conventions for HTTP; the one of the seed is kept."""
    route = exchange.route
    span.update_name("CreateOrder" if exchange.action == "create" else f"{exchange.method} {route}")
    span.set_attribute("http.request.method", exchange.method)
    span.set_attribute("http.response.status_code", status)
    if route != UNMATCHED:
        span.set_attribute("http.route", route)
        if status < 400:  # a refused path may hold anything, an accepted one holds ids
            span.set_attribute("url.path", exchange.path)
    if exchange.user_id is not None:
        span.set_attribute("user.id", exchange.user_id)
    if exchange.order_id is not None:
        span.set_attribute("order.id", exchange.order_id)
    if exchange.total is not None:
        span.set_attribute("order.total", float(exchange.total))
    if status >= 500:
        tracing.fail(span, str(status))


def _write_line(exchange: HttpExchange, status: int, took_s: float) -> None:
    line: dict[str, Any] = {
        "method": exchange.method,
        "route": exchange.route,
        "status": status,
        "duration_ms": round(took_s * 1000, 2),
    }
    if exchange.user_id is not None:
        line["userId"] = exchange.user_id
    if exchange.order_id is not None:
        line["orderId"] = exchange.order_id
    quiet = exchange.route in _PROBES and status < 400
    logs.write("debug" if quiet else "info", "request.completed", **line)
