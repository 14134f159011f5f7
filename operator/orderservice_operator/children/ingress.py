"""Ingress."""

from orderservice_operator.children.manifest import Manifest, child
from orderservice_operator.children.processes import API, name_of
from orderservice_operator.resource.spec import OrderService


def ingress(service: OrderService) -> Manifest | None:
    """Return the Ingress, or None when none is asked for."""
    wanted = service.spec.api.ingress
    if wanted is None:
        return None
    manifest = child(
        service,
        "networking.k8s.io/v1",
        "Ingress",
        name=name_of(service, API),
        component=API.name,
    )
    if wanted.annotations:
        manifest["metadata"]["annotations"] = wanted.annotations
    hosts = [wanted.host, *wanted.extra_hosts]
    manifest["spec"] = {"rules": [_rule(service, host) for host in hosts]}
    if wanted.class_name:
        manifest["spec"]["ingressClassName"] = wanted.class_name
    if wanted.tls_secret_ref:
        tls = {"hosts": hosts, "secretName": wanted.tls_secret_ref.name}
        manifest["spec"]["tls"] = [tls]
    return manifest


def _rule(service: OrderService, host: str) -> Manifest:
    backend = {
        "name": name_of(service, API),
        "port": {"name": "http"},
    }
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": backend}}
    return {"host": host, "http": {"paths": [path]}}
