"""Decode requests: the body, ids in paths, and header fields; refuse invalid ones.

Falcon's `bounded_stream` is empty for a chunked body, and reading to the end is safe only where
the server marks the end (`wsgi.input_terminated`; gunicorn and meinheld do).

Idempotency-Key follows draft-ietf-httpapi-idempotency-key-header-07. A bare token is accepted as
well as the draft's quoted string, because most clients send one.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, Final, get_type_hints
from urllib.parse import quote

import msgspec
from gunicorn.http.errors import ParseException
from msgspec import Meta, Raw

from orders.api.problems import (
    BODY_LIMIT_BYTES,
    INVALID,
    INVALID_KEY,
    MALFORMED_BODY,
    MISSING_KEY,
    UNSUPPORTED_MEDIA,
    BodyIncomplete,
    BodyTooLarge,
    Fault,
    Refusal,
)
from orders.api.resource import Arguments, Parameter
from orders.domain.order import (
    MAX_ID,
    MAX_TOTAL,
    Id,
    InvalidTotal,
    NewOrder,
    PaymentMethod,
    Quantity,
    parse_total,
)

# gthread would wait forever for the rest of a body; after this long a silent client is refused.
STALL_S: Final = 10.0


def read_body(environ: dict[str, Any], limit_bytes: int = BODY_LIMIT_BYTES) -> bytes:
    """Return the whole body, chunked or not; never reads more than the limit and one byte.

    Raises BodyTooLarge, also for a declared length above the limit, and BodyIncomplete.
    """
    length = _declared_length(environ)
    if length is not None and length > limit_bytes:
        raise BodyTooLarge(f"The body has {length} bytes; {limit_bytes} are allowed.")
    if length is None and not environ.get("wsgi.input_terminated"):
        return b""
    body = _read(environ, limit_bytes + 1 if length is None else length)
    if len(body) > limit_bytes:
        raise BodyTooLarge(f"The body has more than the {limit_bytes} bytes allowed.")
    if length is not None and len(body) < length:
        raise BodyIncomplete(f"The body ends after {len(body)} of {length} bytes.")
    return body


def _declared_length(environ: dict[str, Any]) -> int | None:
    declared = environ.get("CONTENT_LENGTH", "").strip()
    if not declared:
        return None
    if not (declared.isascii() and declared.isdigit()):
        raise BodyIncomplete("Content-Length is not a number.")
    return int(declared)


def _read(environ: dict[str, Any], size: int) -> bytes:
    connection = environ.get("gunicorn.socket")
    if connection is not None:
        connection.settimeout(STALL_S)
    try:
        body: bytes = environ["wsgi.input"].read(size)
    except (OSError, ParseException) as error:  # closed, silent, or malformed chunks
        raise BodyIncomplete("The body ends too early or its chunks are malformed.") from error
    return body


# Most faults that an answer names; a body of 64 KiB could have thousands.
_FAULTS_LIMIT: Final = 20
# A body with more quotes or brackets is refused before it is decoded. An order has 12 quotes and
# one bracket; the limits are higher, so that common mistakes are reported in detail.
_QUOTES_LIMIT: Final = 2 * 2 * _FAULTS_LIMIT
_BRACKETS_LIMIT: Final = 32
_TOTAL_SCHEMA: Final[dict[str, Any]] = {
    "type": "number",
    "minimum": 0.01,
    "maximum": float(MAX_TOTAL),
    # In floating point 19.9 is not a multiple of 0.01: validate with decimals.
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
# Quotes in a valid body: five names and one string value. More mean that a member is repeated.
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
    kind, *parameters = (text.strip(" \t").lower() for text in content_type.split(";"))
    parameters = [text for text in parameters if text]  # RFC 9110, 5.6.6: it may be empty
    charsets = ("charset=utf-8", 'charset="utf-8"')
    return (
        kind == "application/json"
        and len(parameters) < 2
        and all(parameter in charsets for parameter in parameters)
    )


def decode_order(body: bytes) -> NewOrder:
    """Read an order. Raises Refusal, which names each fault and its place."""
    try:
        request = _decoder.decode(body)
        total = parse_total(bytes(request.total))
    except (*_UNREADABLE, InvalidTotal):
        raise _refusal(body) from None
    if body.count(b'"') != _QUOTES:
        # Names written with escapes are not recognised.
        repeated = [name for name in _MEMBERS if body.count(b'"%b"' % name.encode()) > 1]
        faults = [Fault(_pointer(name), "is given more than once") for name in repeated]
        raise _invalid_order(faults) if faults else _malformed("A member is given more than once.")
    return NewOrder(
        request.user_id, request.product_id, request.quantity, total, request.payment_method
    )


def _refusal(body: bytes) -> Refusal:
    """Decode the body again, more slowly, and report its first faults."""
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
        # msgspec's message names a position and repeats no contents of the body.
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
    """Return msgspec's message, like `Expected `int`, got `str``, without its type names."""
    if "regex" in message:
        return "expected 1 to 64 of the characters A-Z a-z 0-9 _ . : -"
    for word, plain in _WORDS.items():
        message = message.replace(f"`{word}`", plain)
    return message[:1].lower() + message[1:]


def _pointer(name: str) -> str:
    """Return the JSON pointer of a member (RFC 6901, as a URI fragment)."""
    escaped = name[:64].replace("~", "~0").replace("/", "~1")
    return "#/" + quote(escaped, safe="~!$&'()*+,;=:@-._")


KEY_FIELD: Final = "Idempotency-Key"
_MAX_KEY_CHARS: Final = 255
# Visible ASCII. No comma: WSGI servers join the fields of a repeated header with one.
_BARE_FORM: Final = r"[\x21\x23-\x2b\x2d-\x7e][\x21-\x2b\x2d-\x7e]{0,254}"
_QUOTED_FORM: Final = r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"'
_BARE: Final = re.compile(_BARE_FORM + r"\Z")
_QUOTED: Final = re.compile(_QUOTED_FORM + r"\Z")
_ESCAPE: Final = re.compile(r"\\(.)")
# For the documentation: how the field is written, quotes and escapes included.
IdempotencyKey = Annotated[str, Meta(pattern=rf"^({_BARE_FORM}|{_QUOTED_FORM})\Z")]
_DIGITS: Final = re.compile(r"[1-9][0-9]{0,15}\Z", re.ASCII)
_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def idempotency_key(header: str | None, *, required: bool) -> str | None:
    """Return the key of a request; None if it has none and needs none."""
    if header is None:
        if required:
            raise Refusal(MISSING_KEY, "Send an Idempotency-Key header with this request.")
        return None
    if _BARE.match(header):
        return header
    quoted = _QUOTED.match(header)
    if quoted is None:
        raise Refusal(
            INVALID_KEY,
            f"Send one Idempotency-Key of 1 to {_MAX_KEY_CHARS} visible ASCII characters; "
            "one with a comma must be in double quotes.",
        )
    return _ESCAPE.sub(r"\1", quoted[1])


def is_known(tag: str, if_none_match: str | None) -> bool:
    """Return whether the caller has this version already (RFC 9110, 13.1.2).

    Tags are compared weakly; `*` matches any version.
    """
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or tag in _TAG.findall(if_none_match)


def number(name: str, text: str, maximum: int = MAX_ID) -> int:
    """Read a decimal integer from 1 to `maximum`; no sign, no leading zero."""
    if _DIGITS.match(text) and int(text) <= maximum:
        return int(text)
    raise Refusal(INVALID, f"{name} must be an integer from 1 to {maximum}.")


def decode_order_id(_env: dict[str, Any], path: dict[str, str]) -> Arguments:
    """Read the order's id in the path. Raises Refusal."""
    return {"order_id": number("id", path["id"])}


IDEMPOTENCY_KEY: Final = Parameter(
    name=KEY_FIELD,
    where="header",
    type=IdempotencyKey,
    description="Makes a repetition of this request safe, for 24 hours.",
)
ORDER_ID: Final = Parameter(name="id", where="path", type=Id, description="The order.")
