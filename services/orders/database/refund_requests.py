"""Refund requests in PostgreSQL: the attempt is written, and the worker sends it to Payment."""

import enum
import hashlib
import uuid
from decimal import Decimal
from typing import Final

import msgspec

from orders.database.orders import (
    AnswerTemplate,
    StoredAnswer,
    Use,
    busy_if_locked,
    find_answer,
    order_of,
)
from orders.database.pool import Pool
from orders.domain.lifecycle import SUPPORT, Event, Status, transition
from orders.domain.order import AttemptKind, Order, attempt_id, etag, legacy_nonce, user_principal
from orders.errors import Transient
from orders.telemetry import tracing
from orders.telemetry.context import Context

_TRIES: Final = 5  # each fails if the order changes after it was read


class Unrefundable(enum.StrEnum):
    """Why a refund is not possible."""

    NOT_COMPLETED = "NotCompleted"
    EXCEEDS_CAPTURE = "ExceedsCapture"


class NotRefundable(Exception):
    """Do not change the order; `reason` says why the refund is not possible."""

    def __init__(self, reason: Unrefundable) -> None:
        super().__init__(reason)
        self.reason = reason


class RefundCommand(msgspec.Struct, frozen=True):
    """A request of support for a refund."""

    order_id: int
    amount: Decimal
    principal: str | None  # the owner of the key; None: the order's owner
    key: str | None = None
    note: str | None = None

    def use(self, route: str, owner_id: int) -> Use:
        """Return the use of its key, for the order's owner."""
        content = f"{self.order_id}\n{self.amount:.2f}\n{self.note or ''}".encode()
        principal = self.principal or user_principal(owner_id)
        return Use(principal, route, self.key, hashlib.sha256(content).digest())


class Requested(msgspec.Struct, frozen=True):
    """The answer to the request, and the order afterwards; None on replay."""

    answer: StoredAnswer
    order: Order | None = None


class _Account(msgspec.Struct, frozen=True):
    """An order, and the part of its payment that can still be refunded."""

    order: Order
    nonce: uuid.UUID
    left: Decimal
    refunds: int


class RefundRequests:
    """Accepts requests for refunds; their sum never exceeds what was captured."""

    def __init__(self, primary: Pool, answer: AnswerTemplate) -> None:
        """Answer with `answer`; the second `%s` of its body stands for the amount."""
        self._primary, self._answer = primary, answer

    def add(self, request: RefundCommand, context: Context) -> Requested | None:
        """Request a refund. Idempotent with a key; without one, each call is another refund.

        Returns None when there is no such order. Raises NotRefundable, KeyReused, Busy while the
        first use of the key is running, and Transient.
        """
        for _ in range(_TRIES):
            account = self._account(request.order_id)
            if account is None:
                return None
            use = request.use(self._answer.route, account.order.user_id)
            answer = find_answer(self._primary, use)
            if answer is not None:
                return Requested(answer)
            _check(account, request)
            requested = self._add(account, request, use, context)
            if requested is not None:
                return requested
        raise Transient("the order is being changed by others", retry_after_s=1)

    def _account(self, order_id: int) -> _Account | None:
        rows = self._primary.read("find_account", {"id": order_id})
        if not rows:
            return None
        [row] = rows
        order = order_of(row)
        nonce = row.nonce or legacy_nonce(order.id, order.created_at)
        return _Account(order, nonce, row.left_over, row.refunds)

    def _add(
        self, account: _Account, request: RefundCommand, use: Use, context: Context
    ) -> Requested | None:
        """Commit key, attempt, history and message together; None if the order has changed."""
        order, number = account.order, account.refunds + 1
        change = transition(order.status, Event.REFUND_REQUESTED)
        if change is None:
            raise NotRefundable(Unrefundable.NOT_COMPLETED)
        body = self._answer.body % (order.id, f"{request.amount:.2f}")
        location = self._answer.location % order.id
        answer = StoredAnswer(202, body.encode(), location, etag(order.version + 1))
        arguments = {
            **use.arguments,
            "id": order.id,
            "version": order.version,
            "status": order.status,
            "amount": request.amount,
            "attempt": attempt_id(account.nonce, AttemptKind.REFUND, number),
            "number": number,
            "reason": change.reason,
            "announces": change.announces,
            "actor": SUPPORT,
            "note": request.note,
            "code": answer.status,
            "body": body,
            "location": location,
            "etag": answer.etag,
            "correlation_id": context.correlation_id,
            "traceparent": context.traceparent,
            "trace_id": context.trace_id,
        }
        with tracing.span("RequestRefund"), busy_if_locked(use):
            rows = self._primary.execute("request_refund", arguments)
        if not rows:
            return None
        row = rows[0]
        if row.relay_sleeps:
            self._primary.wake_relay()
        changed = msgspec.structs.replace(
            order, version=row.version, updated_at=row.updated_at, refund_pending=True
        )
        return Requested(answer, changed)


def _check(account: _Account, request: RefundCommand) -> None:
    if account.order.status is not Status.COMPLETED:
        raise NotRefundable(Unrefundable.NOT_COMPLETED)
    if request.amount > account.left:
        raise NotRefundable(Unrefundable.EXCEEDS_CAPTURE)
