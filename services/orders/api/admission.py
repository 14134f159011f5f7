"""What every request passes before its resource: its route's name, its caller, the rate limit.

A request is counted once, in `_admit`, whatever becomes of it. Whom it counts for: the subject of
the token; without authentication the user it names; else the client's address. Where the token
says it, the limit is decided before a byte of the body is decoded. Further policies count the
token's tenant, the principal or the address by what is asked for (`limit_policies.py`).
"""

import functools
import ipaddress
from collections.abc import Sequence
from typing import Any, Final

import falcon
from falcon import Request, Response

from orders.api.problems import METHOD_NOT_ALLOWED, RATE_LIMITED, Refusal
from orders.api.ratelimit import CountedRequest, RateLimiter
from orders.api.resource import (
    Arguments,
    Authentication,
    HttpExchange,
    Operation,
    Resource,
    exchange_of,
    user_principal,
)
from orders.api.server.connections import peer_address
from orders.cache.client import Command, Reply
from orders.cache.writers import RecentWriters

API: Final = "/api/"
# Requests that no operation serves count for the client's address, with or without a token.
_UNKNOWN_PATH: Final = Operation(id="unknownPath", summary="", answers={}, public=True)
_OTHER_METHOD: Final = Operation(id="otherMethod", summary="", answers={}, public=True)


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
        request = self._counted(exchange, env, operation)
        replies = self._limit(exchange, principal, request, commands)
        if self._writers is None:
            exchange.wrote_recently = False  # there is no replica to lag behind
        elif user_id is None:
            return
        elif operation.recent_write == "look up":
            exchange.wrote_recently = (
                self._writers.answer(replies) if replies else self._writers.wrote_recently(user_id)
            )
        elif commands and replies is None:
            self._writers.mark(user_id)

    def _commands(self, operation: Operation, user_id: int | None) -> Sequence[Command]:
        writers = self._writers
        if writers is None or user_id is None:
            return ()
        if operation.recent_write == "mark":
            return (writers.marking(user_id),)
        if operation.recent_write == "look up" and not writers.wrote_here(user_id):
            return (writers.asking(user_id),)
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

    def _counted(
        self, exchange: HttpExchange, env: dict[str, Any], operation: Operation
    ) -> CountedRequest | None:
        """Return the input of the further policies; None if there are none."""
        if self._limiter is None or not self._limiter.has_further:
            return None
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
    return _normal(peer_address(env)) or ""


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
