"""API: rate, errors and duration, by route."""

from typing import Final

from orderservice_dashboards.panels import (
    CHOICES,
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

HTTP: Final = "http_server_request_duration_seconds"
ROUTE: Final = "http_request_method, http_route"
LEGEND: Final = "{{http_request_method}} {{http_route}}"

_RED: Final = (
    Panel(
        "Rate",
        "Requests per second by route.",
        (Query(rate(f"{HTTP}_count", ROUTE), LEGEND),),
        PER_SECOND,
    ),
    Panel(
        "Errors",
        "Share of requests answered with 5xx, by route. The objective allows 0.1 %.",
        (Query(share(f"{HTTP}_count", ROUTE, (), 'http_response_status_code=~"5.."'), LEGEND),),
        SHARE,
        steps=((0.001, ORANGE), (0.01, RED)),
    ),
    Panel(
        "Duration, 99 %",
        "99 of 100 requests are faster, by route. Promised: POST 0.3 s, GET 0.1 s.",
        (Query(quantile(0.99, HTTP, ROUTE), LEGEND),),
        SECONDS,
        steps=((0.1, ORANGE), (0.3, RED)),
    ),
    Panel(
        "Duration, half",
        "Half of the requests are faster, by route.",
        (Query(quantile(0.5, HTTP, ROUTE), LEGEND),),
        SECONDS,
    ),
    Panel(
        "Status codes",
        "Requests per second by status code.",
        (
            Query(
                rate(f"{HTTP}_count", "http_response_status_code"), "{{http_response_status_code}}"
            ),
        ),
        PER_SECOND,
        stacked=True,
    ),
    Panel(
        "Orders taken, duration",
        "How long requests took that made an order: 50, 95 and 99 %.",
        tuple(
            Query(quantile(q, "order_create_duration_seconds"), f"{q:.0%}")
            for q in (0.5, 0.95, 0.99)
        ),
        SECONDS,
        steps=((0.3, RED),),
    ),
)  # fmt: skip

_MEANING: Final = (
    Panel(
        "Outcomes",
        "Requests about orders by what was asked and how it ended. `replayed`: a repeated "
        "idempotency key; `rate_limited`: 429.",
        (Query(rate("order_requests_total", "action, status"), "{{action}} {{status}}"),),
        PER_SECOND,
        width=12,
    ),
    Panel(
        "Refused by the rate limit",
        "Share of requests that were over their principal's limit.",
        (Query(share("ratelimit_decisions_total", "policy", (), 'decision=~".*refused"'),
               "{{policy}}"),),
        SHARE,
        steps=((0.05, ORANGE), (0.5, RED)),
    ),
    Panel(
        "At once",
        "Requests that can be served at once: processes, times their threads with gthread.",
        (Query(f"sum by (instance) ({of('http_server_workers')})", "{{instance}}"),),
        NUMBER,
        kind="stat",
        width=4,
    ),
)  # fmt: skip

API: Final = Dashboard(
    "api",
    "Orders / API",
    "Rate, errors and duration of requests, by route.",
    (Row("By route", _RED), Row("By meaning", _MEANING)),
    CHOICES,
)
