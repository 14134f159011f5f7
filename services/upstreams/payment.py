"""Payment: captures and refunds, each done once per attempt id, even if repeated."""

import datetime as dt
import enum
import random
import re
import threading
from decimal import Decimal
from typing import Annotated, Final

import falcon
import msgspec
from msgspec import Meta

from upstreams import control
from upstreams.access import Access
from upstreams.control import RowsResource
from upstreams.faults import FaultMiddleware, Script, Stop
from upstreams.journal import Entries, EntriesResource, Journal
from upstreams.settings import Settings
from upstreams.web import MAX_ID, Refusal, answer, app, body, money

_ATTEMPT_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}\Z")
OrderId = Annotated[int, Meta(ge=1, le=MAX_ID)]


class Kind(enum.StrEnum):
    """What an attempt does with the money."""

    CAPTURE = "capture"
    REFUND = "refund"


class PaymentStatus(enum.StrEnum):
    """How an attempt ended."""

    CAPTURED = "captured"
    DECLINED = "declined"
    REFUNDED = "refunded"


class NewCapture(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """A request to charge."""

    order_id: OrderId
    amount: msgspec.Raw
    payment_method: Annotated[str, Meta(min_length=1, max_length=64)]


class NewRefund(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """A request to refund; with `capture_id` it is checked against that capture."""

    order_id: OrderId
    amount: msgspec.Raw
    capture_id: str | None = None


class Asked(msgspec.Struct, frozen=True):
    """The content of an attempt; all requests of an attempt must have the same."""

    kind: Kind
    order_id: int
    amount: Decimal
    reference: str | None  # payment method of a capture, capture id of a refund


class Attempt(msgspec.Struct, rename="camel"):
    """A row of the ledger; `calls` counts the requests of this attempt."""

    attempt_id: str
    order_id: int
    kind: Kind
    amount: Decimal
    status: PaymentStatus
    calls: int
    at: dt.datetime


class Answer(msgspec.Struct, rename="camel", frozen=True):
    """The answer about an attempt: the same every time."""

    attempt_id: str
    order_id: int
    status: PaymentStatus
    amount: Decimal


class Entry(msgspec.Struct, rename="camel", frozen=True):
    """An attempt as others may read it; `at` is when it reached its status."""

    attempt_id: str
    order_id: int
    kind: Kind
    amount: Decimal
    status: PaymentStatus
    at: dt.datetime


class PaymentStore:
    """Every attempt; all changes are under one lock, so none is done twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempts: dict[tuple[Kind, str], tuple[Asked, Attempt]] = {}
        self._refunded: dict[str, Decimal] = {}  # per capture
        self._journal: Journal[tuple[Kind, str]] = Journal()

    def reset(self) -> None:
        """Delete all attempts, refunds and the journal."""
        with self._lock:
            self._attempts.clear()
            self._refunded.clear()
            self._journal.clear()

    def capture(self, attempt_id: str, request: Asked, *, decline: bool) -> Answer:
        """Charge, or decline if the faults require it and the attempt is new."""
        with self._lock:
            status = PaymentStatus.DECLINED if decline else PaymentStatus.CAPTURED
            return self._once(attempt_id, request, status)

    def refund(self, attempt_id: str, request: Asked, *, decline: bool = False) -> Answer:
        """Refund, or decline if the faults require it and the attempt is new."""
        with self._lock:
            capture_id = request.reference
            if capture_id is not None and (Kind.REFUND, attempt_id) not in self._attempts:
                total = self._total_refund(capture_id, request)
                if not decline:
                    self._refunded[capture_id] = total
            return self._once(
                attempt_id, request, PaymentStatus.DECLINED if decline else PaymentStatus.REFUNDED
            )

    def find(self, attempt_id: str) -> Answer | None:
        """Return what became of a capture; None if it never came here."""
        with self._lock:
            entry = self._attempts.get((Kind.CAPTURE, attempt_id))
            return _answer(entry[1]) if entry else None

    def ledger(self) -> list[Attempt]:
        """Return a copy of every attempt, in the order they first came."""
        with self._lock:
            return [msgspec.structs.replace(row) for _, row in self._attempts.values()]

    def page(self, since: dt.datetime | None, cursor: str | None, limit: int) -> Entries:
        """Return captures and refunds in the order of their last change."""
        with self._lock:
            keys, following = self._journal.page(since, cursor, limit)
            return Entries([_entry(self._attempts[key][1]) for key in keys], following)

    def of_order(self, order_id: int) -> Entries:
        """Return the captures and refunds of one order."""
        with self._lock:
            keys = self._journal.of_order(order_id)
            return Entries([_entry(self._attempts[key][1]) for key in keys], None)

    def _once(self, attempt_id: str, request: Asked, status: PaymentStatus) -> Answer:
        key = (request.kind, attempt_id)
        if key not in self._attempts:
            at = self._journal.note(key, request.order_id)
            row = Attempt(attempt_id, request.order_id, request.kind, request.amount, status, 0, at)
            self._attempts[key] = (request, row)
        first_request, row = self._attempts[key]
        if first_request != request:
            raise Refusal(409, "conflict", "this attempt asked for something else before")
        row.calls += 1
        return _answer(row)

    def _total_refund(self, capture_id: str, request: Asked) -> Decimal:
        entry = self._attempts.get((Kind.CAPTURE, capture_id))
        if entry is None:
            raise Refusal(404, "unknown_capture")
        _, capture = entry
        if capture.status is not PaymentStatus.CAPTURED or capture.order_id != request.order_id:
            raise Refusal(409, "not_captured", "no money of this order was taken under this id")
        total = self._refunded.get(capture_id, Decimal(0)) + request.amount
        if total > capture.amount:
            raise Refusal(409, "exceeds_capture", "more than was captured")
        return total


def _answer(row: Attempt) -> Answer:
    return Answer(row.attempt_id, row.order_id, row.status, row.amount)


def _entry(row: Attempt) -> Entry:
    return Entry(row.attempt_id, row.order_id, row.kind, row.amount, row.status, row.at)


class PaymentResource:
    """Attempts to capture: `PUT` and `GET /payments/{attemptId}`."""

    def __init__(self, store: PaymentStore, script: Script) -> None:
        self._store, self._script = store, script

    def on_put(self, req: falcon.Request, resp: falcon.Response, attempt_id: str) -> None:
        """Capture, once per attempt."""
        _check(attempt_id)
        new = body(req, NewCapture)
        request = Asked(Kind.CAPTURE, new.order_id, money(new.amount), new.payment_method)
        chance = random.random() < self._script.current.decline_ratio  # noqa: S311 no secret
        decline = chance or new.payment_method.startswith("decline")
        answer(resp, self._store.capture(attempt_id, request, decline=decline))

    def on_get(self, _req: falcon.Request, resp: falcon.Response, attempt_id: str) -> None:
        """Answer what became of an attempt."""
        _check(attempt_id)
        attempt = self._store.find(attempt_id)
        if attempt is None:
            raise Refusal(404, "unknown_attempt")
        answer(resp, attempt)


class RefundResource:
    """Attempts to refund: `PUT /refunds/{attemptId}`."""

    def __init__(self, store: PaymentStore, script: Script) -> None:
        self._store, self._script = store, script

    def on_put(self, req: falcon.Request, resp: falcon.Response, attempt_id: str) -> None:
        """Pay back, once per attempt."""
        _check(attempt_id)
        new = body(req, NewRefund)
        request = Asked(Kind.REFUND, new.order_id, money(new.amount), new.capture_id)
        decline = random.random() < self._script.current.refund_decline_ratio  # noqa: S311 no secret
        answer(resp, self._store.refund(attempt_id, request, decline=decline))


def _check(attempt_id: str) -> None:
    if not _ATTEMPT_ID.match(attempt_id):
        raise Refusal(400, "invalid", "an attempt id is 1 to 128 of A-Z a-z 0-9 _ . : -")


def create_app(settings: Settings, stop: Stop) -> falcon.App[falcon.Request, falcon.Response]:
    """Wire the payment simulator."""
    store, script = PaymentStore(), Script()
    access = Access(settings.tokens)
    application = app(access, FaultMiddleware(script, stop, settings.threads))
    application.add_route("/payments", EntriesResource(store.page, store.of_order))
    application.add_route("/payments/{attempt_id}", PaymentResource(store, script))
    application.add_route("/refunds/{attempt_id}", RefundResource(store, script))
    application.add_route("/control/ledger", RowsResource(store.ledger))
    control.add(application, script, store.reset, access)
    return application
