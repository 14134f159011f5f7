"""Alerts on objectives: how fast the error budget burns, in a long and a short window at once.

Source: https://sre.google/workbook/alerting-on-slos/
"""

import math
from collections.abc import Iterator
from typing import Final

import msgspec

from orderservice_observability.objectives import (
    COMPLETION_BUCKETS,
    HTTP_BUCKETS,
    Objectives,
    Scope,
    bucket,
)
from orderservice_observability.rules.model import PAGE, TICKET, Alert, Record

BY: Final = "by (namespace, service)"
# No alert below this many bad events in the long window: one failure of three at night is 33 %.
FEWEST_BAD: Final = 10


class Window(msgspec.Struct, frozen=True):
    """Two windows, and the factor of the allowed burn rate that both must exceed."""

    long: str
    short: str
    factor: float
    severity: str
    shows: str = ""  # the period that a dashboard must show to include the long window


WINDOWS: Final = (
    Window("1h", "5m", 14.4, PAGE),
    Window("6h", "30m", 6, PAGE, "12h"),
    Window("1d", "2h", 3, TICKET, "2d"),
    Window("3d", "6h", 1, TICKET, "6d"),
)


class Sli(msgspec.Struct, frozen=True):
    """The events of an objective, and the bad ones among them, per second.

    `budget` is the share that may be bad.
    """

    name: str
    alert: str
    total: str
    bad: str
    budget: float
    promise: str
    dashboard: str


def indicators(scope: Scope, objectives: Objectives) -> tuple[Sli, ...]:
    """Return the indicators of the service's objectives."""
    return (
        _availability(scope, objectives),
        _create_latency(scope, objectives),
        _read_latency(scope, objectives),
        _completion(scope, objectives),
    )


def records(scope: Scope, objectives: Objectives, every_s: int) -> Iterator[Record]:
    """Yield rules for events per second, the share of bad ones by window, and their number.

    Long windows are sums over results of five minutes: three days of raw series every half minute
    would cost more than all other rules together.
    """
    windows = sorted({w for pair in WINDOWS for w in (pair.long, pair.short)} - {"5m"})
    for sli in indicators(scope, objectives):
        labels = {"slo": sli.name}
        yield Record("orders:slo_total:rate5m", sli.total, labels)
        yield Record("orders:slo_bad:rate5m", sli.bad, labels)
        yield Record("orders:slo_budget", f"{sli.total} * 0 + {sli.budget:.6g}", labels)
        bad, total = _recorded(scope, sli, "bad:rate5m"), _recorded(scope, sli, "total:rate5m")
        share = f"clamp_min({bad} / ({total} > 0), 0)"
        yield Record("orders:slo_errors:ratio5m", share, labels)
        for window in windows:
            share = f"sum_over_time({bad}[{window}]) / (sum_over_time({total}[{window}]) > 0)"
            yield Record(f"orders:slo_errors:ratio{window}", f"clamp_min({share}, 0)", labels)
        for pair in WINDOWS:
            number = f"clamp_min(sum_over_time({bad}[{pair.long}]) * {every_s}, 0)"
            yield Record(f"orders:slo_bad:increase{pair.long}", number, labels)


def alerts(scope: Scope, objectives: Objectives) -> Iterator[Alert]:
    """Yield four alerts for each objective."""
    for sli in indicators(scope, objectives):
        for window in WINDOWS:
            yield _alert(scope, sli, window)


def _alert(scope: Scope, sli: Sli, window: Window) -> Alert:
    limit = f"{window.factor * sli.budget:.6g}"
    ratios = [
        f"{_recorded(scope, sli, f'errors:ratio{length}')} > {limit}"
        for length in (window.long, window.short)
    ]
    count = f"{_recorded(scope, sli, f'bad:increase{window.long}')} >= {FEWEST_BAD}"
    return Alert(
        sli.alert,
        " and ".join([*ratios, count]),
        window.severity,
        f"{sli.promise}: the error budget burns {window.factor:g} times too fast.",
        f"{{{{ $value | humanizePercentage }}}} of events in the last {window.long} were bad, and"
        f" it continues. The objective allows {100 * sli.budget:.4g} % ({sli.promise}).",
        sli.dashboard,
        held_for="2m" if window.severity == PAGE else "15m",
        labels={"slo": sli.name, "window": window.long},
        shows=window.shows,
    )


def _recorded(scope: Scope, sli: Sli, series: str) -> str:
    return scope.of(f"orders:slo_{series}", f'slo="{sli.name}"')


def _availability(scope: Scope, objectives: Objectives) -> Sli:
    """Return the indicator of availability, counted at the gateway: it sees an api that is down."""
    metric, requests = "gateway_requests_total", 'scope="api"'
    total = _rate(scope, metric, requests)
    failures = _rate(scope, metric, requests, 'http_response_status_code=~"5.."')
    return Sli(
        "availability",
        "OrderAvailabilityBudgetBurn",
        total,
        f"{failures} or {total} * 0",  # 0, not no data, while nothing has failed
        _budget(objectives.availability),
        f"{objectives.availability:g} % of requests do not fail",
        "orders-overview",
    )


def _create_latency(scope: Scope, objectives: Objectives) -> Sli:
    metric = "order_create_duration_seconds"
    bound = bucket(HTTP_BUCKETS, objectives.latency_ms / 1000)
    total = _rate(scope, f"{metric}_count")
    return Sli(
        "create-latency",
        "OrderCreateLatencyBudgetBurn",
        total,
        f"{total} - {_rate(scope, f'{metric}_bucket', _le(bound))}",
        _budget(objectives.latency_share),
        f"{objectives.latency_share:g} % of orders are accepted within {bound * 1000:g} ms",
        "orders-api",
    )


def _read_latency(scope: Scope, objectives: Objectives) -> Sli:
    metric, reads = "http_server_request_duration_seconds", (
        'http_request_method="GET"', 'http_route=~"/api/.*"',
    )  # fmt: skip
    bound = bucket(HTTP_BUCKETS, objectives.read_latency_ms / 1000)
    total = _rate(scope, f"{metric}_count", *reads)
    return Sli(
        "read-latency",
        "OrderReadLatencyBudgetBurn",
        total,
        f"{total} - {_rate(scope, f'{metric}_bucket', *reads, _le(bound))}",
        _budget(objectives.latency_share),
        f"{objectives.latency_share:g} % of reads are answered within {bound * 1000:g} ms",
        "orders-api",
    )


def _completion(scope: Scope, objectives: Objectives) -> Sli:
    """Return the indicator of completion: orders accepted a while ago less those that ended in
    time.

    A refund ends an order a second time and does not count. Good orders are counted before they are
    expected, so a burst is below 0 at its start and above 0 by the same amount at its end. Only
    sums over a window are right and may be clamped. They include the good orders of the first
    minute, in which none is expected yet.
    """
    bound = bucket(COMPLETION_BUCKETS, objectives.completion_seconds)
    acceptances = scope.of("order_create_duration_seconds_count")
    ago_s = math.ceil(bound)  # Prometheus reads no 2.5s
    total = f"sum {BY} (rate({acceptances}[5m] offset {ago_s}s))"
    completions = _rate(scope, "order_completion_seconds_bucket", 'outcome!="Refunded"', _le(bound))
    return Sli(
        "completion",
        "OrderCompletionBudgetBurn",
        total,
        f"({total} or {completions} * 0) - ({completions} or {total} * 0)",
        _budget(objectives.completion_share),
        f"{objectives.completion_share:g} % of orders end within {bound:g} s of the 202",
        "orders-lifecycle",
    )


def _rate(scope: Scope, metric: str, *matchers: str) -> str:
    return f"sum {BY} (rate({scope.of(metric, *matchers)}[5m]))"


def _le(bound: float) -> str:
    return f'le="{float(bound)!r}"'


def _budget(percentage: float) -> float:
    return round(1 - percentage / 100, 8)
