"""The build that a process runs, as a metric among its others."""

from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orders.settings import BuildSettings

NAME: Final = "orders_build_info"


class Identified(Collector):
    """The metrics of a process, preceded by its build as a constant 1 with version and revision."""

    def __init__(self, metrics: Collector, build: BuildSettings) -> None:
        self._metrics = metrics
        self._build = GaugeMetricFamily(
            NAME, "1, with the version and revision of the code.", labels=["version", "revision"]
        )
        self._build.add_metric([build.version, build.revision], 1)

    def collect(self) -> Iterator[Metric]:
        """Yield the build, then the other metrics."""
        yield self._build
        yield from self._metrics.collect()
