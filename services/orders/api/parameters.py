"""Read the parts of a request outside of its body: ids in paths, and header fields.

The header of a key is read as draft-ietf-httpapi-idempotency-key-header-07 says; a bare token is
taken as well as the draft's quoted string, because that is what most clients send.
"""

import re
from typing import Annotated, Any, Final

from msgspec import Meta

from orders.api.problems import INVALID, INVALID_KEY, MISSING_KEY, Refusal
from orders.api.resource import Arguments, Parameter
from orders.domain.order import MAX_ID, Id

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
    """Tell whether the caller has this version already (RFC 9110, 13.1.2).

    Tags are compared weakly; `*` matches whatever exists.
    """
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or tag in _TAG.findall(if_none_match)


def number(name: str, text: str, most: int = MAX_ID) -> int:
    """Read a decimal integer from 1 to `most`; no sign, no leading zero."""
    if _DIGITS.match(text) and int(text) <= most:
        return int(text)
    raise Refusal(INVALID, f"{name} must be an integer from 1 to {most}.")


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
