"""Delivers one webhook per order and template."""

import time
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from orders.database.notifications import Notifications
from orders.domain.events import OrderEvent
from orders.errors import Transient
from orders.messaging.envelope import Message
from orders.notifier.signature import signed_headers
from orders.upstream.http import Upstream, refusal
from orders.upstream.transport import Reply, Request

_RETRY_S: Final = 5.0  # another sender has it; its claim or its success will be known by then
_log = structlog.get_logger()


class Webhook(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """The body: what happened to which order; the receiver asks the API for more."""

    type: str
    timestamp: str
    data: OrderEvent


class Delivery:
    """Handles the messages of order-notifications.

    `wall_clock` is unix time in seconds.
    """

    def __init__(
        self,
        notifications: Notifications,
        receiver: Upstream,
        path: str,
        secret: str,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._notifications, self._receiver, self._path = notifications, receiver, path
        self._secret, self._wall_clock = secret, wall_clock

    def handle(self, message: Message) -> None:
        """Send the notification a message asks for, unless it was sent. Idempotent.

        A crash between the receiver's answer and the note of it sends once more, under the same
        webhook id, by which Standard Webhooks lets the receiver recognise it.
        Raises Transient to have the message again later, Permanent when the receiver refuses.
        """
        order_id, template = message.body.order_id, message.type
        claim = self._notifications.claim(order_id, template, message.message_id)
        if claim.sent:
            return
        if not claim.granted:
            raise Transient("another sender is at it", retry_after_s=_RETRY_S)
        sent = False
        try:
            self._send(message, claim.webhook_id)
            sent = True
        finally:
            self._notifications.settle(order_id, template, sent=sent)
        _log.info("notification.sent", orderId=order_id, template=template)

    def _send(self, message: Message, webhook_id: str) -> None:
        now_s = int(self._wall_clock())
        sent_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s))
        body = msgspec.json.encode(Webhook(message.type.removesuffix(".v1"), sent_at, message.body))
        headers = signed_headers(webhook_id, now_s, body, self._secret)
        self._receiver.call(Request("POST", self._path, "/", body, headers), _accepted)


def _accepted(reply: Reply) -> None:
    if reply.status >= 400:
        raise refusal(reply)
