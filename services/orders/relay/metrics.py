"""The metrics that only the relay exports."""

from typing import Final

from prometheus_client import Counter, Gauge

from orders.messaging.publisher import PublishOutcome

OUTBOX_PENDING: Final = Gauge(
    "outbox_pending", "Rows that wait in the outbox (counted up to 100,000); NaN: unknown."
)
OUTBOX_OLDEST_AGE: Final = Gauge(
    "outbox_oldest_age_seconds", "Age of the oldest row in the outbox; NaN: unknown."
)
OUTBOX_PARKED: Final = Gauge(
    "outbox_parked", "Rows in the outbox whose customer has many orders and waits for its turn."
)
OUTBOX_SHARE: Final = Gauge(
    "outbox_crowd_share",
    "Part of ORDERS_RELAY_UNDER_WAY that customers with many orders may use now.",
)
OUTBOX_PUBLISHED: Final = Counter(
    "outbox_published_total",
    "Rows published, by outcome; all but `confirmed` are tried again.",
    ["outcome"],
)
OUTBOX_HELD: Final = Gauge(
    "outbox_held",
    "1 while messages of this type wait because one of their queues refuses them.",
    ["type"],
)
RELAY_LEADING: Final = Gauge("relay_leading", "1 while this relay publishes, 0 while it stands by.")

QUEUE_MESSAGES: Final = Gauge(
    "messaging_queue_messages", "Messages in a queue that no consumer has taken yet.", ["queue"]
)
QUEUE_CONSUMERS: Final = Gauge("messaging_queue_consumers", "Consumers of a queue.", ["queue"])

for _outcome in PublishOutcome:
    OUTBOX_PUBLISHED.labels(_outcome)  # shown as 0 before the first
