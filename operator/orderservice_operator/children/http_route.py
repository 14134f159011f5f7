"""HTTPRoute of the Gateway API."""

import msgspec

from orderservice_operator.children.context import Context
from orderservice_operator.children.gateway import service_port
from orderservice_operator.children.kinds import HTTP_ROUTE
from orderservice_operator.children.manifest import Manifest, child
from orderservice_operator.children.processes import API, name_of
from orderservice_operator.resource.spec import OrderService


def http_route(service: OrderService, context: Context) -> Manifest | None:
    """Return the route from the Gateways, or None if none is configured or the kind is unknown."""
    route = service.spec.api.http_route
    if route is None or HTTP_ROUTE not in context.kinds:
        return None
    name = name_of(service, API)
    manifest = child(
        service, "gateway.networking.k8s.io/v1", HTTP_ROUTE, name=name, component=API.name
    )
    parents = [msgspec.to_builtins(parent) for parent in route.parent_refs]
    manifest["spec"] = {
        "parentRefs": [{k: v for k, v in parent.items() if v is not None} for parent in parents],
        "rules": [{"backendRefs": [{"name": name, "port": service_port(service)}]}],
    }
    if route.hostnames:
        manifest["spec"]["hostnames"] = route.hostnames
    return manifest


def missing_kind(service: OrderService, context: Context) -> str:
    """Return a text on why the route cannot be created; empty: it can."""
    if service.spec.api.http_route is None or HTTP_ROUTE in context.kinds:
        return ""
    return "HTTPRoute: this cluster does not have gateway.networking.k8s.io/v1"
