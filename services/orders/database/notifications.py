"""Notifications about orders: each waits in a row until it is sent or given up.

Threads that claim at the same time, or end their claims, share a statement and its commit. The
first caller runs a statement at once. Callers that arrive meanwhile wait, and share the next one.
Their wait is limited, because a statement may wait for a lock that does not concern the others.
"""

import datetime as dt
import enum
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

import msgspec
import structlog

from orders.database.pool import Pool
from orders.database.statements import Row, ServerAway
from orders.domain.events import OrderEvent
from orders.errors import OrdersError

A = TypeVar("A")
R = TypeVar("R")

# Statements take milliseconds. A longer one waits for a lock, or the server has a problem.
PATIENCE_S: Final = 0.1
_log = structlog.get_logger()


class NotificationOutcome(enum.StrEnum):
    """Why a notification was not sent."""

    GONE = "gone"  # the receiver rejected it for good
    GIVEN_UP = "given_up"  # the time for tries is over


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
    """A notification as people see it; `state` is `waiting` or a NotificationOutcome."""

    order_id: int
    template: str
    state: str
    tries: int
    queued_at: dt.datetime
    next_at: dt.datetime | None
    last_error: str | None


class AuditDetails(msgspec.Struct, frozen=True):
    """The actor and the reason, for the audit row."""

    actor: str
    because: str


class Counts(msgspec.Struct, frozen=True):
    """How many notifications are not sent."""

    waiting: int
    oldest_age_s: float
    given_up: int


class SendResult(msgspec.Struct, frozen=True, kw_only=True):
    """How sending ended: sent, given up, or to be tried again in `again_in_s` seconds."""

    sent: bool = False
    outcome: NotificationOutcome | None = None
    again_in_s: float | None = None
    error: str | None = None
    tried: bool = True  # false: the receiver was not asked


class _Ended(msgspec.Struct):
    index: int
    order_id: int
    template: str
    message_id: str
    sent: bool
    outcome: NotificationOutcome | None
    again_in_s: float | None
    error: str | None
    tried: int


class _Request(Generic[A, R]):
    """A thread's question. The thread waits at the gate for its answer, or for a batch to send."""

    __slots__ = ("answers", "batch", "error", "gate", "question")

    def __init__(self, question: A) -> None:
        self.question = question
        self.answers: list[R] = []  # one; none if the thread has to ask alone
        self.error: ServerAway | None = None
        self.batch: list[_Request[A, R]] = []  # what this thread has to send, its own included
        self.gate = threading.Lock()
        self.gate.acquire()


class StatementGroup(Generic[A, R]):
    """Sends the questions of several threads in one statement.

    `several` returns its answers by the index of the question. A question without an answer is
    asked with `single`; so are all questions when `several` fails, and one that has waited for
    another statement for `patience_s`. So a question that waits for a lock delays no other one.
    """

    def __init__(
        self,
        single: Callable[[A], R],
        several: Callable[[Sequence[A]], Mapping[int, R]],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._single, self._several, self._patience_s = single, several, patience_s
        self._lock = threading.Lock()  # guards the next two
        self._running = False
        self._waiting: list[_Request[A, R]] = []

    def ask(self, question: A) -> R:
        """Return the answer. Raises what `single` raises."""
        request: _Request[A, R] = _Request(question)
        batch = self._turn(request)
        if len(batch) == 1:
            try:
                return self._single(question)
            finally:
                self._pass_on()
        if batch:
            self._answer(batch)
        if request.error is not None:
            raise request.error
        return request.answers[0] if request.answers else self._single(question)

    def _turn(self, request: _Request[A, R]) -> list[_Request[A, R]]:
        """Wait; return the requests that the caller has to send.

        The list is empty if another thread sent this one, or it has waited for `patience_s`.
        """
        with self._lock:
            if not self._running:
                self._running = True
                return [request]
            self._waiting.append(request)
        if not request.gate.acquire(timeout=self._patience_s) and not self._withdraw(request):
            request.gate.acquire()
        batch, request.batch = request.batch, []
        return batch

    def _withdraw(self, request: _Request[A, R]) -> bool:
        """Withdraw the request; return whether it was still waiting."""
        with self._lock:
            if request not in self._waiting:
                return False
            self._waiting.remove(request)
            return True

    def _answer(self, batch: list[_Request[A, R]]) -> None:
        try:
            answers = self._several([request.question for request in batch])
            for index, answer in answers.items():
                batch[index].answers.append(answer)
        except ServerAway as error:  # no question would be answered
            for request in batch:
                request.error = error
        except Exception as error:  # noqa: BLE001 each asks alone and sees the error
            if isinstance(error, OrdersError):
                _log.warning("set.fell_apart", error=str(error))
            else:
                _log.exception("set.fell_apart")
        finally:
            self._pass_on()
            for request in batch[1:]:
                request.gate.release()

    def _pass_on(self) -> None:
        """Let the first waiting thread send all waiting requests."""
        with self._lock:
            batch, self._waiting = self._waiting, []
            self._running = bool(batch)
        if batch:
            batch[0].batch = batch
            batch[0].gate.release()


class Notifications:
    """The notifications of orders, in order of their events within each order."""

    def __init__(self, primary: Pool, claim_s: float, patience_s: float = PATIENCE_S) -> None:
        """Make claims last for `claim_s` seconds: longer than sending one takes.

        `patience_s` is how long a thread waits for another thread's statement.
        """
        self._primary, self._claim_s = primary, claim_s
        self._claims: StatementGroup[int, Notification | None] = StatementGroup(
            self._claim_one, self._claim_several, patience_s
        )
        self._results: StatementGroup[tuple[Notification, SendResult], bool] = StatementGroup(
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
        """Return the claims by the index of their order; one for an order that is named twice."""
        arguments = {"order_ids": list(order_ids), "claim_s": self._claim_s}
        rows = self._primary.execute("claim_order_notifications", arguments)
        return {order_ids.index(row.order_id): _notification(row) for row in rows}

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
        """Write a row unless there is one; return whether it was written.

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

    def settle(self, notification: Notification, result: SendResult) -> bool:
        """End a claim; return whether the order has another notification that was not sent."""
        return self._results.ask((notification, result))

    def _settle_one(self, settlement: tuple[Notification, SendResult]) -> bool:
        notification, result = settlement
        rows = self._primary.execute(
            "settle_notification",
            {
                "order_id": notification.order_id,
                "template": notification.template,
                "message_id": uuid.UUID(notification.webhook_id),
                "sent": result.sent,
                "outcome": result.outcome,
                "again_in_s": result.again_in_s,
                "error": result.error,
                "tried": int(result.tried),
            },
        )
        return bool(rows[0].another)

    def _settle_several(
        self, settlements: Sequence[tuple[Notification, SendResult]]
    ) -> dict[int, bool]:
        """Return whether the order has another one, by the index of each claim that was ended."""
        rows = self._primary.execute("settle_notifications", {"ended": _json(settlements)})
        return dict(rows)

    def count(self) -> Counts:
        """Return the numbers of unsent notifications, and the age of the oldest one."""
        return Counts(*self._primary.execute("count_notifications", {})[0])

    def unsent(self, states: Sequence[str], limit: int) -> list[Unsent]:
        """List notifications in some states, oldest first."""
        arguments = {"states": list(states), "limit": limit}
        return [Unsent(*row) for row in self._primary.execute("list_notifications", arguments)]

    def resend(
        self,
        details: AuditDetails,
        *,
        order_id: int | None = None,
        template: str | None = None,
        outcome: NotificationOutcome | None = None,
    ) -> list[tuple[int, str]]:
        """Start notifications afresh, with an audit row; return order id and template of each."""
        subject = f"those that ended as {outcome}" if order_id is None else f"order {order_id}"
        arguments = {
            "order_id": order_id,
            "template": template,
            "outcome": outcome,
            "actor": details.actor,
            "because": details.because,
            "subject": subject if template is None else f"{subject}, {template}",
        }
        rows = self._primary.execute("resend_notifications", arguments)
        return [(row.order_id, row.template) for row in rows]


def _json(settlements: Sequence[tuple[Notification, SendResult]]) -> str:
    """Return settlements as JSON for a statement. Arrays would cost psycopg many times the CPU."""
    rows = [
        _Ended(
            index=index,
            order_id=notification.order_id,
            template=notification.template,
            message_id=notification.webhook_id,
            sent=result.sent,
            outcome=result.outcome,
            again_in_s=result.again_in_s,
            error=result.error,
            tried=int(result.tried),
        )
        for index, (notification, result) in enumerate(settlements)
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
    # Rows of release N-1 have no version, status and reason; the receiver asks the API for them.
    # The template names the status: `order.completed.v1` is about Completed.
    status = status or template.split(".")[1].capitalize()
    event = OrderEvent(order_id, version or 1, status, reason)
    return Notification(
        order_id, template, str(message_id), event, correlation_id, traceparent, tries, age_s
    )
