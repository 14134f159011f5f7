"""The parts of a dashboard as data: queries with their meaning and thresholds."""

from typing import Final, Literal

import msgspec

from orderservice_observability.objectives import select

Kind = Literal["timeseries", "stat", "bargauge", "table", "logs"]

# Grafana's names of units.
SECONDS: Final = "s"
SHARE: Final = "percentunit"
PER_SECOND: Final = "ops"
NUMBER: Final = "short"
BYTES: Final = "bytes"

GREEN, ORANGE, RED = "green", "orange", "red"
Steps = tuple[tuple[float, str], ...]
SERVICE_SERIES: Final = ('namespace=~"$namespace"', 'service=~"$service"')


class Query(msgspec.Struct, frozen=True):
    """An expression and the legend of its series; Grafana fills in `{{label}}`."""

    expr: str
    legend: str
    exemplars: bool = False


class Panel(msgspec.Struct, frozen=True):
    """One panel. `steps` are the values from which it has another colour; below it is green."""

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str
    kind: Kind = "timeseries"
    steps: Steps = ()
    below: str = GREEN
    width: int = 8
    stacked: bool = False
    words: dict[int, str] = {}


class Row(msgspec.Struct, frozen=True):
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


class Variable(msgspec.Struct, frozen=True):
    """A variable at the top of a dashboard; `query` returns its possible values."""

    name: str
    label: str
    query: str
    several: bool = False


class Dashboard(msgspec.Struct, frozen=True):
    """One dashboard; its uid is `orders-<name>`."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...]

    @property
    def uid(self) -> str:
        """Return the uid, which links use."""
        return f"orders-{self.name}"


# The three choices of every dashboard about a service; the operator's has the same three names.
CHOICES: Final = (
    Variable("namespace", "Namespace", 'label_values(up{service=~".+-admin"}, namespace)'),
    Variable("service", "Service", 'label_values(up{namespace=~"$namespace"}, service)'),
    Variable(
        "instance",
        "Instance",
        'label_values(up{namespace=~"$namespace",service=~"$service"}, instance)',
        several=True,
    ),
)


def of(metric: str, *matchers: str) -> str:
    """Return a selector for a metric of the chosen service and instances."""
    return select(metric, *SERVICE_SERIES, 'instance=~"$instance"', *matchers)


def recorded(metric: str, *matchers: str) -> str:
    """Return a selector for a rule's result, which has no instances."""
    return select(metric, *SERVICE_SERIES, *matchers)


def rate(metric: str, by: str, *matchers: str) -> str:
    """Return an expression for events per second."""
    return f"sum by ({by}) (rate({of(metric, *matchers)}[$__rate_interval]))"


def share(metric: str, by: str, matchers: tuple[str, ...], matcher: str) -> str:
    """Return an expression for the share of events that match `matcher`; 0 if none does."""
    total = rate(metric, by, *matchers)
    return f"({rate(metric, by, *matchers, matcher)} or {total} * 0) / {total}"


def quantile(q: float, metric: str, by: str = "", *matchers: str) -> str:
    """Return an expression for a quantile of a histogram."""
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', labels, *matchers)})"


def quantile_name(q: float) -> str:
    """Return the name of a quantile: p50, p99, p99.9."""
    return f"p{100 * q:g}"
