"""Services."""

from orderservice_operator.children.gateway import ADMIN as GATEWAY_ADMIN
from orderservice_operator.children.manifest import Manifest, child, selector
from orderservice_operator.children.processes import API, GATEWAY_ADMIN_PORT, name_of
from orderservice_operator.resource.spec import OrderService


def api_service(service: OrderService) -> Manifest:
    """Return the Service that a gateway or an Ingress sends requests to."""
    manifest = child(service, "v1", "Service", name=name_of(service, API), component=API.name)
    port = {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}
    manifest["spec"] = {
        "type": "ClusterIP",
        "selector": selector(service, API.name),
        "ports": [port | {"appProtocol": "http"}],
    }
    return manifest


def admin_service_name(service: OrderService) -> str:
    """Return the name of the Service for scrapers."""
    return f"{service.metadata.name}-admin"


def admin_service(service: OrderService) -> Manifest:
    """Return the headless Service by which scrapers find every pod, ready or not."""
    manifest = child(service, "v1", "Service", name=admin_service_name(service), component="admin")
    manifest["spec"] = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": selector(service),
        "ports": [_scraped("admin", 8081), _scraped(GATEWAY_ADMIN, GATEWAY_ADMIN_PORT)],
    }
    return manifest


def _scraped(name: str, port: int) -> Manifest:
    return {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
