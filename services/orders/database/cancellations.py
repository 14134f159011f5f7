"""Cancellation of an order in PostgreSQL, in any status."""

import enum
import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

from orders.database.orders import StoredAnswer, Use, busy_if_locked, find_answer, order_of
from orders.database.pool import Pool
from orders.domain.lifecycle import CANCELLED, Event, Status, transition
from orders.domain.order import Order, user_principal
from orders.errors import Transient
from orders.telemetry import tracing
from orders.telemetry.context import Context

_ETAG: Final = '"v%s"'


class CancellationTemplates(msgspec.Struct, frozen=True):
    """The answers to cancellations, as AnswerTemplate; `bodies` are by the order's new status.

    `declined` is the body for an order whose refund Payment declined.
    """

    route: str
    location: str
    bodies: Mapping[Status, str]
    declined: str


class TooLate(enum.StrEnum):
    """Why an order cannot be cancelled."""

    FAILED = "Failed"
    WINDOW_CLOSED = "WindowClosed"


class NotCancellable(Exception):
    """Leave the order as it is; `reason` says why it cannot be cancelled."""

    def __init__(self, reason: TooLate) -> None:
        super().__init__(reason)
        self.reason = reason


class CancellationCommand(msgspec.Struct, frozen=True):
    """A request for a cancellation.

    `subject` is the caller, None without authentication; `everyones` allows any user's order.
    """

    order_id: int
    subject: str | None
    everyones: bool
    principal: str | None  # the owner of the key; None: the order's owner
    key: str | None = None
    note: str | None = None

    def use(self, route: str, owner_id: int = 0) -> Use:
        """Return the use of its key, for the order's owner."""
        content = f"{self.order_id}\n{self.note or ''}".encode()
        principal = self.principal or user_principal(owner_id)
        return Use(principal, route, self.key, hashlib.sha256(content).digest())


class Cancelled(msgspec.Struct, frozen=True):
    """The answer to a cancellation, and the order afterwards; None on replay."""

    answer: StoredAnswer
    order: Order | None = None


class Cancellations:
    """Cancels orders, up to `window_s` seconds after the payment by the database's clock."""

    def __init__(self, primary: Pool, window_s: float, answers: CancellationTemplates) -> None:
        self._primary, self._answers = primary, answers
        self._common = {
            **_rules(answers), "location": answers.location, "etag": _ETAG,
            "window_s": float(window_s),
        }  # fmt: skip

    def cancel(self, request: CancellationCommand, context: Context) -> Cancelled | None:
        """Cancel an order, or have it cancelled by the outcome of its charge. Idempotent.

        Returns None if the caller has no such order. Raises NotCancellable, KeyReused,
        Busy while the first use of the key is running, and Transient.
        """
        use = request.use(self._answers.route)
        with tracing.span("CancelOrder"), busy_if_locked(use):
            rows = self._primary.execute("cancel_order", self._arguments(request, use, context))
        if not rows:
            return None
        [row] = rows
        if row.relay_sleeps:
            self._primary.wake_relay()
        if row.code is None or row.late:
            replayed = self._replayed(request, row.user_id)
            if replayed is None:
                raise NotCancellable(TooLate.FAILED if row.code is None else TooLate.WINDOW_CLOSED)
            return replayed
        if not row.answered:
            replayed = self._replayed(request, row.user_id)
            if replayed is None:
                raise Transient("the idempotency key has just expired", retry_after_s=1)
            return replayed
        order = order_of(row)
        body, location = row.body % order.id, self._answers.location % order.id
        return Cancelled(StoredAnswer(row.code, body.encode(), location, order.etag), order)

    def _replayed(self, request: CancellationCommand, owner_id: int) -> Cancelled | None:
        answer = find_answer(self._primary, request.use(self._answers.route, owner_id))
        return None if answer is None else Cancelled(answer)

    def _arguments(
        self, request: CancellationCommand, use: Use, context: Context
    ) -> dict[str, object]:
        return {
            **self._common,
            **use.arguments,
            "principal": request.principal,
            "id": request.order_id,
            "subject": request.subject,
            "everyones": request.everyones,
            "note": request.note,
            "correlation_id": context.correlation_id,
            "traceparent": context.traceparent,
            "trace_id": context.trace_id,
        }


def _rules(answers: CancellationTemplates) -> dict[str, object]:
    """Return the transitions of cancellations as arrays; the statement chooses one of them."""
    rows: list[tuple[str, str, str | None, str | None, int, str]] = []
    for status in Status:
        change = transition(status, Event.CANCEL_REQUESTED)
        if change is not None:
            body = answers.bodies[change.to]
            rows.append((status, change.to, change.reason, change.announces, 202, body))
        elif status in CANCELLED:
            rows.append((status, status, None, None, 200, answers.bodies[status]))
    names = ("statuses", "next", "reasons", "announces", "codes", "bodies")
    table: dict[str, object] = {
        name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }
    return {**table, "declined": answers.declined}
