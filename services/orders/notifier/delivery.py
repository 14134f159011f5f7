"""Handles the messages of order-notifications: each says that an order has something to tell."""

from typing import Final

from orders.database.notifications import Notification, Notifications
from orders.messaging.envelope import Message
from orders.notifier.sending import Sending

DEFERRED: Final = "deferred"  # nothing was due: the sweeper sends it when it is


class Delivery:
    """Sends what is due for the order of a message.

    The truth is the notification's row, not the message: what cannot be sent now stays there.
    """

    def __init__(self, notifications: Notifications, sending: Sending) -> None:
        self._notifications, self._sending = notifications, sending

    def handle(self, message: Message) -> str | None:
        """Send an order's notifications in their order, as far as they are due. Idempotent.

        Raises Transient when PostgreSQL is not to be had.
        """
        notification = self._next(message)
        if notification is None:
            return DEFERRED
        while notification is not None and self._sending.send(notification):
            notification = self._notifications.claim(message.body.order_id)
        return None

    def _next(self, message: Message) -> Notification | None:
        order_id = message.body.order_id
        if self._sending.resting:
            self._queue(message)
            return None
        claimed = self._notifications.claim(order_id)
        if claimed is None and self._queue(message):
            return self._notifications.claim(order_id)
        return claimed

    def _queue(self, message: Message) -> bool:
        """Write the row of a message that is older than such rows; false if there is one."""
        ids = (message.correlation_id, message.traceparent)
        return self._notifications.queue(message.message_id, message.type, message.body, ids)
