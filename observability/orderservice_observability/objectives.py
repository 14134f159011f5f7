"""The objectives of a service, and selectors for its series."""

from typing import Final

import msgspec

# Seconds. The services' histogram buckets; an objective between two uses the lower one.
HTTP_BUCKETS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
COMPLETION_BUCKETS: Final = (
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
)  # fmt: skip


class Objectives(msgspec.Struct, frozen=True):
    """The `slo` of an OrderService. `*_share` is the percentage that keeps the limit next to it."""

    availability: float = 99.9
    latency_ms: int = 300
    read_latency_ms: int = 100
    latency_share: float = 99.0
    completion_seconds: int = 60
    completion_share: float = 99.0


class Scope(msgspec.Struct, frozen=True):
    """The series of one order service, in one namespace or in any.

    `name` is that of the OrderService. A ServiceMonitor's label `service` names the Service through
    which metrics are scraped.
    """

    name: str
    namespace: str | None = None

    @property
    def service(self) -> str:
        """Return the value of the label `service`."""
        return f"{self.name}-admin"

    def of(self, metric: str, *matchers: str) -> str:
        """Return a selector for a metric of this service."""
        return select(metric, *self._namespace(), f'service="{self.service}"', *matchers)

    def of_cluster(self, metric: str, *matchers: str) -> str:
        """Return a selector for a metric of kube-state-metrics, by the names of this service's
        objects.
        """
        return select(metric, *self._namespace(), *matchers)

    def _namespace(self) -> tuple[str, ...]:
        return (f'namespace="{self.namespace}"',) if self.namespace else ()


def select(metric: str, *matchers: str) -> str:
    """Return a selector. It always has braces, so that the tests can find it."""
    return f"{metric}{{{','.join(matchers)}}}"


def bucket(buckets: tuple[float, ...], limit_s: float) -> float:
    """Return the largest bucket that is not above the limit; the smallest if all are."""
    return max((bound for bound in buckets if bound <= limit_s), default=buckets[0])
