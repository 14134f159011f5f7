"""What is known beside the resource when its children are decided."""

from collections.abc import Mapping
from typing import Final

import msgspec

from orderservice_operator.resource.spec import OrderService

SERVICE_MONITOR: Final = "ServiceMonitor"
PROMETHEUS_RULE: Final = "PrometheusRule"
SCALED_OBJECT: Final = "ScaledObject"
EXTERNAL_METRICS: Final = "ExternalMetrics"
HTTP_ROUTE: Final = "HTTPRoute"


class Facts(msgspec.Struct, frozen=True):
    """`kinds`: the optional kinds and APIs that this cluster has.

    `secrets`: of each process whose Secrets are known, a digest of what is in them. `before`: the
    resource with what pods may still run until all are replaced.
    """

    kinds: frozenset[str] = frozenset()
    migrated: bool = True
    secrets: Mapping[str, str] = {}
    before: OrderService | None = None
