"""The WSGI application: routes, and what surrounds them. Everything it needs is handed to it."""

from typing import Any
from wsgiref.types import WSGIApplication

import falcon
import msgspec
from falcon import Request, Response

from orders.api import exchange as exchanges
from orders.api import openapi, problems
from orders.api.docs import Asset, Page
from orders.api.door import Door
from orders.api.entrance import Entrance, Resource
from orders.api.health import Health
from orders.api.middleware import Observed
from orders.api.openapi import OpenApi
from orders.api.order_list import UserOrders
from orders.api.orders import OneOrder, Orders
from orders.api.ports import Ports


def create_app(ports: Ports) -> WSGIApplication:
    """Return the application. It starts nothing and connects to nothing."""
    door = Door(ports.limiter, ports.trusted_proxies)
    entrance = Entrance(ports.authentication, door)
    app = falcon.App(media_type="application/json", middleware=[entrance])
    for template, resource in _routes(ports, door).items():
        app.add_route(template, resource)
    app.add_sink(entrance.unknown_path, "/")
    app.add_error_handler(Exception, _answer_error)
    app.add_error_handler(falcon.HTTPError, _answer_error)  # else Falcon's own handler comes first
    return Observed(app, ports.max_in_flight)


def _routes(ports: Ports, door: Door) -> dict[str, Resource]:
    documented: dict[str, Resource] = {
        "/api/orders": Orders(door, ports),
        "/api/orders/{id}": OneOrder(door, ports),
        "/api/orders/user/{userId}": UserOrders(door, ports),
        "/health": Health(ports.checks),
    }
    operations = {template: resource.operations for template, resource in documented.items()}
    document = openapi.document(operations, tokens=ports.tokens)
    documented["/openapi.json"] = OpenApi(msgspec.json.encode(document))
    if ports.docs:
        documented |= {"/docs": Page(), "/docs/{name}": Asset()}
    return documented


def _answer_error(req: Request, resp: Response, error: Exception, _params: dict[str, Any]) -> None:
    exchange = exchanges.of(req.env)
    refused = problems.refusal(error)
    resp.status = refused.kind.status
    resp.data = problems.render(refused, exchange.path, exchange.context)
    resp.set_headers(problems.headers(refused))
