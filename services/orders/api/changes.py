"""What cancellations and refunds share: their small bodies, and the user they act for.

Both name an order and no user. The body of a cancellation is optional.
"""

import contextlib
import json
from decimal import Decimal
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from orders.api.problems import INVALID, MALFORMED_BODY, Fault, Refusal
from orders.api.requests import check_media_type, read_body
from orders.api.resource import Caller
from orders.cache.writers import RecentWriters
from orders.domain.order import MAX_TOTAL, InvalidTotal, parse_total, user_principal
from orders.errors import Transient

MAX_REASON: Final = 200
ReasonText = Annotated[
    str,
    Meta(
        max_length=MAX_REASON,
        # PostgreSQL stores no NUL, and a terminal would obey other control characters.
        pattern=r"^[^\u0000-\u0008\u000b-\u001f\u007f-\u009f]*\Z",
        description="The reason. It is stored, so it must not contain private data.",
    ),
]
_AMOUNT_SCHEMA: Final[dict[str, Any]] = {
    "type": "number",
    "minimum": 0.01,
    "maximum": float(MAX_TOTAL),
    "multipleOf": 0.01,  # to be checked with decimals, as an order's total
    "description": "Amount to pay back; at most two decimal places.",
}

# Numbers stay text here: msgspec has checked their ranges.
_PAIRS: Final = json.JSONDecoder(
    object_pairs_hook=list, parse_int=str, parse_float=str, parse_constant=str
)

T = TypeVar("T")


class CancellationRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """A cancellation; the body may be left out."""

    reason: ReasonText | UnsetType = UNSET


class RefundRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """A refund of a part of the money, or of all that is left."""

    amount: Annotated[Raw, Meta(extra_json_schema=_AMOUNT_SCHEMA)]
    reason: ReasonText | UnsetType = UNSET


def cancellation(env: dict[str, Any]) -> CancellationRequest:
    """Read the body of a cancellation. Raises Refusal, BodyTooLarge, BodyIncomplete."""
    body = read_body(env)
    if not body:
        return CancellationRequest()
    check_media_type(env.get("CONTENT_TYPE"), env.get("HTTP_CONTENT_ENCODING"))
    return _decode(body, CancellationRequest)


def refund(env: dict[str, Any]) -> tuple[Decimal, str | None]:
    """Read amount and reason of a refund. Raises Refusal, BodyTooLarge, BodyIncomplete."""
    check_media_type(env.get("CONTENT_TYPE"), env.get("HTTP_CONTENT_ENCODING"))
    request = _decode(read_body(env), RefundRequest)
    try:
        return parse_total(bytes(request.amount)), request.reason or None
    except InvalidTotal as error:
        raise _invalid("#/amount", str(error)) from None


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        decoded = msgspec.json.decode(body, type=kind)
        # JSON parsers differ in which value of a repeated name they take.
        names = [name for name, _ in _PAIRS.decode(body.decode())]
    except msgspec.ValidationError as error:
        detail, _, member = str(error).partition(" - at `$.")
        # Without msgspec's backticks. Its messages contain names of members, never values.
        plain = detail[:1].lower() + detail[1:].replace("`", "")
        if "regex" in detail:
            plain = "expected text without control characters"
        raise _invalid(f"#/{member.rstrip('`')}" if member else "#", plain) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        detail = "The body is not valid JSON."
        raise Refusal(MALFORMED_BODY, detail, faults=[Fault("#", detail)]) from None
    for name in names:
        if names.count(name) > 1:
            raise _invalid(f"#/{name}", "is given more than once")
    return decoded


def _invalid(pointer: str, detail: str) -> Refusal:
    member = pointer.removeprefix("#/")
    text = f"{member}: {detail}" if member not in ("", "#") else f"The body is invalid: {detail}"
    return Refusal(INVALID, text, faults=[Fault(pointer, detail)])


def principal(caller: Caller) -> str | None:
    """Return who uses the Idempotency-Key: the token's subject, or None for the order's owner."""
    return None if caller.subject is None else user_principal(caller.subject)


def mark_owner(writers: RecentWriters | None, caller: Caller, owner_id: int) -> None:
    """Mark the owner as a recent writer, unless the admission has marked them as the caller.

    The change is committed, so an error is ignored: it can only make the owner's list stale.
    """
    if writers is not None and caller.user_id != owner_id:
        with contextlib.suppress(Transient):
            writers.mark(owner_id)
