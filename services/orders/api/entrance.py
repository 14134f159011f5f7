"""What a request passes before its resource sees it: its route's name, its method, its caller."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

import falcon
from falcon import Request, Response

from orders.api import exchange as exchanges
from orders.api.auth import Authentication
from orders.api.door import Door
from orders.api.exchange import Exchange
from orders.api.operation import Operation
from orders.api.problems import METHOD_NOT_ALLOWED, Refusal
from orders.errors import OrdersError

API: Final = "/api/"


class Resource(Protocol):
    """A Falcon resource that says what it does: by method, its documentation and label."""

    @property
    def operations(self) -> Mapping[str, Operation]:
        """Its methods."""


class Entrance:
    """Falcon middleware, called once a path matched a route."""

    def __init__(self, authentication: Authentication, door: Door) -> None:
        self._authentication, self._door = authentication, door

    def process_resource(
        self,
        req: Request,
        resp: Response,
        resource: Any,
        params: dict[str, Any],
    ) -> None:
        """Let the resource (a Resource) answer, or answer for it."""
        if "" in params.values():  # `/api/orders/` is no order
            self.unknown_path(req, resp)
        exchange = exchanges.of(req.env)
        exchange.route = req.uri_template or exchange.route
        operation = resource.operations.get("GET" if req.method == "HEAD" else req.method)
        limited = exchange.route.startswith(API)
        if operation is None:
            if limited:
                self._door.enter(exchange, req.env, None)
            _answer_method(req, resp, allowed(resource))
            return
        exchange.action = operation.action
        if limited:
            self._authenticate(exchange, req.env)

    def _authenticate(self, exchange: Exchange, env: dict[str, Any]) -> None:
        try:
            exchange.caller = self._authentication.caller(env.get("HTTP_AUTHORIZATION"))
        except (Refusal, OrdersError):
            self._door.enter(exchange, env, None)
            raise

    def unknown_path(self, req: Request, resp: Response, **_: Any) -> None:  # noqa: ARG002 Falcon's
        """Refuse a path that no route matches; below /api/ it counts like any request."""
        if req.path.startswith(API):
            self._door.enter(exchanges.of(req.env), req.env, None)
        raise falcon.HTTPRouteNotFound


def allowed(resource: Resource) -> str:
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
