"""Orders in PostgreSQL for the api: accept, find, list, history.

Also the stored answers of requests with an Idempotency-Key.
"""

import contextlib
import datetime as dt
from collections.abc import Callable, Hashable, Iterator, Sequence
from decimal import Decimal
from typing import Final, Protocol, TypeVar

import msgspec

from orders.database.pool import Pool
from orders.database.routing import Reads
from orders.database.statements import Busy, Locked, OutcomeUnknown, Row
from orders.domain.lifecycle import Status
from orders.domain.order import MAX_ID, NewOrder, Order, etag
from orders.errors import Transient
from orders.telemetry import tracing
from orders.telemetry.context import Context

# Up to this offset a page skips rows. Beyond it, a query of the index alone finds where it begins.
_SKIPPED: Final = 200
# A look-up takes a fifth of the time of `Status(value)`, and a page has a hundred of them.
_STATUS: Final = {status.value: status for status in Status}
_NEWEST: Final = (dt.datetime(9999, 12, 31, tzinfo=dt.UTC), MAX_ID)


class AnswerTemplate(msgspec.Struct, frozen=True):
    """The HTTP answer to a request that changes an order, as the api writes it.

    It is stored with the change, because a replay must return the very same answer. PostgreSQL's
    format() puts the order's id in place of `%s` in `body` and `location`: the id of a new order
    is known only in the statement that stores its answer.
    """

    route: str
    location: str
    body: str


class StoredAnswer(msgspec.Struct, frozen=True):
    """The answer to a request that changes an order, now or on replay."""

    status: int
    body: bytes
    location: str
    etag: str
    order_id: int | None = None  # of a new order only
    replayed: bool = False


class KeyReused(Exception):
    """Send another Idempotency-Key: this one belongs to a request with other contents."""


class Use(msgspec.Struct, frozen=True):
    """A request's Idempotency-Key, if it has one: unique by principal and route."""

    principal: str
    route: str
    key: str | None
    fingerprint: bytes

    @property
    def arguments(self) -> dict[str, object]:
        """The arguments of the statement that stores it."""
        return msgspec.structs.asdict(self)


def find_answer(pool: Pool, use: Use) -> StoredAnswer | None:
    """Return the stored answer of a key, if it was used. Raises KeyReused."""
    if use.key is None:
        return None
    rows = pool.read("find_answer", use.arguments)
    if not rows:
        return None
    row = rows[0]
    if bytes(row.fingerprint) != use.fingerprint:
        raise KeyReused
    return StoredAnswer(row.status, row.body.encode(), row.location, row.etag, replayed=True)


@contextlib.contextmanager
def busy_if_locked(use: Use) -> Iterator[None]:
    """Raise Busy instead of Locked if the request has a key, whose first use holds the lock."""
    try:
        yield
    except Locked as error:
        if use.key is None:  # for example a migration: no other request is the cause
            raise
        raise Busy("the key's first use is running", retry_after_s=1) from error


Q = TypeVar("Q")
R = TypeVar("R")


class Batching(Protocol):
    """Decides whether questions that arrive together share a statement.

    `single` answers one question, `several` a batch of them. Questions with the same `subject`
    are never in one batch, unless it is None.
    """

    def __call__(
        self,
        single: Callable[[Q], R],
        several: Callable[[Sequence[Q]], Sequence[R]],
        subject: Callable[[Q], Hashable],
        /,
    ) -> Callable[[Q], R]:
        """Return a function that answers one question."""


def unbatched(
    single: Callable[[Q], R],
    _several: Callable[[Sequence[Q]], Sequence[R]],
    _subject: Callable[[Q], Hashable],
) -> Callable[[Q], R]:
    """Return `single`: every question has its own statement."""
    return single


class Position(msgspec.Struct, frozen=True, array_like=True):
    """The last row of a page; the next page begins after it."""

    created_at: dt.datetime
    order_id: int


class Orders:
    """The orders of the API: accept and read them."""

    def __init__(
        self, primary: Pool, reads: Reads, answer: AnswerTemplate, batching: Batching = unbatched
    ) -> None:
        self._primary, self._reads, self._answer = primary, reads, answer
        self._common = {**msgspec.structs.asdict(answer), "etag": etag(1)}
        self._take = batching(self._take_one, self._take_set, _Submission.use)

    def accept(
        self, order: NewOrder, context: Context, principal: str, key: str | None
    ) -> StoredAnswer:
        """Take an order, once per principal and idempotency key.

        Idempotent with a key. Raises KeyReused, Busy while the first use of the key is running,
        Transient if PostgreSQL is unavailable (nothing is stored then, or it can be replayed).
        """
        with tracing.span("SaveOrder"):
            use = self._use(order, principal, key)
            with busy_if_locked(use):
                acceptance = _acceptance(order, context, use)
                encoded = msgspec.Raw(msgspec.json.encode(acceptance))
                rows = self._take(_Submission(acceptance, encoded))
        if rows:
            [(order_id, relay_sleeps)] = rows
            if relay_sleeps:
                self._primary.wake_relay()
            body, location = self._answer.body % order_id, self._answer.location % order_id
            return StoredAnswer(202, body.encode(), location, etag(1), order_id=order_id)
        if key is None:
            raise OutcomeUnknown("PostgreSQL accepted the order without an answer")
        answer = find_answer(self._primary, use)
        if answer is None:
            raise Transient("the idempotency key has just expired", retry_after_s=1)
        return answer

    def _take_one(self, submission: "_Submission") -> list[Row]:
        arguments = self._common | msgspec.structs.asdict(submission.acceptance)
        return self._primary.execute("accept_order", arguments)

    def _take_set(self, submissions: "Sequence[_Submission]") -> list[list[Row]]:
        encoded = msgspec.json.encode([submission.encoded for submission in submissions])
        arguments = self._common | {"orders": encoded.decode()}
        rows: list[list[Row]] = [[] for _ in submissions]
        for number, order_id, relay_sleeps in self._primary.execute("accept_orders", arguments):
            rows[number - 1].append((order_id, relay_sleeps))
        return rows

    def replay(self, order: NewOrder, principal: str, key: str) -> StoredAnswer | None:
        """Return the stored answer of a key, if it was used. Raises KeyReused."""
        return find_answer(self._primary, self._use(order, principal, key))

    def _use(self, order: NewOrder, principal: str, key: str | None) -> Use:
        fingerprint = b"" if key is None else order.fingerprint()
        return Use(principal, self._answer.route, key, fingerprint)

    def find(self, order_id: int) -> Order | None:
        """Return an order of any user; the caller checks the owner."""
        row = self._reads.one("find_order", {"id": order_id})
        return order_of(row, refund_pending=row.refund_pending) if row else None

    def page(
        self, user_id: int, limit: int, position: Position | None, offset: int, *, own_writes: bool
    ) -> list[Order]:
        """Return up to `limit` orders of a user, newest first, after a position or an offset."""
        if offset > _SKIPPED:
            last_skipped = {"user_id": user_id, "before": offset - 1}
            rows = self._reads.rows("find_position", last_skipped, own_writes=own_writes)
            if not rows:
                return []
            position, offset = Position(*rows[0]), 0
        before_at, before_id = (position.created_at, position.order_id) if position else _NEWEST
        arguments = {
            "user_id": user_id,
            "before_at": before_at,
            "before_id": before_id,
            "limit": limit,
            "offset": offset,
        }
        rows = self._reads.rows("list_orders", arguments, own_writes=own_writes)
        return [order_of(row) for row in rows]


class _Acceptance(msgspec.Struct, frozen=True):
    """The order's arguments of accept_order.sql; accept_orders.sql takes a JSON array of these."""

    principal: str
    key: str | None
    fingerprint: bytes
    user_id: int
    product_id: int
    quantity: int
    total: Decimal
    payment_method: str
    correlation_id: str
    traceparent: str
    trace_id: str


class _Submission(msgspec.Struct, frozen=True):
    """An order to take. Its own request encodes it, so a failure to encode fails no set."""

    acceptance: _Acceptance
    encoded: msgspec.Raw

    def use(self) -> tuple[str, str] | None:
        """Return the principal and key, which a set has only once; None without a key."""
        key = self.acceptance.key
        return None if key is None else (self.acceptance.principal, key)


def _acceptance(order: NewOrder, context: Context, use: Use) -> _Acceptance:
    return _Acceptance(
        principal=use.principal,
        key=use.key,
        fingerprint=use.fingerprint,
        user_id=order.user_id,
        product_id=order.product_id,
        quantity=order.quantity,
        total=order.total,
        payment_method=order.payment_method,
        correlation_id=context.correlation_id,
        traceparent=context.traceparent,
        trace_id=context.trace_id,
    )


def order_of(row: Row, *, refund_pending: bool = False) -> Order:
    """Return the order of a row that has the columns of find_order.sql."""
    return Order(
        row.id,
        row.user_id,
        row.product_id,
        row.quantity,
        row.total,
        _STATUS[row.status],
        row.version,
        row.created_at,
        row.updated_at,
        row.status_reason,
        row.cancel_requested,
        row.refunded,
        refund_pending,
    )


class HistoryEntry(msgspec.Struct, frozen=True):
    """One transition; `reason` is a Reason, or the text of the person who asked for it."""

    from_status: str | None
    to_status: str
    reason: str | None
    actor: str
    at: dt.datetime
    trace_id: str | None


class History:
    """The transitions of orders."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def of(
        self, order_id: int, subject: str | None, *, everyones: bool, own_writes: bool
    ) -> list[HistoryEntry]:
        """Return an order's transitions, oldest first; none for another user's order."""
        arguments = {"id": order_id, "subject": subject, "everyones": everyones}
        rows = self._reads.rows("list_history", arguments, own_writes=own_writes)
        if not rows and not own_writes:  # the replica may not have the order yet
            rows = self._reads.rows("list_history", arguments, own_writes=True)
        return [HistoryEntry(*row) for row in rows]
