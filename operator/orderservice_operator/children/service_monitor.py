"""ServiceMonitor of the Prometheus operator."""

import re

from orderservice_operator.children import gateway
from orderservice_operator.children.context import Context
from orderservice_operator.children.kinds import SERVICE_MONITOR
from orderservice_operator.children.manifest import COMPONENT_LABEL, Manifest, child, selector
from orderservice_operator.resource.spec import OrderService

# Prometheus' name for the pod's label; rules and dashboards call it `component`.
_META = "__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", COMPONENT_LABEL)


def service_monitor(service: OrderService, context: Context) -> Manifest | None:
    """Return the monitor, or None if it is not wanted or this cluster lacks the kind."""
    if service.spec.observability.service_monitor == "Disabled":
        return None
    if SERVICE_MONITOR not in context.kinds:
        return None
    manifest = child(
        service, "monitoring.coreos.com/v1", SERVICE_MONITOR, name=service.metadata.name
    )
    labels = service.spec.observability.labels
    manifest["metadata"]["labels"] = labels | manifest["metadata"]["labels"]
    manifest["spec"] = {
        "selector": {"matchLabels": selector(service, "admin")},
        "endpoints": [
            _endpoint("admin", {"sourceLabels": [_META]}),
            # The gateway shares a pod, and so the pod's label, with the api.
            _endpoint(gateway.ADMIN, {"replacement": gateway.NAME}),
        ],
    }
    return manifest


def _endpoint(port: str, component: Manifest) -> Manifest:
    relabeling = component | {"targetLabel": "component"}
    return {"port": port, "path": "/metrics", "interval": "15s", "relabelings": [relabeling]}
