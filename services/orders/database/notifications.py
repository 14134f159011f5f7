"""Notifications of events of orders: each waits in a row until it was sent, or ended without.

Threads that claim at the same time, or end their claims, share a statement and its commit.
"""

import datetime as dt
import enum
import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from orders.database.pool import Pool, Row
from orders.database.sharing import PATIENCE_S, SharedStatement
from orders.domain.events import OrderEvent


class Outcome(enum.StrEnum):
    """How a notification ended without having been sent."""

    GONE = "gone"  # the receiver wants no more of them
    GIVEN_UP = "given_up"  # days of trying are over


WAITING: Final = "waiting"  # for a further try


class Notification(msgspec.Struct, frozen=True):
    """A notification that this process alone may send now."""

    order_id: int
    template: str  # the type of the event's message
    webhook_id: str  # the same on every try
    event: OrderEvent
    correlation_id: str | None
    traceparent: str | None
    tries: int  # those that failed
    age_s: float


class Unsent(msgspec.Struct, frozen=True):
    """A notification as people see it; `state` is `waiting` or an Outcome."""

    order_id: int
    template: str
    state: str
    tries: int
    queued_at: dt.datetime
    next_at: dt.datetime | None
    last_error: str | None


class Reason(msgspec.Struct, frozen=True):
    """The actor and the reason, for the audit row."""

    actor: str
    because: str


class Counts(msgspec.Struct, frozen=True):
    """How many notifications are not sent."""

    waiting: int
    oldest_age_s: float
    given_up: int


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """How a claim ended: sent, ended, or to be tried again in `again_in_s` seconds."""

    sent: bool = False
    outcome: Outcome | None = None
    again_in_s: float | None = None
    error: str | None = None
    tried: bool = True  # false: the receiver was not asked


class _Ended(msgspec.Struct):
    place: int
    order_id: int
    template: str
    message_id: str
    sent: bool
    outcome: Outcome | None
    again_in_s: float | None
    error: str | None
    tried: int


class Notifications:
    """The notifications of orders, earliest first within each order."""

    def __init__(self, primary: Pool, claim_s: float, patience_s: float = PATIENCE_S) -> None:
        """Make claims last for `claim_s` seconds: longer than sending one takes.

        `patience_s` is how long a thread waits for a statement of others.
        """
        self._primary, self._claim_s = primary, claim_s
        self._claims: SharedStatement[int, Notification | None] = SharedStatement(
            self._claim_one, self._claim_several, patience_s
        )
        self._settlements: SharedStatement[tuple[Notification, Settlement], bool] = SharedStatement(
            self._settle_one, self._settle_several, patience_s
        )

    def claim(self, order_id: int) -> Notification | None:
        """Reserve an order's next notification; None if it is not due, or another sender has it."""
        return self._claims.ask(order_id)

    def _claim_one(self, order_id: int) -> Notification | None:
        arguments = {"order_id": order_id, "claim_s": self._claim_s}
        rows = self._primary.execute("claim_order_notification", arguments)
        return _notification(rows[0]) if rows else None

    def _claim_several(self, order_ids: Sequence[int]) -> dict[int, Notification]:
        """Return the claims by the position of their order: once for an order named twice."""
        arguments = {"order_ids": list(order_ids), "claim_s": self._claim_s}
        rows = self._primary.execute("claim_order_notifications", arguments)
        return {order_ids.index(row[0]): _notification(row) for row in rows}

    def claim_due(self, limit: int) -> list[Notification]:
        """Reserve due notifications, at most one of each order."""
        arguments = {"limit": limit, "claim_s": self._claim_s}
        return [
            _notification(row)
            for row in self._primary.execute("claim_due_notifications", arguments)
        ]

    def queue(
        self, message_id: str, template: str, event: OrderEvent, ids: tuple[str, str]
    ) -> bool:
        """Write a row unless there is one; true if it was written.

        `ids` are correlation id and traceparent.
        """
        rows = self._primary.execute(
            "queue_notification",
            {
                "order_id": event.order_id,
                "template": template,
                "message_id": message_id,
                "version": event.version,
                "status": event.status,
                "reason": event.reason,
                "correlation_id": ids[0],
                "traceparent": ids[1],
            },
        )
        return bool(rows)

    def settle(self, notification: Notification, settlement: Settlement) -> bool:
        """End a claim; true if the order has another notification that was not sent."""
        return self._settlements.ask((notification, settlement))

    def _settle_one(self, ended: tuple[Notification, Settlement]) -> bool:
        notification, settlement = ended
        rows = self._primary.execute(
            "settle_notification",
            {
                "order_id": notification.order_id,
                "template": notification.template,
                "message_id": uuid.UUID(notification.webhook_id),
                "sent": settlement.sent,
                "outcome": settlement.outcome,
                "again_in_s": settlement.again_in_s,
                "error": settlement.error,
                "tried": int(settlement.tried),
            },
        )
        return bool(rows[0][0])

    def _settle_several(self, ended: Sequence[tuple[Notification, Settlement]]) -> dict[int, bool]:
        """Return whether there is another one, by the places of the claims that were ended."""
        rows = self._primary.execute("settle_notifications", {"ended": _json(ended)})
        return dict(rows)

    def count(self) -> Counts:
        """Count the unsent notifications."""
        return Counts(*self._primary.execute("count_notifications", {})[0])

    def unsent(self, states: Sequence[str], limit: int) -> list[Unsent]:
        """List notifications in some states, oldest first."""
        arguments = {"states": list(states), "limit": limit}
        return [Unsent(*row) for row in self._primary.execute("list_notifications", arguments)]

    def resend(
        self,
        reason: Reason,
        *,
        order_id: int | None = None,
        template: str | None = None,
        outcome: Outcome | None = None,
    ) -> list[tuple[int, str]]:
        """Start notifications afresh, with an audit row; return order id and template of each."""
        subject = f"those that ended as {outcome}" if order_id is None else f"order {order_id}"
        arguments = {
            "order_id": order_id,
            "template": template,
            "outcome": outcome,
            "actor": reason.actor,
            "because": reason.because,
            "subject": subject if template is None else f"{subject}, {template}",
        }
        rows = self._primary.execute("resend_notifications", arguments)
        return [(int(str(row[0])), str(row[1])) for row in rows]


def _json(ended: Sequence[tuple[Notification, Settlement]]) -> str:
    """Return claims that end as a statement takes them: arrays cost psycopg many times as much."""
    rows = [
        _Ended(
            place=place,
            order_id=notification.order_id,
            template=notification.template,
            message_id=notification.webhook_id,
            sent=settlement.sent,
            outcome=settlement.outcome,
            again_in_s=settlement.again_in_s,
            error=settlement.error,
            tried=int(settlement.tried),
        )
        for place, (notification, settlement) in enumerate(ended)
    ]
    return msgspec.json.encode(rows).decode()


def _notification(row: Row) -> Notification:
    (
        order_id,
        template,
        message_id,
        version,
        status,
        reason,
        correlation_id,
        traceparent,
        tries,
        age_s,
    ) = row
    # Release N-1 wrote rows without these: the receiver asks the API for what they were.
    # `order.completed.v1` is about Completed.
    status = status or template.split(".")[1].capitalize()
    event = OrderEvent(order_id, version or 1, status, reason)
    return Notification(
        order_id, template, str(message_id), event, correlation_id, traceparent, tries, age_s
    )
