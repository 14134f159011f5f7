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
        "Calls per second by upstream and outcome, retries included in one call.",
        (Query(rate(f"{CALLS}_count", "upstream, outcome"), "{{upstream}} {{outcome}}"),),
        PER_SECOND,
    ),
    Panel(
        "Duration, p99",
        "99 of 100 calls are faster, retries included.",
        (Query(quantile(0.99, CALLS, "upstream"), "{{upstream}}", exemplars=True),),
        SECONDS,
        steps=((1, ORANGE), (10, RED)),
    ),
    Panel(
        "Circuit breakers",
        "Open: calls are refused without being made, for 30 s at a time. The worst of all "
        "processes.",
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
        "Share of the api's connections to each server that are lent out.",
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
        "Reads per second by the server they went to and why.",
        (Query(rate("db_route_total", "target, reason"), "{{target}} {{reason}}"),),
        PER_SECOND,
        stacked=True,
    ),
    Panel(
        "Replica lag",
        "How far the replica is behind; above half a second it is not read from. No line: not "
        "reached.",
        (Query(f"max({of('db_replica_lag_seconds')})", "lag"),),
        SECONDS,
        steps=((0.5, ORANGE), (5, RED)),
    ),
)

_REDIS: Final = (
    Panel(
        "Cache hits",
        "Share of look-ups answered, by level: l1 in the process, l2 in Redis (asked after l1).",
        (Query(share("cache_requests_total", "level", (), 'result="hit"'), "{{level}}"),),
        SHARE,
        steps=((0.3, ORANGE), (0.6, GREEN)),
        below=RED,
    ),
    Panel(
        "Cache look-ups",
        "Look-ups per second by level and result. `error` and `bypass`: Redis is slow or gone.",
        (Query(rate("cache_requests_total", "level, result"), "{{level}} {{result}}"),),
        PER_SECOND,
    ),
    Panel(
        "Rate-limit decisions",
        "Decisions per second. `fallback_…`: counted in each process because Redis is gone.",
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
