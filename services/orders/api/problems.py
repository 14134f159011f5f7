"""Errors as RFC 9457 problems, and the one table from exception to answer.

The message of an exception never reaches a caller, unless it is a `Refusal`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import falcon
import msgspec
import structlog
from msgspec import UNSET, UnsetType

from orders.database.orders import KeyReused
from orders.database.statements import Busy, OutcomeUnknown
from orders.errors import OrdersError, Permanent, Transient
from orders.telemetry.context import Context

MEDIA_TYPE: Final = "application/problem+json"
BODY_LIMIT_BYTES: Final = 64 * 1024
Headers = Sequence[tuple[str, str]]
_log = structlog.get_logger()


class Fault(msgspec.Struct, frozen=True):
    """One fault of a request. `pointer` is a JSON pointer as a URI fragment."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, rename="camel", frozen=True, kw_only=True, omit_defaults=True):
    """The body of every error. `error` repeats `detail` for clients of the seed contract."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    error: str
    correlation_id: str
    trace_id: str
    errors: list[Fault] = msgspec.field(default_factory=list)
    violated_policies: list[str] = msgspec.field(default_factory=list, name="violated-policies")
    reason: str | UnsetType = UNSET


class ProblemType(msgspec.Struct, frozen=True):
    """A problem type; `about:blank` adds nothing to the status."""

    status: int
    title: str
    type: str = "about:blank"


def _kind(status: HTTPStatus) -> ProblemType:
    return ProblemType(status.value, status.phrase)


_URN: Final = "urn:orders:problem:"
_IANA: Final = "https://iana.org/assignments/http-problem-types#"

MALFORMED_BODY: Final = ProblemType(400, "The body is not JSON", _URN + "malformed-body")
INVALID: Final = ProblemType(400, "The request is not valid", _URN + "invalid-request")
INSUFFICIENT_INVENTORY: Final = ProblemType(
    400, "Insufficient inventory", _URN + "insufficient-inventory"
)
INVALID_KEY: Final = ProblemType(
    400, "The Idempotency-Key is not valid", _URN + "invalid-idempotency-key"
)
MISSING_KEY: Final = ProblemType(
    400, "An Idempotency-Key is required", _URN + "missing-idempotency-key"
)
UNAUTHENTICATED: Final = _kind(HTTPStatus.UNAUTHORIZED)
FORBIDDEN: Final = _kind(HTTPStatus.FORBIDDEN)
NOT_FOUND: Final = _kind(HTTPStatus.NOT_FOUND)
METHOD_NOT_ALLOWED: Final = _kind(HTTPStatus.METHOD_NOT_ALLOWED)
KEY_IN_USE: Final = ProblemType(
    409, "The Idempotency-Key is in use", _URN + "idempotency-key-in-use"
)
NOT_CANCELLABLE: Final = ProblemType(409, "The order cannot be cancelled", _URN + "not-cancellable")
NOT_REFUNDABLE: Final = ProblemType(409, "The refund is not possible", _URN + "not-refundable")
TOO_LARGE: Final = ProblemType(413, "Content Too Large")
UNSUPPORTED_MEDIA: Final = _kind(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
KEY_REUSED: Final = ProblemType(
    422, "The Idempotency-Key belongs to another request", _URN + "idempotency-key-reused"
)
RATE_LIMITED: Final = ProblemType(429, "Too Many Requests", _IANA + "quota-exceeded")
INTERNAL: Final = _kind(HTTPStatus.INTERNAL_SERVER_ERROR)
UNAVAILABLE: Final = _kind(HTTPStatus.SERVICE_UNAVAILABLE)
OUTCOME_UNKNOWN: Final = ProblemType(503, "The outcome is not known", _URN + "outcome-unknown")
SHED: Final = ProblemType(503, "Service Unavailable", _IANA + "temporary-reduced-capacity")


class Refusal(Exception):
    """A problem to answer with. Its texts are for the caller to read."""

    def __init__(  # noqa: PLR0913 one for each member of a problem
        self,
        kind: ProblemType,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Headers = (),
        violated_policies: Sequence[str] = (),
        reason: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.headers = kind, detail, headers
        self.faults, self.violated_policies = list(faults), list(violated_policies)
        self.reason = reason


class BodyTooLarge(OrdersError):
    """Send a smaller body (413)."""


class BodyIncomplete(OrdersError):
    """Send the whole body, framed as HTTP/1.1 requires (400)."""


def not_found() -> Refusal:
    """Refuse an unknown order and an order of another user with the same answer."""
    return Refusal(NOT_FOUND, "There is no such order.")


def _busy(_error: Busy) -> Refusal:
    return Refusal(
        KEY_IN_USE,
        "The first request with this Idempotency-Key is still running. Ask again shortly.",
        headers=[("Retry-After", "1")],
    )


def _transient(error: Transient) -> Refusal:
    wait_s = error.retry_after_s or 1
    _log.warning("request.unavailable", error=str(error))
    return Refusal(
        UNAVAILABLE,
        "The service cannot answer right now. Please retry later.",
        headers=[("Retry-After", str(math.ceil(wait_s)))],
    )


def _outcome_unknown(error: OutcomeUnknown) -> Refusal:
    """Refuse without Retry-After: a client that retries would order twice."""
    _log.warning("request.outcome_unknown", error=str(error))
    return Refusal(
        OUTCOME_UNKNOWN,
        "The request may have been carried out. List your orders before you send it again; with an "
        "Idempotency-Key it can be repeated safely.",
    )


def _internal(error: Exception) -> Refusal:
    _log.error("request.failed", error=type(error).__name__, exc_info=error)
    return Refusal(INTERNAL, "The service failed to handle the request.")


def _http(error: falcon.HTTPError) -> Refusal:
    """Return the refusal for an error that Falcon raised."""
    status = HTTPStatus(error.status_code)
    fields = dict(error.headers or {})
    return Refusal(_kind(status), f"{status.phrase}.", headers=list(fields.items()))


# Looked up by the class of the exception, then by its bases.
_ANSWERS: Final[dict[type[Exception], Callable[[Any], Refusal]]] = {
    Refusal: lambda refusal: refusal,
    KeyReused: lambda _: Refusal(
        KEY_REUSED, "This Idempotency-Key was used with other contents. Use a new key."
    ),
    BodyTooLarge: lambda _: Refusal(
        TOO_LARGE, f"The body may have at most {BODY_LIMIT_BYTES} bytes."
    ),
    BodyIncomplete: lambda _: Refusal(
        MALFORMED_BODY, "The body ends early, or its framing is wrong."
    ),
    Busy: _busy,
    Transient: _transient,
    Permanent: _internal,
    falcon.HTTPRouteNotFound: lambda _: Refusal(NOT_FOUND, "There is nothing at this path."),
    falcon.HTTPError: _http,
    Exception: _internal,
}


def refusal(error: Exception, *, repeatable: bool = True) -> Refusal:
    """Return the answer for an exception; log the details that callers must not see.

    `repeatable`: whether sending the request again does no more than sending it once.
    """
    if isinstance(error, OutcomeUnknown) and not repeatable:
        return _outcome_unknown(error)
    for kind in type(error).__mro__:
        if kind in _ANSWERS:
            return _ANSWERS[kind](error)
    return _internal(error)


def render(error: Refusal, path: str, context: Context) -> bytes:
    """Return the body of the answer to a request for `path`."""
    kind, detail = error.kind, error.detail
    # A URI reference without a host, from the path as WSGI tunnels it.
    octets = path.lstrip("/")[:256].encode("latin-1", "replace")
    problem = Problem(
        type=kind.type,
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance="/" + quote(octets, safe="/:@!$&'()*+,;=-._~"),
        error=detail,
        correlation_id=context.correlation_id,
        trace_id=context.trace_id,
        errors=error.faults,
        violated_policies=error.violated_policies,
        reason=error.reason or UNSET,
    )
    return msgspec.json.encode(problem)


@functools.cache
def status_line(status: int) -> str:
    """Return the status line that WSGI expects: `404 Not Found`."""
    return f"{status} {HTTPStatus(status).phrase}"


def headers(error: Refusal) -> list[tuple[str, str]]:
    """Return the header fields of the answer, without those that every answer has."""
    return [
        ("Content-Type", MEDIA_TYPE),
        ("Cache-Control", "no-store"),
        *error.headers,
    ]
