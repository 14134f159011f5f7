"""The gateway: nginx in the api's pods; only it may connect to the api."""

from typing import Final

from orderservice_operator.children.containers import (
    container,
    mounts,
    pre_stop,
    resources_over,
    variables,
)
from orderservice_operator.children.manifest import Manifest
from orderservice_operator.children.processes import (
    API,
    API_PORT,
    GATEWAY_ADMIN_PORT,
    GATEWAY_DRAIN_S,
    GATEWAY_PORT,
    GATEWAY_PRE_STOP_S,
    GATEWAY_TLS_PORT,
)
from orderservice_operator.resource.pods import TLS_FOLDER
from orderservice_operator.resource.schema_types import Amounts, Resources
from orderservice_operator.resource.spec import OrderService

NAME: Final = "gateway"
ADMIN: Final = "gateway-admin"
TMP: Final = "gateway-tmp"
TLS: Final = "gateway-tls"
# Threads of a gthread process: the default of ORDERS_API_THREADS.
_THREADS: Final = 16
_LEAST_IN_FLIGHT: Final = 64
_COMMAND: Final = ["orders-gateway"]
# A guess: bodies, headers and answers of a few hundred requests are buffered in memory.
_RESOURCES: Final = Resources(
    requests=Amounts(cpu="100m", memory="32Mi"), limits=Amounts(memory="128Mi")
)


def gateway(service: OrderService) -> Manifest:
    """Return the container. Its probes are about nginx; the api has its own.

    They use the admin port, because clients can take all connections of the public one.
    """
    resources = resources_over(_RESOURCES, service.spec.api.gateway.resources)
    base = container(service, NAME, _COMMAND, resources, component=API.name)
    volumes = mounts(service, API.name, TMP)
    if service.spec.api.gateway.tls_secret_ref is not None:
        volumes = [*volumes, {"name": TLS, "mountPath": TLS_FOLDER, "readOnly": True}]
    return base | {
        "volumeMounts": volumes,
        "env": variables(service, _settings(service), component=API.name),
        "ports": [
            {"name": scheme(service), "containerPort": port(service), "protocol": "TCP"},
            {"name": ADMIN, "containerPort": GATEWAY_ADMIN_PORT, "protocol": "TCP"},
        ],
        "startupProbe": _probe("/readyz", period_s=1, failures=30),
        "livenessProbe": _probe("/livez", period_s=10, failures=3),
        "readinessProbe": _probe("/readyz", period_s=5, failures=2),
        "lifecycle": pre_stop(GATEWAY_PRE_STOP_S),
    }


def _settings(service: OrderService) -> list[Manifest]:
    variables = {
        "GATEWAY_PORT": str(port(service)),
        "GATEWAY_ADMIN_PORT": str(GATEWAY_ADMIN_PORT),
        "GATEWAY_API_ADDRESS": f"127.0.0.1:{API_PORT}",
        "GATEWAY_DRAIN_S": str(GATEWAY_DRAIN_S),
        "GATEWAY_API_IN_FLIGHT": str(_in_flight(service)),
    }
    if proxies := service.spec.api.trusted_proxies:
        variables["GATEWAY_TRUSTED_PROXIES"] = ",".join(proxies)
    if service.spec.api.gateway.tls_secret_ref is not None:
        variables["GATEWAY_TLS_CERTIFICATE_FILE"] = f"{TLS_FOLDER}/tls.crt"
        variables["GATEWAY_TLS_KEY_FILE"] = f"{TLS_FOLDER}/tls.key"
    return [{"name": name, "value": value} for name, value in variables.items()]


def scheme(service: OrderService) -> str:
    """Return the protocol for clients, which is also the name of the port."""
    return "http" if service.spec.api.gateway.tls_secret_ref is None else "https"


def port(service: OrderService) -> int:
    """Return the container's port for clients."""
    return GATEWAY_PORT if scheme(service) == "http" else GATEWAY_TLS_PORT


def service_port(service: OrderService) -> int:
    """Return the port of the Service for clients."""
    return 80 if scheme(service) == "http" else 443


def tls_volumes(service: OrderService) -> list[Manifest]:
    """Return the volume of the certificate, if there is one.

    Its entries are in no digest: the gateway reloads a renewed certificate, so no pod is replaced.
    """
    secret = service.spec.api.gateway.tls_secret_ref
    if secret is None:
        return []
    items = [{"key": name, "path": name} for name in ("tls.crt", "tls.key")]
    return [{"name": TLS, "secret": {"secretName": secret.name, "items": items}}]


def _in_flight(service: OrderService) -> int:
    """Return the most concurrent requests of an api: sixteen per process, or two per thread."""
    api = service.spec.api
    queued = 2 * _THREADS if api.worker_class == "gthread" else 16
    return max(_LEAST_IN_FLIGHT, queued * api.workers)


def _probe(path: str, *, period_s: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": ADMIN},
        "periodSeconds": period_s,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }
