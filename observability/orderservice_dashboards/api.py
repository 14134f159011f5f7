"""API: rate, errors and duration, by route."""

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
    quantile_name,
    rate,
    recorded,
    share,
)

HTTP: Final = "http_server_request_duration_seconds"
ROUTE: Final = "http_request_method, http_route"
GATEWAY: Final = "gateway_requests_total"
CODE: Final = "http_response_status_code"
API_ROUTES: Final = 'http_route!="/health"'
API_ONLY: Final = 'scope="api"'
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
        "Duration, p99",
        "99 % of requests are faster, by route. The objective: POST 0.3 s, GET 0.1 s.",
        (Query(quantile(0.99, HTTP, ROUTE), LEGEND, exemplars=True),),
        SECONDS,
        steps=((0.1, ORANGE), (0.3, RED)),
    ),
    Panel(
        "Duration, p50",
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
        "Duration of accepted orders",
        "How long requests took that created an order: p50, p95 and p99.",
        tuple(
            Query(
                quantile(q, "order_create_duration_seconds"), quantile_name(q), exemplars=q == 0.99
            )
            for q in (0.5, 0.95, 0.99)
        ),
        SECONDS,
        steps=((0.3, RED),),
    ),
)  # fmt: skip

_MEANING: Final = (
    Panel(
        "Outcomes",
        "Requests per second by action and status. `replayed`: a repeated idempotency key; "
        "`rate_limited`: 429.",
        (Query(rate("order_requests_total", "action, status"), "{{action}} {{status}}"),),
        PER_SECOND,
        width=12,
    ),
    Panel(
        "Refused by the rate limit",
        "Share of requests that exceeded a limit, by policy.",
        (Query(share("ratelimit_decisions_total", "policy", (), 'decision=~".*refused"'),
               "{{policy}}"),),
        SHARE,
        steps=((0.05, ORANGE), (0.5, RED)),
    ),
    Panel(
        "Concurrency",
        "Requests that can be served at the same time: processes, times their threads with"
        " gthread.",
        (Query(f"sum by (instance) ({of('http_server_workers')})", "{{instance}}"),),
        NUMBER,
        kind="stat",
        width=4,
    ),
)  # fmt: skip

_GATEWAY: Final = (
    Panel(
        "Answers of the gateway",
        "Answers to requests for the API per second, by status code. They include requests that "
        "the gateway refused or could not pass on.",
        (Query(rate(GATEWAY, CODE, API_ONLY), f"{{{{{CODE}}}}}"),),
        PER_SECOND,
        stacked=True,
    ),
    Panel(
        "Server errors at the gateway",
        "Share of answers that are 5xx. 502 and 504: an api did not answer. 503: an api shed load, "
        "or the database is unavailable.",
        (
            Query(share(GATEWAY, "service", (API_ONLY,), f'{CODE}=~"5.."'), "5xx"),
            Query(share(GATEWAY, "service", (API_ONLY,), f'{CODE}="503"'), "503"),
        ),
        SHARE,
        steps=((0.001, ORANGE), (0.01, RED)),
    ),
    Panel(
        "Client errors at the gateway",
        "4xx answers per second: 400 and 431 malformed, 413 too large, 429 over a limit.",
        (Query(rate(GATEWAY, CODE, API_ONLY, f'{CODE}=~"4.."'), f"{{{{{CODE}}}}}"),),
        PER_SECOND,
    ),
    Panel(
        "Answered by the gateway itself",
        "Requests for the API that did not reach an api: the gateway refused or shed them. Over "
        "five minutes, because gateway and api are scraped at different times.",
        (
            Query(
                f"clamp_min(sum by (service) (rate({of(GATEWAY, API_ONLY)}[5m])) - "
                f"sum by (service) (rate({of(f'{HTTP}_count', API_ROUTES)}[5m])), 0)",
                "not passed on",
            ),
        ),
        PER_SECOND,
        width=12,
    ),
    Panel(
        "Reads in time, 5 min",
        "Share of GETs answered within the objective (99 % within 100 ms, over three days).",
        (Query("1 - " + recorded("orders:slo_errors:ratio5m", 'slo="read-latency"'), "in time"),),
        SHARE,
        steps=((0.9, ORANGE), (0.99, GREEN)),
        below=RED,
        width=12,
    ),
)  # fmt: skip

API: Final = Dashboard(
    "api",
    "Orders / API",
    "Rate, errors and duration of requests, by route.",
    (Row("By route", _RED), Row("Gateway", _GATEWAY), Row("By outcome", _MEANING)),
    CHOICES,
)
