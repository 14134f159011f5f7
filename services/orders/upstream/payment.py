"""Payment: captures and refunds, each keyed by the id of its attempt."""

import enum
from decimal import Decimal
from typing import Final
from urllib.parse import quote

import msgspec

from orders.upstream.http import InvalidAnswer, Upstream, decode, error_code
from orders.upstream.transport import Call, HttpRequest, HttpResponse

_CENT: Final = Decimal("0.01")
_UNKNOWN_ATTEMPT: Final = "unknown_attempt"
# Answers that only a person can settle: the id was used for another refund, which a failover lost,
# or nothing is left to refund.
_REFUND_REFUSALS: Final = frozenset(
    {"conflict", "unknown_capture", "not_captured", "exceeds_capture"}
)
_encoder: Final = msgspec.json.Encoder(decimal_format="number")  # 19.90, never "19.90"


class Captured(msgspec.Struct, frozen=True):
    """The money was taken under this attempt."""

    attempt_id: str
    order_id: int
    amount: Decimal


class Declined(msgspec.Struct, frozen=True):
    """The attempt failed: no money moved, and none will."""

    attempt_id: str
    order_id: int
    amount: Decimal


class Refunded(msgspec.Struct, frozen=True):
    """The money was given back under this attempt."""

    attempt_id: str
    order_id: int
    amount: Decimal


class _Status(enum.StrEnum):
    CAPTURED = "captured"
    DECLINED = "declined"
    REFUNDED = "refunded"


class _Attempt(msgspec.Struct, rename="camel", frozen=True):
    attempt_id: str
    order_id: int
    status: _Status
    amount: Decimal


class _NewCapture(msgspec.Struct, rename="camel", frozen=True):
    order_id: int
    amount: Decimal
    payment_method: str


class _NewRefund(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    order_id: int
    amount: Decimal
    capture_id: str | None = None


class Payment:
    """The payment service. Every method may be repeated: it takes effect once per attempt id.

    Every method raises Transient when no reliable answer came. The outcome is then *unknown*: only
    another call under the same attempt id can settle it. Permanent means that Payment refuses the
    request itself: it is malformed, or its attempt id belongs to another request.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def capture(
        self, attempt_id: str, order_id: int, amount: Decimal, method: str
    ) -> Captured | Declined:
        """Take the money for an order."""
        return self._upstream.call(*capture_call(attempt_id, order_id, amount, method))

    def find(self, attempt_id: str, order_id: int, amount: Decimal) -> Captured | Declined | None:
        """Return the outcome of a capture; None if Payment does not know it so far.

        None does not mean "never": a capture may still be on its way. Ask again under the same id.
        """
        return self._upstream.call(*find_call(attempt_id, order_id, amount))

    def refund(
        self, attempt_id: str, order_id: int, amount: Decimal, *, capture_id: str | None = None
    ) -> Refunded | Declined:
        """Refund money; with `capture_id`, at most what was captured under it.

        Declined also for the error codes that only a person can settle.
        """
        return self._upstream.call(*refund_call(attempt_id, order_id, amount, capture_id))


def capture_call(
    attempt_id: str, order_id: int, amount: Decimal, method: str
) -> Call[Captured | Declined]:
    """Return the call of `Payment.capture`."""
    body = _encoder.encode(_NewCapture(order_id, _cents(amount), method))

    def read(reply: HttpResponse) -> Captured | Declined:
        return _capture_of(_attempt_of(reply, attempt_id, order_id, amount))

    return Call(_request("PUT", "payments", attempt_id, body), read)


def find_call(attempt_id: str, order_id: int, amount: Decimal) -> Call[Captured | Declined | None]:
    """Return the call of `Payment.find`."""

    def read(reply: HttpResponse) -> Captured | Declined | None:
        if reply.status == 404 and error_code(reply) == _UNKNOWN_ATTEMPT:
            return None
        return _capture_of(_attempt_of(reply, attempt_id, order_id, amount))

    return Call(_request("GET", "payments", attempt_id), read)


def refund_call(
    attempt_id: str, order_id: int, amount: Decimal, capture_id: str | None
) -> Call[Refunded | Declined]:
    """Return the call of `Payment.refund`."""
    body = _encoder.encode(_NewRefund(order_id, _cents(amount), capture_id))

    def read(reply: HttpResponse) -> Refunded | Declined:
        if reply.status in (404, 409) and error_code(reply) in _REFUND_REFUSALS:
            return Declined(attempt_id, order_id, amount)
        attempt = _attempt_of(reply, attempt_id, order_id, amount)
        if attempt.status is _Status.CAPTURED:
            raise InvalidAnswer("a refund cannot be captured")
        outcome = Refunded if attempt.status is _Status.REFUNDED else Declined
        return outcome(attempt_id, order_id, attempt.amount)

    return Call(_request("PUT", "refunds", attempt_id, body), read)


def _request(method: str, kind: str, attempt_id: str, body: bytes | None = None) -> HttpRequest:
    path = f"/{kind}/{quote(attempt_id, safe='')}"
    return HttpRequest(method, path, f"/{kind}/{{attemptId}}", body)


def _attempt_of(reply: HttpResponse, attempt_id: str, order_id: int, amount: Decimal) -> _Attempt:
    """Decode an answer. Raises InvalidAnswer unless it is about the requested attempt."""
    attempt = decode(reply, _Attempt)
    if (attempt.attempt_id, attempt.order_id, attempt.amount) != (attempt_id, order_id, amount):
        raise InvalidAnswer("another attempt than the one asked for")
    return attempt


def _capture_of(attempt: _Attempt) -> Captured | Declined:
    if attempt.status is _Status.REFUNDED:
        raise InvalidAnswer("a capture cannot be refunded")
    outcome = Captured if attempt.status is _Status.CAPTURED else Declined
    return outcome(attempt.attempt_id, attempt.order_id, attempt.amount)


def _cents(amount: Decimal) -> Decimal:
    cents = amount.quantize(_CENT)
    if cents != amount or amount <= 0:
        raise ValueError("give an amount above 0 with at most two decimals")
    return cents
