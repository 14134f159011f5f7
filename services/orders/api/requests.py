"""The body of POST /api/orders: JSON bytes to a NewOrder whose every value is within its bounds."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, Final, get_type_hints
from urllib.parse import quote

import msgspec
from msgspec import Meta, Raw

from orders.api.problems import INVALID, MALFORMED_BODY, UNSUPPORTED_MEDIA, Fault, Refusal
from orders.domain.order import (
    MAX_TOTAL,
    Id,
    InvalidTotal,
    NewOrder,
    PaymentMethod,
    Quantity,
    parse_total,
)

# What is named at most; a body of 64 KiB could hold thousands of faults.
_FAULTS_LIMIT: Final = 20
# A body with more quotes or brackets is refused before anything of it is built. An order has 12
# quotes and one bracket; the rest is room for mistakes that are worth naming.
_QUOTES_LIMIT: Final = 2 * 2 * _FAULTS_LIMIT
_BRACKETS_LIMIT: Final = 32
_TOTAL_SCHEMA: Final[dict[str, Any]] = {
    "type": "number",
    "minimum": 0.01,
    "maximum": float(MAX_TOTAL),
    # In arithmetic of floats 19.9 is no multiple of it: validate with decimals.
    "multipleOf": 0.01,
    "description": "Amount to charge; at most two decimal places.",
}


class OrderRequest(
    msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, gc=False
):
    """The requested order. Members that are not listed are refused."""

    user_id: Id
    product_id: Id
    quantity: Quantity
    # Raw: money is read from the digits that were sent, never from a float.
    total: Annotated[Raw, Meta(extra_json_schema=_TOTAL_SCHEMA)]
    payment_method: PaymentMethod


_MEMBERS: Final[dict[str, Any]] = {
    field.encode_name: get_type_hints(OrderRequest, include_extras=True)[field.name]
    for field in msgspec.structs.fields(OrderRequest)
}
# Of a body that decoded: five names and the one string value. More of them: a member is repeated.
_QUOTES: Final = 2 * (len(_MEMBERS) + 1)
_WORDS: Final = {
    "object": "an object", "array": "an array", "str": "a string", "int": "an integer",
    "float": "a number with decimals", "bool": "a boolean", "null": "null",
}  # fmt: skip
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decoder: Final = msgspec.json.Decoder(OrderRequest)
_members_decoder: Final = msgspec.json.Decoder(dict[str, Raw])


def check_media_type(content_type: str | None, content_encoding: str | None) -> None:
    """Refuse everything but plain JSON in UTF-8."""
    if content_encoding is not None:
        raise Refusal(UNSUPPORTED_MEDIA, "Send the body without Content-Encoding.")
    if content_type == "application/json" or _is_json(content_type or ""):
        return
    raise Refusal(UNSUPPORTED_MEDIA, "Send the body as application/json in UTF-8.")


def _is_json(content_type: str) -> bool:
    kind, *parts = (part.strip(" \t").lower() for part in content_type.split(";"))
    parameters = [part for part in parts if part]  # RFC 9110, 5.6.6: a parameter may be empty
    allowed = ("charset=utf-8", 'charset="utf-8"')
    return (
        kind == "application/json"
        and len(parameters) < 2
        and all(parameter in allowed for parameter in parameters)
    )


def decode_order(body: bytes) -> NewOrder:
    """Read an order. Raises Refusal, which names each fault and its place."""
    try:
        request = _decoder.decode(body)
        total = parse_total(bytes(request.total))
    except (*_UNREADABLE, InvalidTotal):
        raise _refusal(body) from None
    if body.count(b'"') != _QUOTES:
        raise _repeated(body)
    return NewOrder(
        request.user_id, request.product_id, request.quantity, total, request.payment_method
    )


def _refusal(body: bytes) -> Refusal:
    """Look at a body again, slowly, to name the first faults."""
    excess = _excess(body)
    if excess is not None:
        return Refusal(INVALID, excess, faults=[Fault("#", excess)])
    try:
        members = _members_decoder.decode(body)
    except msgspec.ValidationError:
        return _malformed("The body must be a JSON object.")
    except RecursionError:
        return _malformed("The body is nested too deeply.")
    except UnicodeDecodeError:
        return _malformed("The body is not valid UTF-8.")
    except msgspec.DecodeError as error:
        # What msgspec says about the bytes names a place and repeats no contents.
        detail = str(error).removeprefix("JSON is malformed: ").lower()
        return _malformed(f"The body is not valid JSON: {detail}.")
    faults = list(islice(_faults(members), _FAULTS_LIMIT))
    return _invalid_order(faults) if faults else _malformed("The body is not an order.")


def _excess(body: bytes) -> str | None:
    """Return a message if the body exceeds a limit, without decoding it; else None."""
    if body.count(b'"') > _QUOTES_LIMIT:
        return "The body has more members than an order."
    if body.count(b"{") + body.count(b"[") > _BRACKETS_LIMIT:
        return "The body is nested too deeply."
    return None


def _repeated(body: bytes) -> Refusal:
    """Name repeated members; names written with escapes are not recognised."""
    repeated = [name for name in _MEMBERS if body.count(b'"%b"' % name.encode()) > 1]
    faults = [Fault(_pointer(name), "is given more than once") for name in repeated]
    return _invalid_order(faults) if faults else _malformed("A member is given more than once.")


def _malformed(detail: str) -> Refusal:
    return Refusal(MALFORMED_BODY, detail, faults=[Fault("#", detail)])


def _invalid_order(faults: list[Fault]) -> Refusal:
    return Refusal(INVALID, f"{faults[0].pointer[2:]}: {faults[0].detail}", faults=faults)


def _faults(members: dict[str, Raw]) -> Iterator[Fault]:
    for name in members:
        if name not in _MEMBERS:
            yield Fault(_pointer(name), "unknown member")
    for name in _MEMBERS:
        if name not in members:
            yield Fault(_pointer(name), "is missing")
    for name, kind in _MEMBERS.items():
        detail = _complaint(name, kind, bytes(members[name])) if name in members else None
        if detail:
            yield Fault(_pointer(name), detail)


def _complaint(name: str, kind: Any, literal: bytes) -> str | None:
    try:
        if name == "total":
            parse_total(literal)
        else:
            msgspec.json.decode(literal, type=kind)
    except InvalidTotal as error:
        return str(error)
    except UnicodeDecodeError:
        return "is not valid UTF-8"
    except (msgspec.DecodeError, RecursionError) as error:
        return _plain(str(error))
    return None


def _plain(message: str) -> str:
    """Say msgspec's `Expected `int`, got `str`` without its type names."""
    if "regex" in message:
        return "expected 1 to 64 of the characters A-Z a-z 0-9 _ . : -"
    for word, plain in _WORDS.items():
        message = message.replace(f"`{word}`", plain)
    return message[:1].lower() + message[1:]


def _pointer(name: str) -> str:
    """Return the place of a member (RFC 6901, as a URI fragment)."""
    escaped = name[:64].replace("~", "~0").replace("/", "~1")
    return "#/" + quote(escaped, safe="~!$&'()*+,;=:@-._")
