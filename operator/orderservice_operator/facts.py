"""What is known beside the resource when its children are decided."""

from typing import Final

import msgspec

SERVICE_MONITOR: Final = "ServiceMonitor"
PROMETHEUS_RULE: Final = "PrometheusRule"
SCALED_OBJECT: Final = "ScaledObject"
EXTERNAL_METRICS: Final = "ExternalMetrics"


class Facts(msgspec.Struct, frozen=True):
    """`kinds`: the optional kinds and APIs that this cluster has."""

    kinds: frozenset[str] = frozenset()
    migrated: bool = True
