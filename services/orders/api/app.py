"""The WSGI application: routes and middleware, built from its arguments."""

from typing import Any, Final
from wsgiref.types import WSGIApplication

import falcon
import msgspec
from falcon import Request, Response

from orders.api import openapi, problems
from orders.api.cancellation import Cancellation
from orders.api.docs import Asset, DocsPage
from orders.api.health import Health
from orders.api.history import OrderHistory
from orders.api.middleware import Admission, TelemetryMiddleware
from orders.api.openapi import OpenApi
from orders.api.order_list import UserOrders
from orders.api.orders import OneOrder, OrderPlacement
from orders.api.refunds import OrderRefunds
from orders.api.resource import ApiPorts, Resource, exchange_of

CANCELLATION: Final = "/api/orders/{id}/cancellation"


def create_app(ports: ApiPorts) -> WSGIApplication:
    """Return the application. It starts nothing and connects to nothing."""
    admission = Admission(ports.authentication, ports.limiter, ports.writers, ports.trusted_proxies)
    app = falcon.App(media_type="application/json", middleware=[admission])
    for template, resource in _routes(ports).items():
        app.add_route(template, resource)
    app.add_sink(admission.unknown_path, "/")
    app.add_error_handler(Exception, _answer_error)
    app.add_error_handler(falcon.HTTPError, _answer_error)  # else Falcon's own handler comes first
    return TelemetryMiddleware(app, ports.max_in_flight, ports.max_wait_s)


def _routes(ports: ApiPorts) -> dict[str, Resource]:
    documented: dict[str, Resource] = {
        "/api/orders": OrderPlacement(ports),
        "/api/orders/{id}": OneOrder(ports),
        CANCELLATION: Cancellation(ports),
        "/api/orders/{id}/refunds": OrderRefunds(ports),
        "/api/orders/{id}/history": OrderHistory(ports),
        "/api/orders/user/{userId}": UserOrders(ports),
        "/health": Health(ports.checks),
    }
    operations = {template: resource.operations for template, resource in documented.items()}
    document = openapi.document(operations, tokens=ports.tokens, key_required=ports.key_required)
    documented["/openapi.json"] = OpenApi(msgspec.json.encode(document))
    if ports.docs:
        documented |= {"/docs": DocsPage(), "/docs/{name}": Asset()}
    return documented


def _answer_error(req: Request, resp: Response, error: Exception, _params: dict[str, Any]) -> None:
    exchange = exchange_of(req.env)
    # A cancellation takes effect once, with or without a key.
    idempotent = req.method != "POST" or req.uri_template == CANCELLATION
    repeatable = idempotent or "HTTP_IDEMPOTENCY_KEY" in req.env
    refusal = problems.refusal(error, repeatable=repeatable)
    resp.status = refusal.kind.status
    resp.data = problems.render(refusal, exchange.path, exchange.context)
    resp.set_headers(problems.headers(refusal))
