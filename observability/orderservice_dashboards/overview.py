"""Overview: whether objectives are met, remaining error budgets, firing alerts."""

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
    recorded,
)

SLOS: Final = {
    "availability": "Requests that did not fail",
    "create-latency": "Orders accepted in time",
    "read-latency": "Reads answered in time",
    "completion": "Orders ended in time",
}
# The default objectives: colours are fixed, while the budget panels follow the resource.
BUDGETS: Final = dict.fromkeys(SLOS, 0.01) | {"availability": 0.001}


def _kept(slo: str, title: str) -> Panel:
    matcher = f'slo="{slo}"'
    errors = recorded("orders:slo_errors:ratio1h", matcher)
    return Panel(
        f"{title}, 1 h",
        f"Share of events within an hour that met the objective `{slo}`. Red: the budget burns more"
        " than 14 times too fast.",
        (Query(f"1 - {errors}", slo),),
        SHARE,
        kind="stat",
        steps=((1 - 14.4 * BUDGETS[slo], ORANGE), (1 - BUDGETS[slo], GREEN)),
        below=RED,
        width=6,
    )


def _left(slo: str, title: str) -> Panel:
    matcher = f'slo="{slo}"'
    errors = recorded("orders:slo_errors:ratio3d", matcher)
    budget = recorded("orders:slo_budget", matcher)
    return Panel(
        f"{title}: budget left, 3 d",
        "Share of the three-day error budget that is left. Below 0 the objective is missed.",
        (Query(f"1 - {errors} / {budget}", slo),),
        SHARE,
        kind="stat",
        steps=((0, ORANGE), (0.5, GREEN)),
        below=RED,
        width=6,
    )


_BURN: Final = tuple(
    Panel(
        f"Burn rate, {window}",
        f"How many times too fast the error budget burns over {window}. At 1 it lasts exactly as "
        f"planned. An alert fires above {limit} in both the long and the short window.",
        (
            Query(
                f"{recorded(f'orders:slo_errors:ratio{window}')} / {recorded('orders:slo_budget')}",
                "{{slo}}",
            ),
        ),
        NUMBER,
        steps=((1, ORANGE), (float(limit), RED)),
        width=12,
    )
    for window, limit in (("1h", "14.4"), ("6h", "6"))
)

OVERVIEW: Final = Dashboard(
    "overview",
    "Orders / Overview",
    "Whether the service meets its objectives. Start here.",
    (
        Row("Objectives", tuple(_kept(slo, title) for slo, title in SLOS.items())),
        Row("Error budgets", tuple(_left(slo, title) for slo, title in SLOS.items())),
        Row("Burning", _BURN),
        Row(
            "Now",
            (
                Panel(
                    "Alerts firing",
                    "Alerts that fire now for the service, or for no service. `Watchdog` always"
                    " fires: it proves that alerting works.",
                    (
                        Query(
                            'sum by (alertname, severity) (ALERTS{alertstate="firing",'
                            'namespace=~"$namespace|",service=~"$service|"})',
                            "{{alertname}} ({{severity}})",
                        ),
                    ),
                    NUMBER,
                    stacked=True,
                ),
                Panel(
                    "Orders accepted and ended",
                    "Orders accepted with 202, and orders that ended, by status. The totals should"
                    " be equal.",
                    (
                        Query(rate("order_create_duration_seconds_count", "service"), "accepted"),
                        Query(
                            rate("order_completion_seconds_count", "outcome"), "ended {{outcome}}"
                        ),
                    ),
                    PER_SECOND,
                ),
                Panel(
                    "Time from the 202 to the end",
                    "How long orders take to their first end: p50 and p99.",
                    (
                        Query(quantile(0.5, "order_completion_seconds"), "p50"),
                        Query(quantile(0.99, "order_completion_seconds"), "p99", exemplars=True),
                    ),
                    SECONDS,
                    steps=((60, RED),),
                ),
                Panel(
                    "Requests",
                    "Answers of the gateway per second, by status code.",
                    (
                        Query(
                            rate("gateway_requests_total", "http_response_status_code"),
                            "{{http_response_status_code}}",
                        ),
                    ),
                    PER_SECOND,
                    stacked=True,
                ),
                Panel(
                    "Processes up",
                    "Processes that answer Prometheus, by component.",
                    (Query(f"sum by (component) ({of('up')})", "{{component}}"),),
                    NUMBER,
                    kind="stat",
                    steps=((1, GREEN),),
                    below=RED,
                ),
                Panel(
                    "Integrity violations",
                    "Orders for which database, Payment and Inventory disagree. The objective is 0:"
                    " above it an alert pages.",
                    (Query(f"sum(max by (kind) ({of('orders_integrity_violations')}))", "orders"),),
                    NUMBER,
                    kind="stat",
                    steps=((1, RED),),
                ),
                Panel(
                    "Orders that need a person",
                    "Stuck orders; `orders stuck` lists them.",
                    (Query(f"sum(max by (status) ({of('orders_stuck')}))", "orders"),),
                    NUMBER,
                    kind="stat",
                    steps=((1, ORANGE),),
                ),
                Panel(
                    "Waiting",
                    "Unfinished work: rows in the outbox, messages in the work queues, orders that"
                    " have not ended.",
                    (
                        Query(f"max({of('outbox_pending')})", "outbox"),
                        Query(
                            "sum(max by (queue) ("
                            + of(
                                "messaging_queue_messages",
                                'queue=~"order-processing|order-notifications"',
                            )
                            + "))",
                            "queues",
                        ),
                        Query(
                            "sum(max by (status) ("
                            + of("orders_in_state", 'status=~"Pending|Reserved|Charging|Refunding"')
                            + "))",
                            "orders",
                        ),
                    ),
                    NUMBER,
                ),
            ),
        ),
    ),
    CHOICES,
)
