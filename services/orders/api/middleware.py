"""The middleware of every request: the layer around Falcon, then the admission.

`TelemetryMiddleware` gives a request its ids and its trace, and counts and logs its answer. It is
the outermost layer, so a 404, a 429 and a crash are counted like any answer.

`Admission` finds the caller and applies the rate limit. A request is counted once, in `_admit`,
whatever becomes of it. It counts for the token's subject; without authentication for the user that
the request names, else for the client's address. With a token, the limit is decided before the body
is decoded. Further policies (`limit_policies.py`) count by tenant, principal or address.
"""

import functools
import ipaddress
import threading
import time
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import falcon
from falcon import Request, Response
from opentelemetry.trace import Span

from orders.api import problems
from orders.api.metrics import ORDER_CREATE_DURATION, http_duration, note_trace, order_requests
from orders.api.problems import METHOD_NOT_ALLOWED, RATE_LIMITED, SHED, Refusal
from orders.api.ratelimit import CountedRequest, RateLimiter
from orders.api.resource import (
    UNMATCHED,
    Arguments,
    Authentication,
    HttpExchange,
    Operation,
    Resource,
    exchange_of,
)
from orders.cache.client import Command, Reply
from orders.cache.writers import RecentWriters
from orders.domain.order import user_principal
from orders.telemetry import context as ids
from orders.telemetry import logs, tracing
from orders.telemetry.context import CORRELATION_HEADER

Headers = list[tuple[str, str]]

API: Final = "/api/"  # paths below it have a caller and a limit
# What order_requests_total says about a status; other 4xx are validation errors, 5xx errors.
_OUTCOMES: Final = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    429: "rate_limited",
}
# Requested all day, so they get no log line unless they fail.
_PROBES: Final = frozenset({"/health", "/openapi.json"})
_PASSED_ON: Final = "HTTP_X_REQUEST_START"
_NO_SNIFFING: Final = ("X-Content-Type-Options", "nosniff")
# Requests that no operation serves count for the client's address, with or without a token.
_UNKNOWN_PATH: Final = Operation(id="unknownPath", summary="", answers={}, public=True)
_OTHER_METHOD: Final = Operation(id="otherMethod", summary="", answers={}, public=True)


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
        # Without it, Falcon raises and catches a KeyError: 4 % of a hot GET's CPU.
        env.setdefault("CONTENT_TYPE", "")
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
        # Clients of probes and documents would take a 503 for an outage.
        return (
            self._max_wait_s > 0
            and env["PATH_INFO"].startswith(API)
            and _waited_s(env.get(_PASSED_ON)) > self._max_wait_s
        )

    def _answer(
        self, env: WSGIEnvironment, exchange: HttpExchange, reply: "_Reply"
    ) -> Iterable[bytes]:
        try:
            return self._application(env, reply)
        except Exception as error:  # noqa: BLE001 errors that Falcon's own handlers do not catch
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
        SHED, "The service is overloaded. Please retry later.", headers=[("Retry-After", "1")]
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
    logs.write("debug" if quiet else "info", "request.completed", line)


class Admission:
    """Falcon middleware. Without a limiter all requests pass; without writers none are marked."""

    def __init__(
        self,
        authentication: Authentication,
        limiter: RateLimiter | None,
        writers: RecentWriters | None,
        trusted_proxies: int,
    ) -> None:
        self._authentication, self._limiter = authentication, limiter
        self._writers, self._trusted_proxies = writers, trusted_proxies

    def process_resource(
        self, req: Request, resp: Response, resource: Any, params: dict[str, Any]
    ) -> None:
        """Call the responder with what its operation decodes, or answer in its place."""
        if "" in params.values():  # `/api/orders/` is no order
            self.unknown_path(req, resp)
        exchange = exchange_of(req.env)
        exchange.route = req.uri_template or exchange.route
        method = "GET" if req.method == "HEAD" else req.method
        operation: Operation = resource.operations.get(method, _OTHER_METHOD)
        exchange.action = operation.action
        if exchange.route.startswith(API):
            arguments = self._admit(exchange, req.env, operation, params)
            params.clear()
            params.update(arguments)
        if operation is _OTHER_METHOD:
            _answer_method(req, resp, _allowed(resource))

    def unknown_path(self, req: Request, resp: Response, **_: Any) -> None:  # noqa: ARG002 Falcon's
        """Refuse a path that no route matches; below /api/ it counts like any request."""
        if req.path.startswith(API):
            self._admit(exchange_of(req.env), req.env, _UNKNOWN_PATH, {})
        raise falcon.HTTPRouteNotFound

    def _admit(
        self,
        exchange: HttpExchange,
        env: dict[str, Any],
        operation: Operation,
        path: dict[str, str],
    ) -> Arguments:
        """Authenticate, count and decode. Raises Refusal; one over the limit hides all others."""
        arguments: Arguments = {}
        try:
            if not operation.public:
                exchange.caller = self._authentication.caller(env.get("HTTP_AUTHORIZATION"))
            if operation.scope is not None:
                exchange.caller.require(operation.scope)
            if exchange.caller.subject is None:
                arguments = _decode(exchange, env, operation, path)
        finally:
            counted_user = exchange.caller.user_id or exchange.user_id
            self._count(exchange, env, operation, counted_user)
        if exchange.caller.subject is not None:
            arguments = _decode(exchange, env, operation, path)
            if exchange.user_id not in {None, counted_user}:
                self._mark_other_user(exchange, operation)
        return arguments

    def _count(
        self, exchange: HttpExchange, env: dict[str, Any], operation: Operation, user_id: int | None
    ) -> None:
        """Count the request; note or look up the user's recent write in the same round trip."""
        commands = self._commands(operation, user_id)
        principal = self._principal(exchange, env, user_id)
        request = None
        if self._limiter is not None and self._limiter.has_further:
            request = self._counted_request(exchange, env, operation)
        replies = self._limit(exchange, principal, request, commands)
        if self._writers is None:
            exchange.wrote_recently = False  # without replicas no list can be stale
        elif user_id is None:
            return
        elif operation.recent_write == "look up":
            exchange.wrote_recently = (
                self._writers.read_lookup(replies)
                if replies
                else self._writers.wrote_recently(user_id)
            )
        elif commands and replies is None:
            self._writers.mark(user_id)

    def _commands(self, operation: Operation, user_id: int | None) -> Sequence[Command]:
        writers = self._writers
        if writers is None or user_id is None:
            return ()
        if operation.recent_write == "mark":
            return (writers.mark_command(user_id),)
        if operation.recent_write == "look up" and not writers.wrote_here(user_id):
            return (writers.lookup_command(user_id),)
        return ()

    def _limit(
        self,
        exchange: HttpExchange,
        principal: str,
        request: CountedRequest | None,
        commands: Sequence[Command],
    ) -> list[Reply] | None:
        """Count; return the replies to `commands`, None if Redis was not asked. Raises Refusal.

        From then on, every answer of the exchange has the remaining quota.
        """
        if self._limiter is None:
            return None
        decision, replies = self._limiter.decide(principal, *commands, request=request)
        exchange.limit_headers = self._limiter.headers(decision)
        if not decision.allowed:
            raise Refusal(
                RATE_LIMITED,
                "Rate limit exceeded. Please retry later.",
                violated_policies=decision.policies,
            )
        return replies

    def _principal(self, exchange: HttpExchange, env: dict[str, Any], user_id: int | None) -> str:
        named = exchange.caller.subject or user_id
        if named is None:
            return f"address:{client_address(env, self._trusted_proxies)}"
        return user_principal(named)

    def _counted_request(
        self, exchange: HttpExchange, env: dict[str, Any], operation: Operation
    ) -> CountedRequest:
        """Return what the further policies count by."""
        return CountedRequest(
            address=client_address(env, self._trusted_proxies),
            claims=exchange.caller.claims,
            scope=operation.scope,
            action=operation.action,
        )

    def _mark_other_user(self, exchange: HttpExchange, operation: Operation) -> None:
        """Mark the user for whom an administrator acts, because the token names another subject."""
        exchange.wrote_recently = None
        if self._writers is not None and operation.recent_write == "mark" and exchange.user_id:
            self._writers.mark(exchange.user_id)


def _decode(
    exchange: HttpExchange, env: dict[str, Any], operation: Operation, path: dict[str, str]
) -> Arguments:
    """Return the responder's arguments; note the user they name."""
    arguments = operation.decode(env, path)
    exchange.user_id = operation.user(arguments)
    return arguments


def _allowed(resource: Resource) -> str:
    """Return the value of `Allow`."""
    methods = set(resource.operations) | {"OPTIONS"}
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods))


def _answer_method(req: Request, resp: Response, allow: str) -> None:
    if req.method != "OPTIONS":
        detail = f"{allow} are allowed here."
        raise Refusal(METHOD_NOT_ALLOWED, detail, headers=[("Allow", allow)])
    resp.status = falcon.HTTP_204
    resp.set_header("Allow", allow)
    resp.complete = True


def client_address(env: dict[str, Any], trusted_proxies: int) -> str:
    """Return who sent the request, given how many proxies of ours appended to X-Forwarded-For.

    It is the address that the nearest trusted proxy saw, never what the client says. A request that
    did not come through them counts for its peer.
    """
    forwarded = env.get("HTTP_X_FORWARDED_FOR")
    if trusted_proxies and forwarded:
        hops = forwarded.rsplit(",", trusted_proxies)[-trusted_proxies:]
        address = _normal(hops[0].strip())
        if address is not None:
            return address
    return _normal(env.get("REMOTE_ADDR", "")) or ""


@functools.lru_cache(maxsize=10_000)
def _normal(text: str) -> str | None:
    """Return the one spelling of an IPv4 address or of an IPv6 /64; None for anything else.

    A /64 is what one customer of a provider has: addresses in it are free.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"
