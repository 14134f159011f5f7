"""The metrics that only the worker exports."""

from typing import Final

from prometheus_client import Counter, Histogram

from orders.telemetry.buckets import HTTP_BUCKETS

ORDER_PROCESSING: Final = Histogram(
    "order_processing_duration_seconds",
    "Time to handle one message of an order, including calls to Inventory and Payment.",
    buckets=HTTP_BUCKETS,
)
ORDER_TRANSITIONS: Final = Counter(
    "order_transitions_total",
    "Transitions that the worker committed, by new status.",
    ["status"],
)
ORDER_REFUNDS: Final = Counter(
    "order_refunds_total",
    "Refunds with a known outcome, by outcome; a declined one needs a person.",
    ["outcome"],
)
for _outcome in ("approved", "declined"):  # 0 before the first, so that an increase is seen
    ORDER_REFUNDS.labels(_outcome)
