"""The metrics that only the notifier exports."""

import enum
from typing import Final

from prometheus_client import Counter, Gauge


class Try(enum.StrEnum):
    """How one try to deliver a notification ended."""

    SENT = "sent"
    FAILED = "failed"  # to be tried again
    GONE = "gone"  # the receiver answered 410: it wants no further try
    GIVEN_UP = "given_up"  # the last try failed


NOTIFICATIONS: Final = Counter(
    "notifications_total", "Tries to deliver a notification, by how they ended.", ["outcome"]
)
WAITING: Final = Gauge(
    "notifications_waiting",
    "Notifications that are not sent yet (counted up to 100,000); NaN: unknown.",
)
OLDEST_AGE: Final = Gauge(
    "notifications_oldest_age_seconds",
    "How long the oldest unsent notification has waited; 0: none waits; NaN: unknown.",
)
GIVEN_UP: Final = Gauge(
    "notifications_given_up", "Notifications given up and not sent again since; NaN: unknown."
)

for _outcome in Try:
    NOTIFICATIONS.labels(_outcome)  # shown as 0 before the first
