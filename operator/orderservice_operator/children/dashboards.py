"""The dashboards as ConfigMaps that Grafana's sidecar picks up by their label."""

from collections.abc import Iterator
from typing import Final

from orderservice_observability import dashboards
from orderservice_operator.children.context import Context
from orderservice_operator.children.manifest import Manifest, child
from orderservice_operator.resource.spec import OrderService

# The default label of the sidecar in Grafana's chart.
LABEL: Final = "grafana_dashboard"


def dashboard_maps(service: OrderService, context: Context) -> Iterator[Manifest]:
    """Yield a ConfigMap for each dashboard: all together would nearly exceed the object limit."""
    if not (service.spec.observability.dashboards and context.dashboards):
        return
    for name, text in dashboards.texts().items():
        manifest = child(
            service, "v1", "ConfigMap", name=f"{service.metadata.name}-dashboard-{name}"
        )
        labels = {LABEL: "1"} | service.spec.observability.labels
        manifest["metadata"]["labels"] = labels | manifest["metadata"]["labels"]
        manifest["data"] = {f"orders-{name}.json": text}
        yield manifest
