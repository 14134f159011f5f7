"""The Ingress of the api."""

from orderservice_operator.children.gateway import scheme
from orderservice_operator.children.manifest import Manifest, child
from orderservice_operator.children.processes import API, name_of
from orderservice_operator.resource.spec import OrderService


def ingress(service: OrderService) -> Manifest | None:
    """Return the Ingress, or None if none is configured."""
    options = service.spec.api.ingress
    if options is None:
        return None
    manifest = child(
        service,
        "networking.k8s.io/v1",
        "Ingress",
        name=name_of(service, API),
        component=API.name,
    )
    if options.annotations:
        manifest["metadata"]["annotations"] = options.annotations
    hosts = [options.host, *options.extra_hosts]
    manifest["spec"] = {"rules": [_rule(service, host) for host in hosts]}
    if options.class_name:
        manifest["spec"]["ingressClassName"] = options.class_name
    if options.tls_secret_ref:
        tls = {"hosts": hosts, "secretName": options.tls_secret_ref.name}
        manifest["spec"]["tls"] = [tls]
    return manifest


def _rule(service: OrderService, host: str) -> Manifest:
    backend = {
        "name": name_of(service, API),
        "port": {"name": scheme(service)},
    }
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": backend}}
    return {"host": host, "http": {"paths": [path]}}
