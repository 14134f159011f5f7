"""The Services: the api's gateway, and the admin ports."""

from orderservice_operator.children.gateway import ADMIN as GATEWAY_ADMIN
from orderservice_operator.children.gateway import scheme, service_port
from orderservice_operator.children.manifest import Manifest, child, selector
from orderservice_operator.children.processes import API, GATEWAY_ADMIN_PORT, name_of
from orderservice_operator.resource.spec import OrderService


def api_service(service: OrderService) -> Manifest:
    """Return the Service that a gateway or an Ingress sends requests to."""
    manifest = child(service, "v1", "Service", name=name_of(service, API), component=API.name)
    name = scheme(service)
    port = {"name": name, "port": service_port(service), "targetPort": name, "protocol": "TCP"}
    options = service.spec.api.service
    if options.annotations:
        manifest["metadata"]["annotations"] = options.annotations
    optional = {
        "loadBalancerClass": options.load_balancer_class,
        "loadBalancerSourceRanges": options.load_balancer_source_ranges,
        "externalTrafficPolicy": options.external_traffic_policy,
    }
    manifest["spec"] = {
        "type": options.type,
        "selector": selector(service, API.name),
        "ports": [port | {"appProtocol": name}],
        **_families(service),
        **{name: value for name, value in optional.items() if value},
    }
    return manifest


def _families(service: OrderService) -> Manifest:
    """Return the IP families of a Service, unless the cluster chooses them."""
    options = service.spec.api.service
    families = {"ipFamilyPolicy": options.ip_family_policy, "ipFamilies": options.ip_families}
    return {name: value for name, value in families.items() if value}


def admin_service(service: OrderService) -> Manifest:
    """Return the headless Service by which scrapers find every pod, ready or not."""
    name = f"{service.metadata.name}-admin"
    manifest = child(service, "v1", "Service", name=name, component="admin")
    manifest["spec"] = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": selector(service),
        "ports": [_scraped("admin", API.admin_port), _scraped(GATEWAY_ADMIN, GATEWAY_ADMIN_PORT)],
        **_families(service),
    }
    return manifest


def _scraped(name: str, port: int) -> Manifest:
    return {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
