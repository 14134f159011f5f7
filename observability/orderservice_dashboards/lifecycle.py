"""Life cycle: progress and speed of orders, and orders that are stuck."""

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
        "Orders that reached each step in the period shown: accepted, stock reserved, charge "
        "begun, ended.",
        (
            Query(_total("order_create_duration_seconds_count"), "1 accepted"),
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
        "Orders ended, by status",
        "Orders that ended, per second. `Failed` is mostly declined payments: a business outcome, "
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
        "Age of the oldest order in each status. Beyond ten times the objective an alert fires.",
        (Query(f"max by (status) ({of('orders_oldest_age_seconds')})", "{{status}}"),),
        SECONDS,
        steps=((60, ORANGE), (600, RED)),
        width=8,
    ),
    Panel(
        "Payments with unknown outcome",
        "Payment attempts older than 15 s whose outcome is not known yet. The worker keeps asking "
        "for it under the same key and never charges twice.",
        (Query(f"max({of('payment_unknown')})", "unknown"),),
        NUMBER,
        kind="stat",
        steps=((1, RED),),
        width=8,
    ),
    Panel(
        "Oldest payment with unknown outcome",
        "Age of the oldest of these attempts. After ten minutes an alert pages.",
        (Query(f"max({of('payment_unknown_oldest_age_seconds')})", "oldest"),),
        SECONDS,
        steps=((60, ORANGE), (600, RED)),
        width=12,
    ),
    Panel(
        "Retries of stalled orders",
        "Orders per second that passed the deadline of their status and were emitted again.",
        (Query(rate("orders_stalled_total", "service"), "stalled"),),
        PER_SECOND,
        steps=((0.1, ORANGE),),
        width=12,
    ),
    Panel(
        "Last sweep",
        "Time since a worker last looked for stalled orders.",
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
        "Cancellations requested",
        "Requests to cancel an order, by answer. `conflict`: the order failed, or it is too late "
        "to cancel it.",
        (Query(rate("order_requests_total", "status", 'action="cancel"'), "{{status}}"),),
        PER_SECOND,
        stacked=True,
        width=8,
    ),
    Panel(
        "Cancelled and refunded by the worker",
        "Orders per second that ended Refunded, or Cancelled because Payment declined after the "
        "cancellation. Orders cancelled before payment are not counted here.",
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
        "Refunds requested by support",
        "Support's requests to refund an order, by answer.",
        (Query(rate("order_requests_total", "status", 'action="refund"'), "{{status}}"),),
        PER_SECOND,
        stacked=True,
        width=8,
    ),
    Panel(
        "Refunds by outcome",
        "Refunds with a known outcome. A declined refund is not tried again: a person settles it.",
        (Query(rate("order_refunds_total", "outcome"), "{{outcome}}"),),
        PER_SECOND,
        width=8,
    ),
    Panel(
        "Refunds declined, 24 h",
        "Refunds that Payment declined within a day. Above 0 an alert opens a ticket.",
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
        "Orders for which the database and the ledgers of Payment and Inventory disagree, by "
        "kind. Above 0 an alert pages.",
        (Query(f"max by (kind) ({of('orders_integrity_violations')})", "{{kind}}"),),
        NUMBER,
        steps=((1, RED),),
        width=8,
    ),
    Panel(
        "Last reconciliation",
        "Time since the last successful reconciliation of orders with the ledgers.",
        (Query(f"time() - max({of('orders_reconcile_last_success_timestamp_seconds')})", "ago"),),
        SECONDS,
        steps=((900, ORANGE), (3600, RED)),
        width=8,
    ),
    Panel(
        "Orders that need a person",
        "Stuck orders: they stalled three times, or a refund was declined. `orders stuck` lists "
        "them.",
        (Query(f"max by (status) ({of('orders_stuck')})", "{{status}}"),),
        NUMBER,
        steps=((1, ORANGE),),
        width=8,
    ),
)

_SPEED: Final = (
    Panel(
        "Time from the 202 to the end",
        "How long orders take to their first end: p50, p95 and p99.",
        tuple(
            Query(quantile(q, "order_completion_seconds"), quantile_name(q), exemplars=q == 0.99)
            for q in (0.5, 0.95, 0.99)
        ),
        SECONDS,
        steps=((60, RED),),
    ),
    Panel(
        "Orders ended in time, 5 min",
        "Share of accepted orders that ended within the objective; one that never ends counts as "
        "late.",
        (Query("1 - " + recorded("orders:slo_errors:ratio5m", 'slo="completion"'), "in time"),),
        SHARE,
        steps=((0.9, ORANGE), (0.99, GREEN)),
        below=RED,
    ),
    Panel(
        "Time to handle a message",
        "How long the worker takes for one message of an order, including calls to Inventory and "
        "Payment.",
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
        "All orders by status; an estimate for large tables.",
        (Query(f"max by (status) ({of('orders_in_state')})", "{{status}}"),),
        NUMBER,
        kind="bargauge",
        width=24,
    ),
)

LIFECYCLE: Final = Dashboard(
    "lifecycle",
    "Orders / Life cycle",
    "Progress and speed of orders, and orders that are stuck.",
    (
        Row("Funnel", _FUNNEL),
        Row("Stuck", _STUCK),
        Row("Cancellations and refunds", _REVERSALS),
        Row("Integrity", _INTEGRITY),
        Row("Speed", _SPEED),
    ),
    CHOICES,
)
