"""Metrics only the notifier exports."""

import enum
from typing import Final

from prometheus_client import Counter, Gauge


class Try(enum.StrEnum):
    """How one try to deliver a notification ended."""

    SENT = "sent"
    FAILED = "failed"  # to be tried again
    GONE = "gone"  # the receiver wants no more of them
    GIVEN_UP = "given_up"  # the last of days of tries failed


NOTIFICATIONS: Final = Counter(
    "notifications_total", "Tries to deliver a notification, by how they ended.", ["outcome"]
)
WAITING: Final = Gauge(
    "notifications_waiting",
    "Notifications that are not sent yet (counted up to 100,000); NaN: not known.",
)
OLDEST_AGE: Final = Gauge(
    "notifications_oldest_age_seconds",
    "How long the oldest of them has waited; 0: none does; NaN: not known.",
)
GIVEN_UP: Final = Gauge(
    "notifications_given_up", "Notifications given up and not sent again since; NaN: not known."
)

for _outcome in Try:
    NOTIFICATIONS.labels(_outcome)  # shown as 0 before the first
