"""Metrics only the worker exports."""

from typing import Final

from prometheus_client import Counter, Histogram

from orders.telemetry.buckets import HTTP_BUCKETS

ORDER_PROCESSING: Final = Histogram(
    "order_processing_duration_seconds",
    "Working time of one message of an order, calls to Inventory and Payment included.",
    buckets=HTTP_BUCKETS,
)
ORDER_TRANSITIONS: Final = Counter(
    "order_transitions_total",
    "Transitions the worker committed, by the status they led to.",
    ["status"],
)
ORDER_REFUNDS: Final = Counter(
    "order_refunds_total",
    "Refunds with a known outcome, by outcome; a declined one needs a person.",
    ["outcome"],
)
for _outcome in ("approved", "declined"):  # 0 before the first, so that an increase is seen
    ORDER_REFUNDS.labels(_outcome)
