"""Dependencies: Inventory, Payment and webhooks, PostgreSQL and its replica, Redis."""

from typing import Final

from orderservice_dashboards.panels import (
    CHOICES,
    GREEN,
    NUMBER,
    ORANGE,
    PER_SECOND,
    RED,
    SECONDS,
    SHARE,
    Dashboard,
    Panel,
    Query,
    Row,
    of,
    quantile,
    rate,
    share,
)

CALLS: Final = "upstream_request_duration_seconds"

_UPSTREAMS: Final = (
    Panel(
        "Calls",
        "Calls per second by upstream and outcome. Retries belong to their call.",
        (Query(rate(f"{CALLS}_count", "upstream, outcome"), "{{upstream}} {{outcome}}"),),
        PER_SECOND,
    ),
    Panel(
        "Duration, p99",
        "99 % of calls are faster, including retries.",
        (Query(quantile(0.99, CALLS, "upstream"), "{{upstream}}", exemplars=True),),
        SECONDS,
        steps=((1, ORANGE), (10, RED)),
    ),
    Panel(
        "Circuit breakers",
        "Open: calls are refused without being made, for 30 s at a time. Shows the worst process.",
        (Query(f"max by (upstream) ({of('circuit_breaker_state')})", "{{upstream}}"),),
        NUMBER,
        kind="stat",
        steps=((1, ORANGE), (2, RED)),
        words={0: "closed", 1: "half open", 2: "open"},
    ),
)

_DATABASE: Final = (
    Panel(
        "Connections in use",
        "Share of the api's connections to each server that are in use.",
        (
            Query(
                f"sum by (target) ({of('db_pool_in_use')})"
                f" / sum by (target) ({of('db_pool_size')})",
                "{{target}}",
            ),
        ),
        SHARE,
        steps=((0.7, ORANGE), (0.9, RED)),
    ),
    Panel(
        "Reads, by server",
        "Reads per second by server and reason.",
        (Query(rate("db_route_total", "target, reason"), "{{target}} {{reason}}"),),
        PER_SECOND,
        stacked=True,
    ),
    Panel(
        "Replica lag",
        "How far the replica lags. Above half a second, reads go to the primary. No line: "
        "unreachable.",
        (Query(f"max({of('db_replica_lag_seconds')})", "lag"),),
        SECONDS,
        steps=((0.5, ORANGE), (5, RED)),
    ),
)

_REDIS: Final = (
    Panel(
        "Cache hits",
        "Share of look-ups answered, by level: l1 in the process, then l2 in Redis.",
        (Query(share("cache_requests_total", "level", (), 'result="hit"'), "{{level}}"),),
        SHARE,
        steps=((0.3, ORANGE), (0.6, GREEN)),
        below=RED,
    ),
    Panel(
        "Cache look-ups",
        "Look-ups per second by level and result. `error` and `bypass`: Redis is slow or "
        "unreachable.",
        (Query(rate("cache_requests_total", "level, result"), "{{level}} {{result}}"),),
        PER_SECOND,
    ),
    Panel(
        "Rate-limit decisions",
        "Decisions per second. `fallback_…`: each process counts on its own because Redis is "
        "unreachable.",
        (Query(rate("ratelimit_decisions_total", "decision"), "{{decision}}"),),
        PER_SECOND,
        stacked=True,
    ),
)

DEPENDENCIES: Final = Dashboard(
    "dependencies",
    "Orders / Dependencies",
    "Everything the service calls: upstreams, PostgreSQL, Redis.",
    (Row("Upstreams", _UPSTREAMS), Row("PostgreSQL", _DATABASE), Row("Redis", _REDIS)),
    CHOICES,
)
