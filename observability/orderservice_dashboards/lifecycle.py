"""Life cycle: how far and how fast orders get, and which of them are stuck."""

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
)

STATUS_REFUNDING: Final = 'status="Refunding"'


def _total(metric: str, *matchers: str) -> str:
    return f"sum(increase({of(metric, *matchers)}[$__range]))"


_FUNNEL: Final = (
    Panel(
        "Funnel",
        "How many orders got how far in the time shown: taken, stock reserved, charge begun, and "
        "how they ended.",
        (
            Query(_total("order_create_duration_seconds_count"), "1 taken"),
            Query(_total("order_transitions_total", 'status="Reserved"'), "2 reserved"),
            Query(_total("order_transitions_total", 'status="Charging"'), "3 charging"),
            Query(_total("order_transitions_total", 'status="Completed"'), "4 completed"),
            Query(_total("order_transitions_total", 'status="Failed"'), "failed"),
            Query(_total("order_transitions_total", 'status="Refunded"'), "refunded"),
        ),
        NUMBER,
        kind="bargauge",
        width=12,
    ),
    Panel(
        "Ended, by how",
        "Orders that ended per second. `Failed` are mostly declined payments: that is business, "
        "not a fault.",
        (Query(rate("order_completion_seconds_count", "outcome"), "{{outcome}}"),),
        PER_SECOND,
        width=12,
        stacked=True,
    ),
)

_STUCK: Final = (
    Panel(
        "Unfinished orders",
        "Orders that have not ended, by status.",
        (
            Query(
                "max by (status) ("
                + of("orders_in_state", 'status=~"Pending|Reserved|Charging|Refunding"')
                + ")",
                "{{status}}",
            ),
        ),
        NUMBER,
        stacked=True,
        width=8,
    ),
    Panel(
        "Oldest order in a status",
        "How long the order longest in a status has been there. Beyond ten times the objective it "
        "is stuck.",
        (Query(f"max by (status) ({of('orders_oldest_age_seconds')})", "{{status}}"),),
        SECONDS,
        steps=((60, ORANGE), (600, RED)),
        width=8,
    ),
    Panel(
        "Payments with unknown outcome",
        "Attempts of which nobody knows whether they were charged, older than 15 s. They are asked "
        "for again, never charged anew.",
        (Query(f"max({of('payment_unknown')})", "unknown"),),
        NUMBER,
        kind="stat",
        steps=((1, RED),),
        width=8,
    ),
    Panel(
        "Oldest payment with unknown outcome",
        "How long the outcome of the oldest of these attempts has been unknown. After ten minutes "
        "somebody is woken.",
        (Query(f"max({of('payment_unknown_oldest_age_seconds')})", "oldest"),),
        SECONDS,
        steps=((60, ORANGE), (600, RED)),
        width=12,
    ),
    Panel(
        "Retries of stalled orders",
        "Orders per second that sat in a status past their deadline and were given to the worker "
        "again.",
        (Query(rate("orders_stalled_total", "service"), "stalled"),),
        PER_SECOND,
        steps=((0.1, ORANGE),),
        width=12,
    ),
    Panel(
        "Last sweep",
        "How long ago stalled orders were last looked for.",
        (
            Query(
                f"time() - max({of('orders_sweep_last_success_timestamp_seconds')})",
                "ago",
            ),
        ),
        SECONDS,
        steps=((60, ORANGE), (600, RED)),
        width=12,
    ),
)

_REVERSALS: Final = (
    Panel(
        "Cancellations asked for",
        "Requests to cancel an order, by how they were answered. `conflict`: the order failed, or "
        "its window has closed.",
        (Query(rate("order_requests_total", "status", 'action="cancel"'), "{{status}}"),),
        PER_SECOND,
        stacked=True,
        width=8,
    ),
    Panel(
        "Cancelled and refunded by the worker",
        "Orders per second that ended Refunded, or Cancelled because Payment declined after the "
        "cancellation. An order that is cancelled before its payment ends with the request.",
        (
            Query(
                rate("order_transitions_total", "status", 'status=~"Cancelled|Refunded"'),
                "{{status}}",
            ),
        ),
        PER_SECOND,
        width=8,
    ),
    Panel(
        "Orders being refunded",
        "Cancelled orders whose money is on its way back.",
        (Query(f"max({of('orders_in_state', STATUS_REFUNDING)})", "refunding"),),
        NUMBER,
        steps=((10, ORANGE),),
        width=8,
    ),
    Panel(
        "Refunds asked for by support",
        "Requests of support to pay money back, by how they were answered.",
        (Query(rate("order_requests_total", "status", 'action="refund"'), "{{status}}"),),
        PER_SECOND,
        stacked=True,
        width=8,
    ),
    Panel(
        "Refunds by outcome",
        "Refunds whose outcome Payment told. A declined one is not tried again: a person settles "
        "it.",
        (Query(rate("order_refunds_total", "outcome"), "{{outcome}}"),),
        PER_SECOND,
        width=8,
    ),
    Panel(
        "Refunds declined, 24 h",
        "Refunds that Payment declined within a day. Above 0 a ticket is opened.",
        (
            Query(
                "sum(increase(" + of("order_refunds_total", 'outcome="declined"') + "[24h]))",
                "declined",
            ),
        ),
        NUMBER,
        kind="stat",
        steps=((1, RED),),
        width=8,
    ),
)

_INTEGRITY: Final = (
    Panel(
        "Integrity",
        "Orders on which the database and the ledgers of Payment and Inventory do not agree, by "
        "kind. Above 0 somebody is woken.",
        (Query(f"max by (kind) ({of('orders_integrity_violations')})", "{{kind}}"),),
        NUMBER,
        steps=((1, RED),),
        width=8,
    ),
    Panel(
        "Last reconciliation",
        "How long ago orders and ledgers were last compared to the end.",
        (Query(f"time() - max({of('orders_reconcile_last_success_timestamp_seconds')})", "ago"),),
        SECONDS,
        steps=((900, ORANGE), (3600, RED)),
        width=8,
    ),
    Panel(
        "Orders that need a person",
        "Given to the worker again and again without an effect, or a refund was declined. "
        "`orders stuck` lists them.",
        (Query(f"max by (status) ({of('orders_stuck')})", "{{status}}"),),
        NUMBER,
        steps=((1, ORANGE),),
        width=8,
    ),
)

_SPEED: Final = (
    Panel(
        "From the 202 to the end",
        "How long orders take to their first end: p50, p95 and p99.",
        tuple(
            Query(quantile(q, "order_completion_seconds"), quantile_name(q), exemplars=q == 0.99)
            for q in (0.5, 0.95, 0.99)
        ),
        SECONDS,
        steps=((60, RED),),
    ),
    Panel(
        "Ended in time, 5 min",
        "Share of the orders taken that ended within the objective; one that never ends is bad.",
        (Query("1 - " + recorded("orders:slo_errors:ratio5m", 'slo="completion"'), "in time"),),
        SHARE,
        steps=((0.9, ORANGE), (0.99, GREEN)),
        below=RED,
    ),
    Panel(
        "Work on one message",
        "Working time of one message of an order, calls to Inventory and Payment included.",
        tuple(
            Query(
                quantile(q, "order_processing_duration_seconds"),
                quantile_name(q),
                exemplars=q == 0.99,
            )
            for q in (0.5, 0.99)
        ),
        SECONDS,
    ),
    Panel(
        "Orders by status",
        "All orders by status; of large tables an estimate.",
        (Query(f"max by (status) ({of('orders_in_state')})", "{{status}}"),),
        NUMBER,
        kind="bargauge",
        width=24,
    ),
)

LIFECYCLE: Final = Dashboard(
    "lifecycle",
    "Orders / Life cycle",
    "How far orders get, how fast, and which of them are stuck.",
    (
        Row("Funnel", _FUNNEL),
        Row("Stuck", _STUCK),
        Row("Cancellations and refunds", _REVERSALS),
        Row("Integrity", _INTEGRITY),
        Row("Speed", _SPEED),
    ),
    CHOICES,
)
